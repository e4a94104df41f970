"""The packed rows that a job's conversations fill, and the host's work for each of its calls."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from vilasr_jax.config import JobConfig
from vilasr_jax.errors import ConfigError
from vilasr_jax.models import ImageSpec
from vilasr_jax.models.family import Grid
from vilasr_jax.plan.simulation.host_costs import HostCosts
from vilasr_jax.plan.simulation.lengths import Lengths
from vilasr_jax.processing import Budget, Encoded, PackedRow
from vilasr_jax.training.batching import batch_shapes, fill_rows, longest, row_budget, row_lengths


class Call(NamedTuple):
    """A batch of a training step."""

    tokens: int  # of a row
    vision_rows: int  # of a row
    patches: int  # of a vision row
    examples: tuple[tuple[int, ...], ...]  # the conversations of each host's rows

    @property
    def shape(self) -> tuple[int, int, int]:
        """Tokens, vision rows and patches of a row."""
        return self.tokens, self.vision_rows, self.patches


def example(lengths: Lengths, number: int, grid: Grid) -> Encoded:
    """A conversation as packing sees it; `replaced` carries its number."""
    images: Any = [None] * (lengths.images + lengths.drawn)
    ids, special = np.zeros(lengths.tokens, np.int32), None
    note = [{"number": number}]
    return Encoded(ids, np.zeros(0, bool), images, special, {}, [grid] * len(images), note)  # type: ignore[arg-type]


def image_grid(image_tokens: int, spec: ImageSpec) -> Grid:
    """A grid with the patches of an image."""
    return (1, spec.merge_unit, image_tokens)


def gradient_calls(
    job: JobConfig, spec: ImageSpec, found: Sequence[tuple[int, Lengths]], image_tokens: int, hosts: int
) -> list[Call]:
    """The gradient calls of one update, with `grpo.Update`'s division into rows.

    Args:
      job: the configuration.
      spec: how the model cuts images.
      found: numbers and lengths of the update's conversations.
      image_tokens: of an image.
      hosts: each has an equal part of a call's rows.
    """
    budget, count = row_budget(job, spec), job.rl.micro_batch
    grid = image_grid(image_tokens, spec)
    examples = [example(one, number, grid) for number, one in sorted(found, key=lambda pair: pair[1].tokens)]
    rows: Sequence[Any] = examples
    if budget is not None:
        rows = fill_rows(examples, budget, job.packing.token_buckets, count)
    shapes = batch_shapes(job, spec)
    calls = []
    for first in range(0, len(rows), count):
        some = rows[first : first + count]
        own = count // hosts
        parts = [some[host * own :][:own] for host in range(hosts)]
        numbers = tuple(tuple(n for row in part for n in _numbers(row)) for part in parts)
        calls.append(Call(*shapes.smallest(*longest([row_lengths(row) for row in some])), numbers))
    return calls


def _numbers(row: Encoded | PackedRow) -> list[int]:
    members = row.examples if isinstance(row, PackedRow) else [row]
    return [member.replaced[0]["number"] for member in members]


class RowFill(NamedTuple):
    """What supervised rows hold, on average."""

    conversations: float
    tokens: float  # used
    images: float
    shape: tuple[int, int, int]  # tokens, vision rows and patches that batches are trimmed to


def supervised_rows(
    job: JobConfig, spec: ImageSpec, lengths: Sequence[Lengths], image_tokens: int
) -> RowFill:
    """Packs conversations as `tasks.packed` does: the oldest, then the longest of those ahead that fit."""
    budget, grid, shapes = row_budget(job, spec), image_grid(image_tokens, spec), batch_shapes(job, spec)
    waiting = [example(one, number, grid) for number, one in enumerate(lengths)]
    rows: list[Any] = waiting
    if budget is not None:
        rows = []
        waiting = [one for one in waiting if PackedRow(budget).add(one)]  # training leaves longer ones out
        if not waiting:
            raise ConfigError(f"--conversations: none fits a row of {budget.tokens} tokens (config.packing)")
        while waiting:
            ahead = waiting[: job.packing.lookahead]
            row, used = _filled(ahead, budget)
            rows.append(row)
            waiting = [one for one in ahead if id(one) not in used] + waiting[job.packing.lookahead :]
        rows = rows[: max(1, len(rows) - job.packing.lookahead)]  # at the end few are left to choose from
    sizes = [row_lengths(row) for row in rows]
    images = [sum(lengths[n].images + lengths[n].drawn for n in _numbers(row)) for row in rows]
    return RowFill(
        conversations=float(np.mean([len(_numbers(row)) for row in rows])),
        tokens=float(np.mean([size[0] for size in sizes])),
        images=float(np.mean(images)),
        shape=shapes.smallest(*longest(sizes)),
    )


def _filled(ahead: Sequence[Encoded], budget: Budget) -> tuple[PackedRow, set[int]]:
    """A row of conversations, and which they are."""
    row = PackedRow(budget)
    order = [ahead[0], *sorted(ahead[1:], key=lambda one: -len(one.ids))]
    used = {id(one) for one in order if row.add(one)}
    return row, used


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """Device calls one after another, the batch of each built by the host while those before it run."""

    seconds: float
    idle: float  # of the devices, for batches


def pipeline(builds: Sequence[float], runs: Sequence[float]) -> Pipeline:
    """The end of calls of `runs` seconds whose batches need `builds` seconds each."""
    host = device = idle = 0.0
    for build, run in zip(builds, runs, strict=True):
        host += build
        idle += max(host - device, 0.0)
        device = max(host, device) + run
    return Pipeline(device, idle)


def build_seconds(
    call: Call,
    lengths: Sequence[Lengths],
    costs: HostCosts,
    rows: int,
    patch_dim: int,
    home: Sequence[int] | None,
) -> float:
    """Seconds in which the busiest host builds its rows of a call.

    Args:
      call: whose rows.
      lengths: of all conversations.
      costs: of the host.
      rows: of one host in the call.
      patch_dim: numbers of a patch.
      home: the host that sampled each conversation, whose images the others draw again; None: all have them.
    """
    found = []
    for host, numbers in enumerate(call.examples):
        images = sum(lengths[n].images + lengths[n].drawn for n in numbers)
        drawn = sum(lengths[n].drawn for n in numbers if home is not None and home[n] != host)
        tokens = sum(lengths[n].tokens for n in numbers)
        found.append(costs.drawing(drawn) + costs.patching(images) + costs.writing(tokens))
    return (
        max(found) + batch_bytes(call.shape, rows, patch_dim) / (1e9 * costs.copy_gbs) + costs.call_ms / 1000
    )


def batch_bytes(shape: tuple[int, int, int], rows: int, patch_dim: int) -> int:
    """Bytes of a host's rows of a batch: patches, their places, and eight numbers a token."""
    tokens, vision_rows, patches = shape
    return rows * 4 * (8 * tokens + vision_rows * patches * (patch_dim + 4))
