"""Imports data: every row that can be used is written, every other is named with file and line.

Rows are written shard by shard, so a stopped import resumes with the first missing shard and ends with the
same files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from etils import epath

from vilasr_jax.drawing.prompts import FILE, get_prompts
from vilasr_jax.errors import ConfigError, DataError, did_you_mean
from vilasr_jax.files import literal_path, near_path, write_json
from vilasr_jax.processing import load_image, resize_image
from vilasr_jax.tasks.importers.benchmarks import benchmark_reader
from vilasr_jax.tasks.importers.fields import Draft
from vilasr_jax.tasks.importers.items import Item, read_items
from vilasr_jax.tasks.importers.marks import Canvas
from vilasr_jax.tasks.importers.own_pictures import read_own_items, read_own_picture
from vilasr_jax.tasks.importers.pictures import Pictures
from vilasr_jax.tasks.importers.questions import read_question
from vilasr_jax.tasks.importers.sharegpt import read_sharegpt
from vilasr_jax.tasks.importers.wording import extract_prompts
from vilasr_jax.tasks.stored import INDEX, StoredRow, StoredRows, shard_note, write_shard

SHARD = 128  # items
PROMPT_ROWS = 2000  # conversations, evenly spaced, that the prompt is extracted from
BROKEN = "broken.txt"


@dataclass(frozen=True)
class Format:
    """A layout: where its files are below the given folder, and how an item becomes a row."""

    folders: tuple[str, ...]
    names: tuple[str, ...]
    read: Callable[[Mapping[str, Any], str], Draft]
    items: Callable[[epath.Path], Iterator[Item]] = read_items


def _benchmark(name: str, data_type: str = "") -> Format:
    return Format((".", "benchmark"), (f"{name}.json", f"{name}.jsonl"), benchmark_reader(name, data_type))


FORMATS: dict[str, Format] = {
    "cold_start": Format(("cold_start", "."), ("*.json", "*.jsonl"), read_sharegpt),
    "rrs": Format(("reflective_rejection_sampling", "."), ("*.json", "*.jsonl"), read_sharegpt),
    "rl": Format(("rl", "."), ("*.json", "*.jsonl"), read_question),
    "maze": _benchmark("maze", "maze"),
    "SpatialEval_spatialreal": _benchmark("SpatialEval_spatialreal", "vqa"),
    "vsi_bench": _benchmark("vsi_bench", "video"),
    "spar_bench": _benchmark("spar_bench"),
    "mmsi_bench": _benchmark("mmsi_bench"),
}
PICTURES = "pictures"
_OWN_ENDS = ("jsonl", "json", "csv", "tsv")
OWN = Format((".",), tuple(f"train.{end}" for end in _OWN_ENDS), read_own_picture, read_own_items)
_NO_ROWS = ("dataset_info.json",)


def import_data(
    name: str,
    source: str | os.PathLike,
    destination: str | os.PathLike,
    images: str | os.PathLike | None = None,
    progress: Callable[[int, int, str], None] | None = None,
    canvas: Canvas | None = None,
    coordinates: int | None = None,
) -> dict[str, Any]:
    """Imports one format; returns the index that is also written to `destination/index.json`.

    Args:
      name: one of `FORMATS`, or `PICTURES`.
      source: a published folder, local or `gs://`, or one file of it.
      destination: a local folder, new or that of the same import.
      images: where relative image paths start, if not at `source` or in the file's folder.
      progress: called with percent that are done, 100, and a line of figures.
      canvas: how boxes and lines of `PICTURES` are drawn.
      coordinates: where the texts count places in images from 0 to this (1000); None: they count pixels.

    Returns:
      {"format", "source", "images_from", "files", "digests", "rows", "images", "broken", "shards": [names]};
      the broken rows are listed in `broken.txt`, one per line. Of conversations also "prompt", see
      `extract_prompts`; the prompt is saved in `prompt.json` when they are of one wording.

    Raises:
      ConfigError: an unknown format, or a destination that holds something else.
      DataError: no file of the format, or none of its rows can be used.
    """
    form = get_format(name)
    if (name == PICTURES) != (canvas is not None):
        raise ConfigError(
            f"--config says how {PICTURES} are drawn; it is needed for that format and no other"
        )
    if name == PICTURES and coordinates is not None:
        raise ConfigError(f"--coordinates: places of {PICTURES} are pixels; leave it out")
    if str(destination).startswith("gs://"):
        raise ConfigError(f"{destination}: rows are written to a local (or mounted) folder")
    source, folder = _absolute(source), Path(destination)
    images = None if images is None else _absolute(images)
    files = find_files(name, source)
    plan = {
        "format": name,
        "source": str(source),
        "images_from": str(images) if images else None,
        "files": {str(f): f.stat().length for f in files},
        "digests": {str(f): hashlib.sha256(f.read_bytes()).hexdigest() for f in files},
        **({"drawn": canvas.to_dict()} if canvas else {}),
        **({} if coordinates is None else {"coordinates": coordinates}),
    }
    _open_folder(folder, plan)
    finished = (folder / INDEX).exists()
    if finished and not canvas:
        return json.loads((folder / INDEX).read_text())
    pictures = _pictures(source, files, images, name == PICTURES)
    rows, pixels, broken, shards = 0, 0, 0, []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        items = _numbered(form, files)
        for number in itertools.count():
            some = list(itertools.islice(items, SHARD))
            if not some:
                break
            path = folder / f"rows-{number:05d}.array_record"
            note = shard_note(path)
            seen = _digest(form, pictures, pool, some) if canvas else ""
            if note is None:
                results = list(pool.map(lambda it: _make_row(form, pictures, canvas, coordinates, *it), some))
                good = [row for row in results if isinstance(row, StoredRow)]
                note = {
                    "rows": len(good),
                    "images": sum(len(row.images) for row in good),
                    "broken": [line for line in results if isinstance(line, str)],
                    **({"pictures": seen} if canvas else {}),
                }
                write_shard(path, (row.to_bytes() for row in good), note)
            elif note.get("pictures", seen) != seen:
                raise ConfigError(f"{folder}: pictures of {source} have changed since; give a new folder")
            rows, pixels = rows + note["rows"], pixels + note["images"]
            broken += len(note["broken"])
            shards += [path.name] if note["rows"] else []
            if progress:
                progress(int(100 * some[-1][3]), 100, f"{rows:,} rows, {broken:,} broken")
    if progress:
        progress(100, 100, f"{rows:,} rows, {broken:,} broken")
    if finished:
        return json.loads((folder / INDEX).read_text())
    _list_broken(folder, number)
    index = {**plan, "rows": rows, "images": pixels, "broken": broken, "shards": shards}
    if not rows:
        first = (folder / BROKEN).read_text().split("\n")[0] if broken else f"{source} holds no row"
        raise DataError(f"none of {broken} rows of {source} can be used; the first: {first}")
    if form.read is read_sharegpt:
        index["prompt"] = _save_prompt(folder, index)
    if canvas:
        write_json(folder / FILE, dataclasses.asdict(get_prompts(canvas.settings.prompt)))
    write_json(folder / INDEX, index)
    return index


def get_format(name: str) -> Format:
    """The format of this name; raises ConfigError where there is none."""
    known = {**FORMATS, PICTURES: OWN}
    if name not in known:
        raise ConfigError(f"no format {name!r}{did_you_mean(name, known)}")
    return known[name]


def read_pictures(
    source: str | os.PathLike, canvas: Canvas, images: str | os.PathLike | None = None
) -> Iterator[StoredRow | str]:
    """The rows that an import of `PICTURES` would write, in order; a text says what is wrong with one.

    Raises:
      DataError: there is no file of the format.
    """
    source = _absolute(source)
    files = find_files(PICTURES, source)
    pictures = _pictures(source, files, None if images is None else _absolute(images), own=True)
    for item in _numbered(OWN, files):
        yield _make_row(OWN, pictures, canvas, None, *item)


def _save_prompt(folder: Path, index: dict[str, Any]) -> dict[str, Any]:
    """Writes the conversations' prompt to their folder; returns the note on how many have it."""
    rows = StoredRows.of_shards([folder / name for name in index["shards"]])
    step = max(1, len(rows) // PROMPT_ROWS)
    prompts, note = extract_prompts((rows[n] for n in range(0, len(rows), step)), index["source"])
    if prompts:
        write_json(folder / FILE, dataclasses.asdict(prompts))
    return note


def _absolute(path: str | os.PathLike) -> epath.Path:
    """The path as another working directory finds it, too; links stay."""
    found = literal_path(path)
    return found if "://" in str(path) else found.absolute()


def find_files(name: str, source: str | os.PathLike) -> list[epath.Path]:
    """The files of a format at a source; without JAX.

    Raises:
      ConfigError: an unknown format.
      DataError: there is none.
    """
    form, place = get_format(name), _absolute(source)
    if not place.exists():
        raise DataError(f"{place}: no such file or folder{near_path(source)}")
    if not place.is_dir():
        return [place]
    for folder in form.folders:
        found = [p for pattern in form.names for p in (place / folder).glob(pattern)]
        if found := sorted(p for p in found if p.name not in _NO_ROWS):
            _check_names(found)
            return found
    wanted = ", ".join(f"{f}/{n}".removeprefix("./") for f in form.folders for n in form.names)
    raise DataError(
        f"{place}: holds no file of format {name} (looked for {wanted}); give a file of another name itself"
    )


def evaluation_files(source: str | os.PathLike) -> list[epath.Path]:
    """The file `test.jsonl`, or of another ending, of a folder of `PICTURES`: its rows are imported apart."""
    place = _absolute(source)
    return [file for end in _OWN_ENDS if place.is_dir() and (file := place / f"test.{end}").exists()]


def _check_names(files: list[epath.Path]) -> None:
    """Refuses two files of the same stem, which would give their rows the same ids."""
    by_stem: dict[str, epath.Path] = {}
    for file in files:
        if (other := by_stem.setdefault(file.stem, file)) != file:
            raise DataError(f"{other} and {file.name}: rows are named after their file; give one as SOURCE")


def _open_folder(folder: Path, plan: dict[str, Any]) -> None:
    """Notes in a new folder what is imported into it; refuses one that holds something else.

    Imports of earlier versions have noted no digests.
    """
    path = folder / "import.json"
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"{folder} is a file; give a folder to write to")
    noted = json.loads(path.read_text()) if path.exists() else None
    if noted is not None and {"images_from": None, "digests": plan["digests"], **noted} == plan:
        return
    if folder.exists() and any(p.suffix != ".draft" and p != path for p in folder.iterdir()):
        reason = "holds another import, or its source, a file of it or the folder of its images has changed"
        raise ConfigError(f"{folder} {reason if noted else 'holds other files'}; give a new folder")
    write_json(path, plan)  # in place of one that imported no row


