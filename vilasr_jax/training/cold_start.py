"""Stage 1, cold start: supervised fine-tuning on expert drawing traces."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from rich.progress import Progress

from vilasr_jax.drawing.prompts import get_prompts
from vilasr_jax.drawing.sizes import Frame
from vilasr_jax.errors import ConfigError, DataError
from vilasr_jax.evaluation import figures, score_all, summarize
from vilasr_jax.processing import Encoded, check_image, encode_conversation
from vilasr_jax.tasks.sources import Interleaved, MappedSource, PerceptionSource, Selected, TraceSource
from vilasr_jax.tasks.stored import StoredRow
from vilasr_jax.training.context import Context
from vilasr_jax.training.duration import conversations_per_row, plan_steps, stage_steps
from vilasr_jax.training.sft import train_sft
from vilasr_jax.training.stage import Stage
from vilasr_jax.training.usable import usable_rows
from vilasr_jax.training.wording import warn_other_wording

PERCEPTION_EXAMPLES = 1 << 20  # more than any run looks at


def trace_source(context: Context) -> Sequence[Encoded]:
    """The job's expert traces, the families in turn."""
    section = context.job.cold_start
    each = section.traces // len(context.families)
    if section.dataset:
        from vilasr_jax.tasks.dataset import MadeRows, MadeTraces  # TFDS takes a second to load

        return _in_turn(
            MadeTraces(
                MadeRows(section.dataset, family.name, "train"),
                context.settings,
                context.tokenizer,
                each,
                section.slip_fraction,
                section.format,
            )
            for family in context.families
        )
    return _in_turn(
        TraceSource(
            family,
            spec,
            context.settings,
            context.tokenizer,
            each,
            section.slip_fraction,
            section.format,
            first_seed=context.job.seed * section.traces,
        )
        for family, spec in context.specs("train")
    )


def recorded_source(context: Context, use: str = "traces") -> Sequence[Encoded]:
    """The conversations that `config.data.<use>` names, encoded as they were recorded.

    Those that can't be trained on are left out here, counted and named (see `usable_rows`).

    Raises:
      DataError: none is left.
    """
    stored, pixels = context.imported.stored[use], context.imported.pixels(use)
    where = f"config.data.{use}"
    warn_other_wording(get_prompts(context.settings.prompt), context.job.data.folders(use))

    def encode(row: StoredRow, decode: Callable[[bytes, Frame], Any] | None = None) -> Encoded:
        if not row.messages:
            raise DataError(f"{where}: row {row.id} is a question without a recorded conversation")
        return encode_conversation(context.tokenizer, row.conversation(*pixels, decode))

    def check(row: StoredRow) -> None:
        context.check_example(encode(row, _Decodable), f"row {row.id}")

    room = dataclasses.asdict(context.packing or context.buckets.largest)
    limits = {"data": context.imported.digest(use), "pixels": pixels, **room}
    numbers = usable_rows(stored, check, name=where, folder=context.workdir, limits=limits)
    return MappedSource(Selected(stored, numbers), encode)


class _Decodable:
    """A picture that can be decoded, of which only the size is kept."""

    def __init__(self, data: bytes, size: Frame):
        check_image(data)
        self.size = size


def trace_sources(context: Context) -> tuple[list[Sequence[Encoded]], list[float]]:
    """What the cold start trains on, and each source's share of a batch."""
    share = context.job.data.traces_fraction if context.job.data.traces else 0.0
    sources, weights = ([recorded_source(context)], [share]) if share else ([], [])
    if share < 1:
        sources, weights = [*sources, trace_source(context)], [*weights, 1 - share]
    return sources, weights


def perception_source(context: Context) -> Sequence[Encoded]:
    """Questions about what is where, of the families that have some."""
    sources = [
        PerceptionSource(
            family, spec, context.settings, context.tokenizer, PERCEPTION_EXAMPLES, context.job.seed << 24
        )
        for family, spec in context.specs("perception")
        if family.perception(spec, 0, context.settings) is not None
    ]
    if not sources:
        raise ConfigError("config.cold_start.perception_steps: none of config.tasks has perception questions")
    return _in_turn(sources)


def _in_turn(sources: Iterable[Sequence[Encoded]]) -> Sequence[Encoded]:
    first, *rest = sources
    return Interleaved((first, *rest)) if rest else first


def perception_stage(context: Context) -> Stage:
    """The first phase: what pre-training gives a published model, a tiny one learns here."""
    section = context.job.cold_start
    folder = context.workdir / "cold_start" / "perception"
    return Stage(folder, section.perception_steps, section.save_every, "cold start: seeing", context.profile)


def cold_start_stage(context: Context) -> Stage:
    """The stage proper."""
    section = context.job.cold_start
    folder = context.workdir / "cold_start"
    steps = stage_steps(folder, section)
    return Stage(folder, steps, section.save_every, "cold start: drawing", context.profile)


def run_cold_start(context: Context, params: Any, progress: Progress) -> Any:
    """Trains from `params`, or goes on from what is saved; returns the parameters."""
    job, section = context.job, context.job.cold_start
    stage = cold_start_stage(context)
    if stage.done:
        return stage.load_params(context.abstract_params)
    seeing = perception_stage(context)
    if seeing.steps:
        if seeing.done:
            params = seeing.load_params(context.abstract_params)
        else:
            data = context.batches(
                [perception_source(context)], [1], seed=job.seed, batch=section.perception_batch
            )
            params = train_sft(
                context, seeing, params, data, section.perception_optimizer, progress, loss=section.loss
            )
    sources, weights = trace_sources(context)
    rate = section.batch * conversations_per_row(sources, weights, context.packing)
    what, count, rate = _describe(context, sources), len(sources[0]), rate * weights[0]
    folder = stage.directory
    stage.steps = plan_steps(folder, section, stage.title, what, count, rate, stage.begun)
    data = context.batches(
        [context.marked(source) for source in sources], weights, seed=job.seed + 1, batch=section.batch
    )
    return train_sft(
        context,
        stage,
        params,
        data,
        section.optimizer,
        progress,
        validate_every=section.validate_every,
        validate=lambda params: validate(context, params),
        soft=context.soft_drawing,
        accumulate=section.accumulate,
        loss=section.loss,
    )


def _describe(context: Context, sources: Sequence[Sequence[Encoded]]) -> str:
    """What the cold start trains on, in words; `sources` are those of `trace_sources`."""
    data, section = context.job.data, context.job.cold_start
    recorded, parts = bool(data.traces and data.traces_fraction), []
    if recorded:
        parts.append(f"{len(sources[0]):,} recorded conversations ({', '.join(data.folders('traces'))})")
    if len(sources) > recorded:
        origin = section.dataset or f"made here, of {', '.join(context.job.tasks)}"
        parts.append(f"{len(sources[-1]):,} expert traces ({origin})")
    return " and ".join(parts)


def validate(context: Context, params: Any) -> dict[str, float]:
    """Accuracy, drawings and corrections of free-running conversations about the validation rows."""
    section = context.job.eval
    rows = context.validation_rows(section.validation_rows)
    trajectories = context.generate(section.sampling, params, context.requests(rows), context.key("validate"))
    score_all(trajectories, context.reward)
    scores = summarize([figures(trajectory) for trajectory in trajectories])
    return {f"val_{name}": scores[name] for name in ("accuracy", "drawings", "corrected", "errors")}
