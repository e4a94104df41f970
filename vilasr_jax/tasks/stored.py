"""Rows and recorded conversations in ArrayRecord files: what importers and trace synthesis write.

A record holds one row with its images as encoded files (JPEG, PNG, ...), untouched, so that the size they are
read at is the reader's to choose. A recorded conversation also carries its messages, each

    {"role": "system" | "user" | "assistant", "content": "text with <image> where an image is"}

and the images of all its messages; the row's own are those of the first user message. A folder is
`rows-00000.array_record`, `rows-00001.array_record`, ... and `index.json`, written last.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from array_record.python.array_record_data_source import ArrayRecordDataSource
from PIL import Image

from vilasr_jax.drawing.sizes import Frame
from vilasr_jax.errors import DataError, is_machine_fault
from vilasr_jax.files import write_json, write_records
from vilasr_jax.models import ModelFamily
from vilasr_jax.processing import image_size, load_image
from vilasr_jax.tasks.rescale_recordings import DEFAULT_FAMILY, IMAGE_MARK, fit_conversation, fit_question
from vilasr_jax.tasks.rows import VIDEO_TYPES, Row, Source

INDEX = "index.json"
_END = 1 << 16  # bytes of a shard's ends that its digest counts
_DIGEST = 16  # characters
_MARKS = ("coordinates", "actions")
_RARE = (*_MARKS, "seconds")  # fields of a row that are stored only where they are not the usual ones


@dataclass(frozen=True)
class StoredRow:
    """A row as stored in a file: `images` are encoded bytes, `messages` is empty where there is no trace.

    `coordinates` says how its texts count places in images: in pixels (None), or from 0 to this number.
    `actions` is the form of its recorded actions (`drawing.formats`); `seconds` are the times of a video's
    frames.
    """

    id: str
    question: str
    answer: str
    question_type: str
    options: tuple[str, ...]
    images: tuple[bytes, ...]
    data_type: str
    meta: Mapping[str, Any] = field(default_factory=dict)
    messages: tuple[Mapping[str, str], ...] = ()
    coordinates: int | None = None
    actions: str = "published"
    seconds: tuple[float, ...] = ()

    def to_bytes(self) -> bytes:
        """Length of the header (4 bytes), the header as JSON, then the images one after another."""
        usual = {f.name for f in dataclasses.fields(self) if getattr(self, f.name) == f.default}
        plain = {k: v for k, v in vars(self).items() if k != "images" and k not in usual & set(_RARE)}
        header = json.dumps({**plain, "sizes": [len(image) for image in self.images]}).encode()
        return b"".join([len(header).to_bytes(4, "little"), header, *self.images])

    @classmethod
    def from_bytes(cls, data: bytes) -> StoredRow:
        """Reads what `to_bytes` wrote."""
        at = 4 + int.from_bytes(data[:4], "little")
        plain = json.loads(data[4:at])
        images = []
        for size in plain.pop("sizes"):
            images.append(data[at : at + size])
            at += size
        plain |= {name: tuple(plain.get(name, ())) for name in ("options", "messages", "seconds")}
        return cls(images=tuple(images), **plain)

    @property
    def base_images(self) -> tuple[bytes, ...]:
        """The images that come with the question."""
        opening = next((m["content"] for m in self.messages if m["role"] == "user"), None)
        return self.images if opening is None else self.images[: opening.count(IMAGE_MARK)]

    def words(self) -> Row:
        """The row without its images, which need not be readable."""
        return Row(**self._plain(), images=())

    def _plain(self) -> dict[str, Any]:
        """The fields that a `Row` has, too."""
        return {k: v for k, v in vars(self).items() if k not in ("messages", "images", *_MARKS)}

    def row(
        self, min_pixels: int, max_pixels: int, frames: int = 0, family: ModelFamily = DEFAULT_FAMILY
    ) -> Row:
        """The row, its images decoded and resized; at most `frames` of a video's, evenly spaced (0: all).

        Coordinates that the question, its options or its answer hold change with the images, and to those
        that a model of the `family` reads.

        Raises:
          DataError: an image that can't be read, or coordinates that can't be converted.
        """
        images, plain = self.base_images, self._plain()
        if self.data_type in VIDEO_TYPES and 0 < frames < len(images):
            chosen = [i * (len(images) - 1) // max(1, frames - 1) for i in range(frames)]
            images = tuple(images[i] for i in chosen)
            plain["seconds"] = tuple(self.seconds[i] for i in chosen if self.seconds)
        with self._named():
            texts = (self.question, *self.options, self.answer)
            stored = [*map(image_size, images)]
            texts, sizes = fit_question(
                texts, stored, min_pixels, max_pixels, units=self.coordinates, family=family
            )
            plain["images"] = tuple(map(_decode, images, sizes))
        plain |= {"question": texts[0], "options": texts[1:-1], "answer": texts[-1]}
        return Row(**plain)

    def conversation(
        self,
        min_pixels: int,
        max_pixels: int,
        decode: Callable[[bytes, Frame], Any] | None = None,
        family: ModelFamily = DEFAULT_FAMILY,
    ) -> list[dict[str, Any]]:
        """The recorded messages as input of `encode_conversation`, every image resized.

        Stated sizes and coordinates change with the images, and to those that a model of the `family` reads
        (see `tasks.rescale_recordings`). `decode` makes an image of its bytes and (width, height).

        Raises:
          DataError: an image that can't be read, or words that can't be brought in line with it.
        """
        decode = decode or _decode
        with self._named():
            stored = [*map(image_size, self.images)]
            fitted, sizes = fit_conversation(
                self.messages, stored, min_pixels, max_pixels, units=self.coordinates, family=family
            )
            images = iter([*map(decode, self.images, sizes)])
        messages = []
        for message in fitted:
            content: list[dict[str, Any]] = []
            for number, text in enumerate(message["content"].split(IMAGE_MARK)):
                if number:
                    content.append({"type": "image", "image": next(images)})
                if text:
                    content.append({"type": "text", "text": text})
            messages.append({"role": message["role"], "content": content})
        return messages

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Names the row in a DataError."""
        try:
            yield
        except DataError as error:
            raise DataError(f"row {self.id}: {error}") from error


