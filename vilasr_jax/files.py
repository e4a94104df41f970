"""Files that are either whole or not there."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordWriter
from etils import epath


def write_json(path: epath.PathLike, value: Any) -> None:
    """Writes a JSON file, local or `gs://`, in one step; NumPy scalars become numbers.

    Raises:
      OSError: it can't be written; an older file of that name is untouched.
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.parent / f"{path.name}.draft"
    draft.write_text(json.dumps(value, indent=2, ensure_ascii=False, default=float) + "\n")
    draft.replace(path)


def split_lines(text: str) -> list[str]:
    r"""The lines of a file of JSON lines: split at line feeds alone, without empty ones.

    `str.splitlines` also splits at U+2028, U+2029, U+0085 and others, which may stand inside a JSON string.

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