def _pictures(source: epath.Path, files: list[epath.Path], images: epath.Path | None, own: bool) -> Pictures:
    base = source if source.is_dir() else source.parent
    given = [images] if images else []
    if own:  # a path from the folder, and no other that happens to be there
        return Pictures(given or [base], archives=given or [base], shorter=False)
    folders = [parent for file in files for parent in (file.parent, file.parent.parent)]
    return Pictures([*given, base, *folders], archives=[*given, base])


def _numbered(form: Format, files: list[epath.Path]) -> Iterator[tuple[epath.Path, int, Item, float]]:
    """Every item with its file, its number there (from 0), and the fraction of all files up to its end."""
    sizes = [file.stat().length or 1 for file in files]
    for at, file in enumerate(files):
        before = sum(sizes[:at])
        for number, item in enumerate(form.items(file)):
            yield file, number, item, (before + item.at * sizes[at]) / sum(sizes)


def _digest(form: Format, pictures: Pictures, pool: ThreadPoolExecutor, items: list) -> str:
    """A digest of the pictures that items name, which are read for it."""

    def one(item: tuple[epath.Path, int, Item, float]) -> list[int] | None:
        file, _, found, _ = item
        try:
            paths = form.read(found.value or {}, file.stem).image_paths
            return [zlib.crc32(pictures.read(path)) for path in paths]
        except DataError:
            return None

    return hashlib.sha256(json.dumps(list(pool.map(one, items))).encode()).hexdigest()


