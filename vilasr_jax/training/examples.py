"""The training examples of supervised stages: expert traces, recorded conversations, perception questions."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from vilasr_jax.config import JobConfig
from vilasr_jax.drawing.sizes import Frame
from vilasr_jax.errors import ConfigError, DataError
from vilasr_jax.processing import Encoded, check_image, encode_conversation
from vilasr_jax.tasks.rows import Source
from vilasr_jax.tasks.sources import Interleaved, MappedSource, PerceptionSource, Selected, TraceSource
from vilasr_jax.tasks.stored import StoredRow
from vilasr_jax.training.batching import Batching
from vilasr_jax.training.job_model import JobModel
from vilasr_jax.training.questions import Tasks
from vilasr_jax.training.row_filter import usable_rows
from vilasr_jax.training.stages import Stages
from vilasr_jax.training.wording import warn_other_wording

COUNTED_FROM_0 = "Images are numbered from 0."  # in prompts of older recordings of function calls
PERCEPTION_EXAMPLES = 1 << 20  # more than any run looks at


class Examples:
    """What the supervised stages of a run train on; each collection is opened and filtered once.

    Args:
      job: the configuration.
      workdir: the run's folder, where rows that can't be used are noted.
      tasks: generate traces and perception questions.
      model: tokenizer and drawing settings.
      batching: says which examples a training row can hold.
      stages: say whether a stage that reads the rows is in progress.
    """

    def __init__(
        self, job: JobConfig, workdir: Path, tasks: Tasks, model: JobModel, batching: Batching, stages: Stages
    ):
        self.job, self.workdir, self.tasks, self.model = job, workdir, tasks, model
        self.batching, self.stages, self.imported = batching, stages, tasks.imported
        self._recorded: dict[str, Source[Encoded]] = {}

    @cached_property
    def perception(self) -> Source[Encoded]:
        """Examples of the phase before the cold start, see `perception_source`."""
        return perception_source(self.job, self.tasks, self.model)

    @cached_property
    def traces(self) -> tuple[list[Source[Encoded]], list[float]]:
        """What the cold start trains on, and the fraction of a batch that each source gets."""
        data = self.job.data
        fraction = data.traces_fraction if data.traces else 0.0
        sources, weights = ([self.recorded("traces")], [fraction]) if fraction else ([], [])
        if fraction < 1:
            sources = [*sources, trace_source(self.job, self.tasks, self.model)]
            weights = [*weights, 1 - fraction]
        return sources, weights

    def recorded(self, use: str) -> Source[Encoded]:
        """The conversations that `config.data.<use>` names, encoded as they were recorded.

        Those that can't be trained on are filtered out, counted and named (see `usable_rows`).

        Raises:
          DataError: none is left, or a stage has begun with other data.
        """
        if use not in self._recorded:
            self._recorded[use] = self._open(use)
        return self._recorded[use]

    def _open(self, use: str) -> Source[Encoded]:
        imported, batching, tokenizer = self.imported, self.batching, self.model.tokenizer
        stored, pixels, digests = imported.stored[use], imported.pixels(use), imported.digests(use)
        where, family = f"config.data.{use}", self.model.family
        warn_other_wording(self.model.prompts, [*digests])

        def encode(row: StoredRow, decode: Callable[[bytes, Frame], Any] | None = None) -> Encoded:
            if not row.messages:
                raise DataError(f"{where}: row {row.id} is a question without a recorded conversation")
            if row.actions != (actions := self.job.drawing.actions):
                raise DataError(
                    f"row {row.id}: its actions are of the form {row.actions!r}, not config.drawing.actions="
                    f"{actions!r}"
                )
            if row.actions == "tool_call" and any(COUNTED_FROM_0 in m["content"] for m in row.messages):
                raise DataError(f"row {row.id}: its words number images from 0; record it again, from 1")
            return encode_conversation(tokenizer, row.conversation(*pixels, decode, family))

        def check(row: StoredRow) -> None:
            batching.check_example(encode(row, _Decodable), f"row {row.id}")

        largest = dataclasses.asdict(batching.packing or batching.buckets.largest)
        limits = {"data": "".join(digests.values()), "pixels": pixels, **largest, **imported.units()}
        if self.job.drawing.actions != "published":
            limits["actions"] = self.job.drawing.actions
        readers = [self.stages[name] for name in ("cold_start", "reflect")[use == "reflect_traces" :]]
        numbers = usable_rows(
            stored,
            check,
            name=where,
            folder=self.workdir,
            limits=limits,
            begun=any(stage.begun and not stage.done for stage in readers),
            folders=[*digests],
        )
        return MappedSource(Selected(stored, numbers), encode)

    def check(self, stages: Sequence[str]) -> None:
        """Looks at what unfinished stages train on, before the first of them begins.

        Recorded conversations are all looked at, of others all of a small source and some of a large one.

        Raises:
          DataError: a source can't be trained on.
        """
        sources = []
        if "cold_start" in stages and self.stages.perception.steps and not self.stages.perception.done:
            sources.append(self.perception)
        if "cold_start" in stages or ("reflect" in stages and self.job.reflect.kept_fraction < 1):
            sources += self.traces[0]
        if "reflect" in stages and self.job.data.reflect_traces:
            sources.append(self.recorded("reflect_traces"))
        for source in sources:
            self.batching.check_source(source)

    def trace_digests(self) -> dict[str, str]:
        """The folders that hold what the cold start trains on, and digests of their content."""
        data, section = self.job.data, self.job.cold_start
        found: dict[str, str] = {}
        if data.traces and data.traces_fraction:
            found |= self.imported.digests("traces")
        if section.dataset and not (data.traces and data.traces_fraction == 1):
            from vilasr_jax.tasks.dataset import dataset_digest

            for family in self.tasks.families:
                found[f"{section.dataset}/{family.name}"] = dataset_digest(section.dataset, family.name)
        return found

    def described(self) -> str:
        """What the cold start trains on, in words."""
        data, section, sources = self.job.data, self.job.cold_start, self.traces[0]
        recorded, parts = bool(data.traces and data.traces_fraction), []
        if recorded:
            parts.append(f"{len(sources[0]):,} recorded conversations ({', '.join(data.folders('traces'))})")
        if len(sources) > recorded:
            origin = section.dataset or f"generated here, of {', '.join(self.job.tasks)}"
            parts.append(f"{len(sources[-1]):,} expert traces ({origin})")
        return " and ".join(parts)


def trace_source(job: JobConfig, tasks: Tasks, model: JobModel) -> Source[Encoded]:
    """The job's expert traces as training examples, the families in turn.

    Args:
      job: its `cold_start` says how many, in which format, and from which dataset, if any.
      tasks: the families that generate them.
      model: tokenizer and drawing settings.
    """
    section = job.cold_start
    each = section.traces // len(tasks.families)
    form = (model.settings, model.tokenizer, each, section.slip_fraction, section.format)
    if section.dataset:
        from vilasr_jax.tasks.dataset import DatasetRows, DatasetTraces  # TFDS needs a second to load

        stored = {
            family.name: DatasetRows(section.dataset, family.name, "train") for family in tasks.families
        }
        for name, rows in stored.items():
            _check_sides(f"{section.dataset}/{name}", rows[0].row.images, model.images.factor)
        return _in_turn(DatasetTraces(rows, *form) for rows in stored.values())
    first = job.seed * section.traces
    return _in_turn(
        TraceSource(family, spec, *form, first_seed=first) for family, spec in tasks.specs("train")
    )


def _check_sides(folder: str, images: Sequence[Any], factor: int) -> None:
    """Raises DataError for images that are not those of the model's family."""
    for image in images:
        if any(side % factor for side in image.size):
            raise DataError(
                f"config.cold_start.dataset: {folder} has images of {image.width} x {image.height} pixels, "
                f"and the model reads sides that are multiples of {factor}; write it again with `vilasr data "
                "make` and this job's model"
            )


def perception_source(job: JobConfig, tasks: Tasks, model: JobModel) -> Source[Encoded]:
    """Perception questions (what is where in an image) of the families that have them."""
    sources = [
        PerceptionSource(family, spec, model.settings, model.tokenizer, PERCEPTION_EXAMPLES, job.seed << 24)
        for family, spec in tasks.specs("perception")
        if family.perception(spec, 0, model.settings) is not None
    ]
    if not sources:
        raise ConfigError("config.cold_start.perception_steps: none of config.tasks has perception questions")
    return _in_turn(sources)


def _in_turn(sources: Iterable[Source[Encoded]]) -> Source[Encoded]:
    first, *rest = sources
    return Interleaved((first, *rest)) if rest else first


class _Decodable:
    """The size of an image that can be decoded, without its pixels."""

    def __init__(self, data: bytes, size: Frame):
        check_image(data)
        self.size = size
