"""Reads sets that `vilasr data make` wrote: rows with their traces, and training examples from them."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.errors import DataError
from vilasr_jax.processing import Encoded, Tokenizer, encode_conversation
from vilasr_jax.tasks.dataset.builder import TRACES, VERSION
from vilasr_jax.tasks.replay import replay
from vilasr_jax.tasks.rows import TEXT_FIELDS, Row, Trace
from vilasr_jax.tasks.stored import files_digest


@dataclass(frozen=True)
class DatasetRow:
    """A stored row, and its traces by name: expert, slip (corrected), and the controls text and direct."""

    row: Row
    turns: dict[str, tuple[str, ...]]

    def trace(self, name: str) -> Trace:
        """One of the traces."""
        mistakes = tuple(self.row.meta["mistakes"]) if name == "slip" else ()
        return Trace(self.row, self.turns[name], mistakes)


class DatasetRows:
    """The rows of one split of a family, by number.

    Raises:
      DataError: the folder holds no finished set of that family, or not that split.
    """

    def __init__(self, folder: str | Path, name: str, split: str):
        import tensorflow_datasets as tfds

        home = Path(folder) / name / VERSION
        if not (home / "dataset_info.json").exists():
            raise DataError(f"{home} holds no finished set; write it with `vilasr data make`")
        builder = tfds.builder_from_directory(str(home))
        if split not in builder.info.splits:
            raise DataError(f"{home} has no split {split!r}; there are {', '.join(builder.info.splits)}")
        self._source = builder.as_data_source(split=split)

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, number: int) -> DatasetRow:
        if not 0 <= number < len(self):
            raise IndexError(f"row {number} of {len(self)}")
        return _parse(self._source[int(number)])


def dataset_digest(folder: str | Path, name: str) -> str:
    """A short digest of a family's set, see `tasks.stored.files_digest`."""
    return files_digest(sorted(path for path in (Path(folder) / name / VERSION).iterdir() if path.is_file()))


def _parse(record: dict[str, Any]) -> DatasetRow:
    def text(name: str) -> str:
        return record[name].decode()

    def texts(name: str) -> tuple[str, ...]:
        return tuple(value.decode() for value in record[name])

    fields: dict[str, Any] = {name: text(name) for name in TEXT_FIELDS}
    row = Row(
        **fields,
        options=texts("options"),
        images=tuple(Image.fromarray(pixels) for pixels in record["images"]),
        meta=json.loads(text("meta")),
    )
    return DatasetRow(row, {name: texts(f"{name}_turns") for name in TRACES})


@dataclass(frozen=True)
class DatasetTraces:
    """The first `count` stored rows as training conversations; the fields are `TraceSource`'s."""

    rows: DatasetRows
    settings: DrawingSettings
    tokenizer: Tokenizer
    count: int
    slip_fraction: float = 0.0
    format: str = "drawing"

    def __len__(self) -> int:
        return min(self.count, len(self.rows))

    def __getitem__(self, index: int) -> Encoded:
        stored = self.rows[int(index)]
        name = self.format
        if name == "drawing":
            slip = random.Random(f"slip {stored.row.id}").random() < self.slip_fraction
            name = "slip" if slip else "expert"
        settings = replace(self.settings, draw=self.format == "drawing")
        return encode_conversation(self.tokenizer, replay(stored.trace(name), settings))
