"""The imported rows of a job, by the key of `config.data` that names their folders."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from vilasr_jax.config import JobConfig
from vilasr_jax.errors import DataError
from vilasr_jax.models import ModelFamily, default_family
from vilasr_jax.tasks import Row
from vilasr_jax.tasks.stored import (
    DecodedRows,
    StoredRows,
    folder_digest,
    read_index,
    sample_texts,
    shards_digest,
)
from vilasr_jax.training.row_filter import usable

# The keys that name folders, and for each the key of its images' largest area.
USES = ("traces", "reflect_traces", "questions", "reflect_questions", "synthesis_questions", "benchmarks")
RECORDED = ("cold_start", "rrs")  # formats of recorded conversations
PIXELS = {use: f"{use.rpartition('_')[2]}_pixels" for use in USES}


class _Opened(Mapping):
    """Stored rows by key of `config.data`, for the keys that name folders; opened at first use."""

    def __init__(self, job: JobConfig):
        self._folders = {use: job.data.folders(use) for use in USES if getattr(job.data, use)}
        self._rows: dict[str, StoredRows] = {}

    def __getitem__(self, use: str) -> StoredRows:
        if use not in self._rows:
            self._rows[use] = StoredRows(self._folders[use])
        return self._rows[use]

    def __iter__(self) -> Iterator[str]:
        return iter(self._folders)

    def __len__(self) -> int:
        return len(self._folders)


class Imported:
    """The imported rows of a job by key of `config.data`; DataError, on use, for folders without rows.

    `model_family` gives the family of the model that reads them.
    """

    def __init__(self, job: JobConfig, model_family: Callable[[], ModelFamily] = default_family):
        self.job, self.model_family = job, model_family
        self.stored: Mapping[str, StoredRows] = _Opened(job)
        self._orders: dict[tuple[str, int, int], np.ndarray] = {}

    def check(self, use: str, stage: str) -> None:
        """Raises DataError when a key's rows, which `stage` needs, can't be read or are of another kind."""
        where = f"config.data.{use}, for {stage}"
        try:
            rows = self.stored[use]
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        some = (usable(rows, number, lambda row: None) for number in range(len(rows)))
        first = next((row for row in some if not isinstance(row, DataError)), None)
        if first is None:
            raise DataError(f"{where}: none of {len(rows)} rows can be read")
        for folder in map(Path, self.job.data.folders(use)):
            if not use.endswith("traces") and read_index(folder)["format"] in RECORDED:
                raise DataError(
                    f"{where}: {folder} holds recorded conversations, whose questions are wrapped in their "
                    "prompt; name imported questions (`vilasr data import rl SRC DST`)"
                )
        if use.endswith("traces") and not first.messages:
            raise DataError(f"{where}: row {first.id} is a question without a recorded conversation")

    def digests(self, use: str) -> dict[str, str]:
        """The digest of the content of each of a key's folders (see `tasks.stored.folder_digest`)."""
        return {folder: folder_digest(folder) for folder in self.job.data.folders(use)}

    @staticmethod
    def origins(folder: str) -> set[str]:
        """Import source, its files and a content digest; folders with one in common hold the same rows."""
        path = Path(folder)
        try:
            index = read_index(path)
        except DataError:
            return {str(path.resolve())}
        sources = [index.get("source") or path, *index.get("files", ())]
        return {*map(_resolved, sources), shards_digest(path)}

    def pixels(self, use: str) -> tuple[int, int]:
        """(smallest, largest) area of a key's images, in pixels."""
        image = self.job.image
        return image.min_pixels, getattr(self.job.data, PIXELS[use]) or image.max_pixels

    def units(self) -> dict[str, Any]:
        """What the texts of a read row depend on besides its limits; nothing for the default family."""
        family = self.model_family()
        usual = family == default_family()
        return {} if usual else {"side": family.images.factor, "coordinates": family.coordinates}

    def decoded(self, use: str, stored: StoredRows | None = None) -> DecodedRows:
        """The rows of a key, or `stored` ones, with decoded images."""
        rows = self.stored[use] if stored is None else stored
        return DecodedRows(rows, *self.pixels(use), self.job.data.frames, self.model_family())

    def row(self, use: str, number: int, usable: np.ndarray | None = None) -> Row:
        """A row of all rows or the `usable` ones; each pass has another random order."""
        count = len(self.stored[use]) if usable is None else len(usable)
        turn, place = divmod(number, count)
        if (use, count, turn) not in self._orders:
            seed = [self.job.seed, zlib.crc32(use.encode()), turn]
            order = np.random.default_rng(seed).permutation(count)
            self._orders = {(use, count, turn): order}  # only the current pass is needed
        stored = int(self._orders[use, count, turn][place])
        return self.stored_row(use, stored if usable is None else int(usable[stored]))

    def stored_row(self, use: str, number: int) -> Row:
        """The row of this number as stored, its `source` filled in."""
        return dataclasses.replace(self.decoded(use)[number], source=(f"data.{use}", number))

    def texts(self) -> Iterator[str]:
        """Texts of the first rows, for a tiny tokenizer."""
        for rows in self.stored.values():
            yield from sample_texts(rows)


def _resolved(path: str | Path) -> str:
    """A local path without links; one in a bucket as it is."""
    return str(path) if "://" in str(path) else str(Path(path).resolve())
