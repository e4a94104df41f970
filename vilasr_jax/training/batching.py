"""The static shapes of a job's training batches, and the batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import cast

import numpy as np
from jax.sharding import Mesh

from vilasr_jax.config import JobConfig
from vilasr_jax.errors import DataError
from vilasr_jax.model_bundle import ModelBundle
from vilasr_jax.models import ImageSpec
from vilasr_jax.parallel import gather, host_rows, mesh_hosts
from vilasr_jax.processing import (
    Batch,
    Buckets,
    Budget,
    Encoded,
    PackedRow,
    check_fits,
    collate,
    collate_packed,
    empty_batch,
    pack,
    patch_counts,
    trim,
)
from vilasr_jax.tasks.pipeline import Batches, batches
from vilasr_jax.tasks.rows import Source
from vilasr_jax.training.row_filter import SkipUnusable, check_sample, sample_numbers, usable_everywhere

MEASURED = 64  # examples that are packed to measure how many fit in a row


def batch_shapes(job: JobConfig, spec: ImageSpec) -> Buckets:
    """The tokens, vision rows and patches that a job's training batches may have; `spec` cuts the images."""
    packing, buckets = job.packing, job.buckets
    if not packing.tokens:
        return Buckets(buckets.tokens, buckets.images, buckets.patches, spec)
    tokens = (*packing.token_buckets, packing.tokens)
    return Buckets(tokens, (*packing.vision_row_buckets, packing.vision_rows), (packing.patches,), spec)


def row_budget(job: JobConfig, spec: ImageSpec) -> Budget | None:
    """Limits of a job's packed rows; None where rows are padded."""
    packing = job.packing
    if not packing.tokens:
        return None
    return Budget(packing.tokens, packing.vision_rows, packing.patches, spec)


