"""Stage 1, cold start: supervised fine-tuning on expert drawing traces."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.progress import Progress

from vilasr_jax.config import JobConfig
from vilasr_jax.drawing.sizes import Frame
from vilasr_jax.errors import ConfigError, DataError
from vilasr_jax.evaluation import figures, score_all, summarize
from vilasr_jax.processing import Encoded, check_image, encode_conversation
from vilasr_jax.tasks.rows import Source
from vilasr_jax.tasks.sources import Interleaved, MappedSource, PerceptionSource, Selected, TraceSource
from vilasr_jax.tasks.stored import StoredRow
from vilasr_jax.training.duration import plan_steps
from vilasr_jax.training.job_model import JobModel
from vilasr_jax.training.questions import Tasks
from vilasr_jax.training.row_filter import usable_rows
from vilasr_jax.training.run import Run
from vilasr_jax.training.sft import train_sft
from vilasr_jax.training.soft_drawing import mark, open_soft_drawing
from vilasr_jax.training.wording import warn_other_wording

PERCEPTION_EXAMPLES = 1 << 20  # more than any run looks at


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
        from vilasr_jax.tasks.dataset import DatasetRows, DatasetTraces  # TFDS takes a second to load

        return _in_turn(
            DatasetTraces(DatasetRows(section.dataset, family.name, "train"), *form)
            for family in tasks.families
        )
    first = job.seed * section.traces
    return _in_turn(
        TraceSource(family, spec, *form, first_seed=first) for family, spec in tasks.specs("train")
    )


def recorded_source(run: Run, use: str = "traces") -> Source[Encoded]:
    """The conversations that `config.data.<use>` names, encoded as they were recorded.

    Those that can't be trained on are filtered out, counted and named (see `usable_rows`).

    Raises:
      DataError: none is left.
    """
    imported, batching = run.tasks.imported, run.batching
    stored, pixels = imported.stored[use], imported.pixels(use)
    where = f"config.data.{use}"
    warn_other_wording(run.model.prompts, run.job.data.folders(use))

    def encode(row: StoredRow, decode: Callable[[bytes, Frame], Any] | None = None) -> Encoded:
        if not row.messages:
            raise DataError(f"{where}: row {row.id} is a question without a recorded conversation")
        return encode_conversation(run.model.tokenizer, row.conversation(*pixels, decode))

    def check(row: StoredRow) -> None:
        batching.check_example(encode(row, _Decodable), f"row {row.id}")

    largest = dataclasses.asdict(batching.packing or batching.buckets.largest)
    limits = {"data": imported.digest(use), "pixels": pixels, **largest}
    numbers = usable_rows(stored, check, name=where, folder=run.workdir, limits=limits)
    return MappedSource(Selected(stored, numbers), encode)


class _Decodable:
    """The size of an image that can be decoded, without its pixels."""

    def __init__(self, data: bytes, size: Frame):
        check_image(data)
        self.size = size


def trace_sources(run: Run) -> tuple[list[Source[Encoded]], list[float]]:
    """What the cold start trains on, and the fraction of a batch that each source gets."""
    data = run.job.data
    fraction = data.traces_fraction if data.traces else 0.0
    sources, weights = ([recorded_source(run)], [fraction]) if fraction else ([], [])
    if fraction < 1:
        sources = [*sources, trace_source(run.job, run.tasks, run.model)]
        weights = [*weights, 1 - fraction]
    return sources, weights


def perception_source(job: JobConfig, tasks: Tasks, model: JobModel) -> Source[Encoded]:
    """Questions about what is where, of the families that have some."""
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


def run_cold_start(run: Run, params: Any, progress: Progress) -> Any:
    """Trains on expert traces, resuming from the last checkpoint; returns the parameters.

    Args:
      run: the job and its parts.
      params: to start from; the stage consumes them (see `resume_state`).
      progress: where bars are shown.
    """
    job, section, batching = run.job, run.job.cold_start, run.batching
    stage = run.stages["cold_start"]
    if stage.done:
        return stage.load_params(run.model.abstract_params)

    # ------------------------------------------------ perception: where is each thing
    perception = run.stages.perception
    if perception.steps and perception.done:
        params = perception.load_params(run.model.abstract_params)
    elif perception.steps:
        source = perception_source(job, run.tasks, run.model)
        batching.examples_per_row([source], [1])  # which checks some of them
        data = batching.batches([source], [1], seed=job.seed, batch=section.perception_batch)
        optimizer = section.perception_optimizer
        params = train_sft(run, perception, params, data, optimizer, progress, loss=section.loss)

    # ------------------------------------------------ traces, and how many steps they take
    soft = open_soft_drawing(job.soft_drawing, run.model)
    sources, weights = trace_sources(run)
    what = _describe(job, sources)
    rate = section.batch * batching.examples_per_row(sources, weights) * weights[0]
    stage.steps = plan_steps(stage.directory, section, stage.title, what, len(sources[0]), rate, stage.begun)

    # ------------------------------------------------ train
    return train_sft(
        run,
        stage,
        params,
        batching.batches(mark(sources, soft), weights, seed=job.seed + 1, batch=section.batch),
        section.optimizer,
        progress,
        validate_every=section.validate_every,
        validate=lambda params: validate(run, params),
        soft=soft,
        accumulate=section.accumulate,
        loss=section.loss,
    )


def _describe(job: JobConfig, sources: Sequence[Source[Encoded]]) -> str:
    """What the cold start trains on, in words; `sources` are those of `trace_sources`."""
    data, section = job.data, job.cold_start
    recorded, parts = bool(data.traces and data.traces_fraction), []
    if recorded:
        parts.append(f"{len(sources[0]):,} recorded conversations ({', '.join(data.folders('traces'))})")
    if len(sources) > recorded:
        origin = section.dataset or f"made here, of {', '.join(job.tasks)}"
        parts.append(f"{len(sources[-1]):,} expert traces ({origin})")
    return " and ".join(parts)


def validate(run: Run, params: Any) -> dict[str, float]:
    """Samples conversations about the validation rows; returns accuracy, drawings, corrections and errors."""
    section = run.job.eval
    requests = run.questions.requests(run.questions.validation_rows(section.validation_rows))
    key = run.rollouts.key("validate")
    trajectories = run.rollouts.generate(section.sampling, params, requests, key)
    score_all(trajectories, run.reward)
    scores = summarize([figures(trajectory) for trajectory in trajectories])
    return {f"val_{name}": scores[name] for name in ("accuracy", "drawings", "corrected", "errors")}