def png_bytes(image: Image.Image) -> bytes:
    """An image as a `StoredRow` holds it."""
    out = io.BytesIO()
    image.save(out, "png")
    return out.getvalue()


def _decode(image: bytes, size: Frame) -> Image.Image:
    picture = load_image(image)
    return picture if picture.size == size else picture.resize(size, Image.Resampling.BICUBIC)


class StoredRows:
    """The `StoredRow`s of one or more folders, by number.

    Raises:
      DataError: a folder is missing, unfinished or empty; on use, a row is broken.
    """

    def __init__(self, folders: Iterable[str | Path]):
        self.folders = [Path(folder) for folder in folders]
        shards = [str(shard) for folder in self.folders for shard in _shards(folder)]
        self._source = ArrayRecordDataSource(shards)

    @classmethod
    def of_shards(cls, shards: Iterable[Path]) -> StoredRows:
        """The rows of some files, finished or not."""
        rows = cls.__new__(cls)
        rows.folders, rows._source = [], ArrayRecordDataSource([str(shard) for shard in shards])
        return rows

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, number: int) -> StoredRow:
        if not 0 <= number < len(self):
            raise IndexError(f"row {number} of {len(self)}")
        try:
            return StoredRow.from_bytes(self._source[int(number)])
        except Exception as error:  # the reader and JSON raise many types on broken files
            if is_machine_fault(error):
                raise
            raise DataError(f"row number {number} can't be read ({type(error).__name__}: {error})") from error


def sample_texts(rows: Source[StoredRow], count: int = 500) -> Iterator[str]:
    """The texts of the first rows that can be read, for a tiny tokenizer."""
    for number in range(min(count, len(rows))):
        try:
            row = rows[number]
        except DataError:
            continue
        yield from (row.question, row.answer, *row.options)
        yield from (message["content"] for message in row.messages)


@dataclass(frozen=True)
class DecodedRows:
    """Stored rows as `Row`s, decoded on access; the fields are `StoredRow.row`'s arguments."""

    stored: StoredRows
    min_pixels: int
    max_pixels: int
    frames: int = 0
    family: ModelFamily = DEFAULT_FAMILY

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, number: int) -> Row:
        return self.stored[number].row(self.min_pixels, self.max_pixels, self.frames, self.family)


def read_index(folder: Path) -> dict[str, Any]:
    """A folder's `index.json`: {"format", "rows", "shards": [names], ...}; DataError when there is none."""
    try:
        index = json.loads((folder / INDEX).read_text())
        if isinstance(index["shards"], list) and isinstance(index["rows"], int):
            return index
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise DataError(f"{folder} holds no finished rows ({INDEX}); write them with `vilasr data import` first")


def folder_digest(folder: str | Path) -> str:
    """A short digest of a folder's index and its shards; the same wherever the folder is."""
    index = json.dumps(read_index(Path(folder)), sort_keys=True)
    return hashlib.sha256(f"{index}{shards_digest(folder)}".encode()).hexdigest()[:_DIGEST]


def check_unchanged(what: str, before: str | None, now: str | None, folders: Sequence[str]) -> None:
    """Raises DataError, naming the folders, when data is not that with which a stage began.

    Args:
      what: the data, for the message.
      before: digests of the folders, joined, when the stage began; None where they were not noted.
      now: those of today.
      folders: where the data is.
    """
    if before is None or before == now:
        return
    digests = {before[at : at + _DIGEST] for at in range(0, len(before), _DIGEST)}
    now = now or ""
    parts = [now[at : at + _DIGEST] for at in range(0, len(now), _DIGEST)]
    changed = [folder for folder, digest in zip(folders, parts, strict=False) if digest not in digests]
    raise DataError(
        f"{what}: the data has changed since the stage began ({', '.join(changed) or 'other folders'}); "
        "restore it, or choose another --workdir"
    )


def shards_digest(folder: str | Path) -> str:
    """The digest of a folder's shards, see `files_digest`."""
    return files_digest(Path(folder) / name for name in read_index(Path(folder))["shards"])


def files_digest(paths: Iterable[Path]) -> str:
    """A short digest of the sizes and both ends of files."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            digest.update(str(size).encode())
            for place in (0, max(0, size - _END)):
                file.seek(place)
                digest.update(file.read(_END))
    return digest.hexdigest()[:_DIGEST]


def _shards(folder: Path) -> list[Path]:
    index = read_index(folder)
    if not index["rows"]:
        raise DataError(f"{folder} holds no row; see {folder / INDEX} for what was left out")
    return [folder / name for name in index["shards"]]


def write_shard(path: Path, records: Iterable[bytes], note: Mapping[str, Any]) -> None:
    """Writes an ArrayRecord file and, last, `note` next to it as JSON, which marks the shard complete."""
    write_records(path, records)
    write_json(path.with_suffix(".json"), note)


def shard_note(path: Path) -> dict[str, Any] | None:
    """The note of a finished shard, see `write_shard`; None for one that is not finished."""
    note = path.with_suffix(".json")
    return json.loads(note.read_text()) if note.exists() else None