def _make_row(
    form: Format,
    pictures: Pictures,
    canvas: Canvas | None,
    coordinates: int | None,
    file: epath.Path,
    number: int,
    item: Item,
    fraction: float,
) -> StoredRow | str:
    """The row, or a line that says what is wrong with it."""
    where = f"{file}:{item.line}"
    if item.value is None:
        return f"{where}: {item.error}"
    try:
        draft = form.read(item.value, file.stem)
        images = tuple(_checked(path, pictures.read(path)) for path in draft.image_paths)
        plain = {key: value for key, value in vars(draft).items() if key not in ("image_paths", "marks")}
        meta = {**draft.meta, "image_path": list(draft.image_paths)}
        own = {"id": f"{file.stem}-{number}", "images": images, "meta": meta, "coordinates": coordinates}
        row = StoredRow(**{**plain, **own})
        return draft.marks.record(row, canvas) if draft.marks else row
    except DataError as error:
        return f"{where}: {error}"


def _checked(path: str, data: bytes) -> bytes:
    """The bytes of an image that can be decoded and has a size that the model supports."""
    try:
        resize_image(load_image(data))
    except DataError as error:
        raise DataError(f"image {path}: {error}") from None
    return data


def _list_broken(folder: Path, shards: int) -> None:
    notes = [shard_note(folder / f"rows-{number:05d}.array_record") for number in range(shards)]
    lines = [line for note in notes if note is not None for line in note["broken"]]
    (folder / BROKEN).write_text("".join(f"{' '.join(line.split())}\n" for line in lines))
