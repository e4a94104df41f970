"""Files that are written completely or not at all."""

import difflib
import glob
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Self

from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath
from etils.epath.gpath import PosixGPath

from vilasr_jax.errors import ConfigError


class _LiteralPath(PosixGPath):
    def glob(self, pattern: str) -> Iterator[Self]:
        for name in glob.glob(pattern, root_dir=self):
            yield self / name


def literal_path(path: epath.PathLike) -> epath.Path:
    """A path whose `glob` reads the path itself literally: brackets in a folder's name aren't a pattern.

    Orbax, too, looks for files with `glob`. A path in a bucket stays as it is.
    """
    return epath.Path(path) if "://" in str(path) else _LiteralPath(path)


def folder_path(name: str, path: str) -> Path:
    """The folder that a flag or key names.

    Args:
      name: the flag or key, for the message.

    Raises:
      ConfigError: it is in a bucket, where a run can't append to files; as a local path it would become a
        folder called "gs:".
    """
    if "://" in path:
        raise ConfigError(
            f"{name}={path} must be a folder: mount the bucket (Cloud Storage FUSE) and give the folder of "
            "the mount, as launch/host.sh does"
        )
    return Path(path)


def near_path(path: epath.PathLike) -> str:
    """The end of a message about a path that does not exist: the existing one of the most similar names.

    Returns:
      "; did you mean runs/quickstart?", or "" where there is none, for a path in a bucket, or one that is
      there.
    """
    if "://" in str(path) or os.path.exists(path):
        return ""
    found = Path()
    for part in Path(path).parts:
        if not os.path.exists(found / part):
            try:
                names = sorted(os.listdir(found))
            except OSError:  # a file, no permission, or not there
                return ""
            part = next(iter(difflib.get_close_matches(part, names, 1, cutoff=0.75)), part)
        found /= part
    return f"; did you mean {found}?" if os.path.exists(found) else ""


def mistaken_for(head: bytes) -> str:
    """Names the format of a file that can't be read, by its first bytes; "" if unknown.

    It knows two that a failed download leaves: a git-lfs pointer and a web page.
    """
    head = head[:512].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith(b"version https://git-lfs"):
        return "it is a git-lfs pointer, not the file itself; run: git lfs pull"
    if head.startswith((b"<!doctype html", b"<html", b"<head")):
        return "it is a web page, such as an error page of a download; fetch the file again"
    return ""


def parse_json(data: bytes) -> Any:
    """Parses the bytes of a JSON file, with or without a byte order mark.

    Raises:
      ValueError: they aren't JSON; the message says what they are, if `mistaken_for` knows it.
    """
    try:
        return json.loads(data.decode("utf-8-sig"))
    except ValueError as error:
        raise ValueError(mistaken_for(data) or str(error)) from None


def write_json(path: epath.PathLike, value: Any) -> None:
    """Writes a JSON file, local or `gs://`, in one step; NumPy scalars become numbers.

    Raises:
      OSError: it can't be written; an older file of that name is untouched.
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, default=float) + "\n")


def write_text(path: epath.PathLike, text: str) -> None:
    """Writes the complete file or, where the process ends before, leaves what was there."""
    path = epath.Path(path)
    draft = path.parent / f"{path.name}.draft"
    draft.write_text(text)
    draft.replace(path)


def split_lines(text: str) -> list[str]:
    r"""The lines of a file of JSON lines: split at line feeds alone, without empty ones.

    `str.splitlines` also splits at U+2028, U+2029, U+0085 and others, which may occur inside a JSON string.

    >>> split_lines('["x\u2028y"]\n\n{}\n')
    ['["x\u2028y"]', '{}']
    """
    return [line for line in text.split("\n") if line.strip()]


def write_records(path: Path, records: Iterable[bytes]) -> None:
    """Writes an ArrayRecord file in one step, each record readable by itself.

    Raises:
      OSError: it can't be written; an older file of that name is untouched.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.parent / f"{path.name}.draft"
    writer = ArrayRecordWriter(str(draft), "group_size:1")
    for record in records:
        writer.write(record)
    writer.close()
    draft.replace(path)