class Batching:
    """Buckets or packed rows of a job, and the batches in them.

    Args:
      job: the configuration.
      model: whose family cuts the images.
      mesh: over which a batch's rows are divided.
    """

    def __init__(self, job: JobConfig, model: ModelBundle, mesh: Mesh):
        self.job, self.model, self.mesh = job, model, mesh
        self._judged: list[tuple[Source[Encoded], dict[int, Encoded | DataError]]] = []

    @cached_property
    def buckets(self) -> Buckets:
        """Allowed lengths of padded batches."""
        sizes = self.job.buckets
        return Buckets(sizes.tokens, sizes.images, sizes.patches, self.model.images)

    @cached_property
    def shapes(self) -> Buckets:
        """Allowed tokens, vision rows and patches of a batch, padded or packed."""
        return batch_shapes(self.job, self.model.images)

    @cached_property
    def packing(self) -> Budget | None:
        """Limits of a packed row; None where rows are padded."""
        return row_budget(self.job, self.model.images)

    @cached_property
    def host(self) -> tuple[int, int]:
        """(number, count): this host feeds the number-th of count equal parts of a batch."""
        return host_rows(self.mesh)

    def check_example(self, example: Encoded, what: str = "an example") -> None:
        """Raises DataError, naming the example, when no training row can hold it."""
        if self.packing:
            return check_fits(example, self.packing, what)
        pictures = patch_counts(example.grids)
        for axis, length in (
            ("tokens", len(example.ids)),
            ("images", len(pictures)),
            ("patches", max(pictures, default=0)),
        ):
            try:
                self.buckets.fit(axis, length)
            except DataError as error:
                raise DataError(f"{what}: {error}") from None

    def check_source(self, source: Source[Encoded]) -> None:
        """Looks at some examples of a source, or all of a small one; every process must call this.

        Raises:
          DataError: too many can't be created or are too long.
        """
        check_sample(self._judge(source, sample_numbers(source)))

    def _judge(self, source: Source[Encoded], numbers: Iterable[int]) -> dict[int, Encoded | DataError]:
        """Examples by number, without their pixels, or why they can't be used; each is created once."""
        known = next((found for one, found in self._judged if one is source), None)
        if known is None:
            self._judged.append((source, known := {}))
        new = sorted({*numbers} - known.keys())
        judged = usable_everywhere(source, new, self.check_example)
        for number, example in zip(new, judged, strict=True):
            if not isinstance(example, DataError):
                example = dataclasses.replace(example, images=[None] * len(example.grids))  # type: ignore[list-item]
            known[number] = example
        return {number: known[number] for number in numbers}

    def examples_per_row(self, sources: Sequence[Source[Encoded]], weights: Sequence[float]) -> float:
        """Examples that a training row holds on average: 1 without packing, else measured on a sample.

        Every process must call this.

        Args:
          sources: random-access collections of examples.
          weights: each source's fraction of the examples.

        Raises:
          DataError: too many examples of a source can't be created or are too long.
        """
        found: list[Encoded] = []
        for source, weight in zip(sources, np.asarray(weights) / np.sum(weights), strict=True):
            self.check_source(source)
            if self.packing is not None:
                count = max(1, round(MEASURED * weight))
                measured = np.unique(np.linspace(0, len(source) - 1, count, dtype=int)).tolist()
                examples = self._judge(source, measured).values()
                found += [example for example in examples if not isinstance(example, DataError)]
        return len(found) / len(pack(found, self.packing)) if self.packing is not None and found else 1.0

    def batches(
        self, sources: Sequence[Source[Encoded]], weights: Sequence[float], *, seed: int, batch: int
    ) -> Batches:
        """This host's training batches, packed when the job says so; see `tasks.pipeline.batches`.

        On several hosts they are as large as they may be, and `agreed` trims them. An example that can't be
        created or is too long is replaced by the next usable one: `SkipUnusable`.
        """
        names = ["example"] if len(sources) == 1 else [f"source {i} example" for i in range(len(sources))]
        return batches(
            [SkipUnusable(one, self.check_example, name) for one, name in zip(sources, names, strict=True)],
            weights,
            seed=seed,
            batch=batch,
            buckets=self.buckets if self._alone else self.buckets.largest,
            packing=self.packing,
            lookahead=self.job.packing.lookahead,
            host=self.host,
            gather=gather,
        )

    @property
    def _alone(self) -> bool:
        return len(mesh_hosts(self.mesh)) == 1

    def agreed(self, batch: Batch, lengths: Sequence[Sequence[int]]) -> Batch:
        """This host's rows of a batch in the smallest shape that all hosts' rows fit.

        Args:
          batch: this host's rows.
          lengths: `used_lengths` of every host's.
        """
        return trim(batch, self.shapes.smallest(*longest(lengths)), self.model.images.merge_unit)

    def fill(self, examples: Sequence[Encoded], rows: int) -> Sequence[Encoded] | Sequence[PackedRow]:
        """Examples as training rows: packed when the job says so.

        Packed rows are as short as they may be without more calls of `rows` rows each.
        """
        if self.packing is None:
            return examples
        return fill_rows(examples, self.packing, self.job.packing.token_buckets, rows)

    def collate(
        self, rows: Sequence[Encoded] | Sequence[PackedRow], count: int, extras: Mapping[str, np.dtype]
    ) -> Batch:
        """This host's part of a batch of `count` rows.

        Args:
          rows: of all hosts; missing ones are padding.
          count: how many the batch has.
          extras: the dtypes of per-token arrays.
        """
        number, hosts = self.host
        own = count // hosts
        mine = rows[number * own :][:own]
        tokens, images, patches = self.shapes.smallest(*longest([row_lengths(row) for row in rows]))
        if self.packing is not None:
            budget = dataclasses.replace(self.packing, tokens=tokens, vision_rows=images)
            return collate_packed(cast(Sequence[PackedRow], mine), budget, rows=own, extras=extras)
        if mine:
            buckets = Buckets((tokens,), (images,), (patches,), self.buckets.spec)
            return collate(cast(Sequence[Encoded], mine), buckets=buckets, rows=own)
        batch = empty_batch(own, tokens, images, patches, extras, self.buckets.spec)
        return batch if images else batch._replace(vision=None)


def fill_rows(
    examples: Sequence[Encoded], budget: Budget, token_buckets: Sequence[int], rows: int
) -> list[PackedRow]:
    """Examples in packed rows, as short as they may be without more calls of `rows` rows each.

    Args:
      examples: of all hosts.
      budget: the largest row.
      token_buckets: shorter rows, ascending.
      rows: of a call.
    """
    filled = pack(examples, budget)
    least = max((len(example.ids) for example in examples), default=0)
    for tokens in token_buckets:
        if tokens >= least:
            shorter = pack(examples, dataclasses.replace(budget, tokens=tokens))
            if -(-len(shorter) // rows) <= -(-len(filled) // rows):
                return shorter
    return filled


def row_lengths(row: Encoded | PackedRow) -> tuple[int, int, int]:
    """Tokens of a training row, its vision rows, and patches of one."""
    if isinstance(row, PackedRow):
        return row.tokens, row.vision_rows, row.patches
    pictures = patch_counts(row.grids)
    return len(row.ids), len(pictures), max(pictures, default=0)


def longest(lengths: Sequence[Sequence[int]]) -> tuple[int, int, int]:
    """The largest tokens, vision rows and patches of some rows or batches."""
    tokens, images, patches = map(max, zip(*lengths, strict=True))
    return tokens, images, patches
