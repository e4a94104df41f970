"""The imported rows that a job lives on, by the key of `config.data` that names their folders."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from absl import logging

from vilasr_jax.config import JobConfig
from vilasr_jax.errors import DataError
from vilasr_jax.tasks import Row
from vilasr_jax.tasks.stored import DecodedRows, StoredRows, sample_texts

# The keys that name folders, and for each the key of its images' largest area.
USES = ("traces", "questions", "reflect_questions", "synthesis_questions", "benchmarks")
PIXELS = {use: f"{use.rpartition('_')[2]}_pixels" for use in USES}


class Imported:
    """The rows of every key that names some; DataError for folders that hold none."""

    def __init__(self, job: JobConfig):
        self.job = job
        self.stored = {use: StoredRows(getattr(job.data, use)) for use in USES if getattr(job.data, use)}
        self._orders: dict[tuple[int, int], np.ndarray] = {}

    def pixels(self, use: str) -> tuple[int, int]:
        """Smallest and largest area of an image."""
        image = self.job.image
        return image.min_pixels, getattr(self.job.data, PIXELS[use]) or image.max_pixels

    def decoded(self, use: str, stored: StoredRows | None = None) -> DecodedRows:
        """The rows of a key, or those given, with their images."""
        rows = self.stored[use] if stored is None else stored
        return DecodedRows(rows, *self.pixels(use), self.job.data.frames)

    def row(self, use: str, number: int) -> Row:
        """The row whose turn it is, in an order of its own each time round."""
        rows = self.decoded(use)
        turn, place = divmod(number, len(rows))
        if (len(rows), turn) not in self._orders:
            order = np.random.default_rng([self.job.seed, turn]).permutation(len(rows))
            self._orders = {(len(rows), turn): order}  # the newest is enough
        return rows[int(self._orders[len(rows), turn][place])]

    def usable_row(self, use: str, number: int, check: Callable[[Row], None]) -> Row:
        """`row`, or the next for which `check` raises no DataError; those left out are told."""
        count = len(self.stored[use])
        for turn in range(number, number + count):
            row = self.row(use, turn)
            try:
                check(row)
                return row
            except DataError as error:
                reason = error
                logging.warning("left out: %s", error)
        raise DataError(f"config.data.{use}: none of {count} rows can be asked; the last: {reason}")

    def texts(self) -> Iterator[str]:
        """Texts of the first rows, for a tiny tokenizer."""
        for rows in self.stored.values():
            yield from sample_texts(rows)
