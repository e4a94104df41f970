"""All stages of a job in order, each skipped when its result is there and resumed when it is half done."""

from __future__ import annotations

import dataclasses
import itertools
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from vilasr_jax.checkpoint import export_hf
from vilasr_jax.checks import TRAINED, check
from vilasr_jax.config import JobConfig
from vilasr_jax.conversation_settings import exported_settings
from vilasr_jax.errors import ConfigError, DataError
from vilasr_jax.files import write_json
from vilasr_jax.parallel import barrier, is_writer, to_host
from vilasr_jax.progress import progress_bar
from vilasr_jax.report import render_report
from vilasr_jax.tasks import Row
from vilasr_jax.tasks.stored import folder_digest, read_index
from vilasr_jax.training.cold_start import cold_start_stage, run_cold_start
from vilasr_jax.training.context import Context
from vilasr_jax.training.grpo import rl_stage, run_rl
from vilasr_jax.training.held_out import (
    MODEL,
    begin_evaluation,
    blank,
    evaluate,
    evaluate_benchmark,
    is_evaluated,
)
from vilasr_jax.training.reflect import reflect_stage, run_reflect
from vilasr_jax.training.synthesis import run_synthesis
from vilasr_jax.training.usable import read_notes
from vilasr_jax.workdir import open_workdir, resolve_job

_RUN = {"cold_start": run_cold_start, "reflect": run_reflect, "rl": run_rl}
_STAGE = {"cold_start": cold_start_stage, "reflect": reflect_stage, "rl": rl_stage}


def train(job: JobConfig, workdir: Path, profile: int = 0) -> dict[str, Any]:
    """Runs the job's stages in `workdir`; returns the summary that is also written there.

    With `profile`, so many steps of each stage are traced into its folder `profile`.
    """
    began = time.monotonic()
    job = resolve_job(job, workdir)
    context = Context(job, workdir, profile=profile)
    check(context, unfinished(context))
    if not (workdir / "config.json").exists():
        _check_new(context)
    open_workdir(job, workdir)
    context.keep_model_config()
    barrier("workdir")
    context.look_at_data(unfinished(context))
    with progress_bar() as progress:
        params: Any = None
        for name in TRAINED:
            if name in unfinished(context):
                params = _start(context, name) if params is None else params
                params = _RUN[name](context, params, progress)
        del params
        if "synthesize" in job.stages:
            run_synthesis(context, load_stage(context, last_stage(context)), progress)
        if "eval" in job.stages:
            evaluate_stages(context, progress)
        if "export" in job.stages:
            export(context)
    summary = write_summary(context, time.monotonic() - began)
    if "report" in job.stages:
        if is_writer():
            render_report(workdir)
    return summary


def unfinished(context: Context) -> list[str]:
    """The stages of the job that have something left to do."""
    names = [name for name in context.job.stages if name not in TRAINED or not _STAGE[name](context).done]
    if "eval" in names and not set(names) & set(TRAINED):
        if all(_finished(context, one) for one in evaluations(context)):
            names.remove("eval")
    return names


def load_stage(context: Context, name: str, best: bool = False) -> Any:
    """The last parameters of a finished stage, or its best validation's; fresh ones for "untrained"."""
    if name == "untrained":
        return context.initial_params()
    return _STAGE[name](context).load_params(context.abstract_params, best)


def last_stage(context: Context) -> str:
    """The last trained stage that is finished."""
    finished = [name for name in TRAINED if _STAGE[name](context).done]
    return finished[-1] if finished else "untrained"


def _start(context: Context, name: str) -> Any:
    """What a stage starts from: the stage before it."""
    before = TRAINED[: TRAINED.index(name)]
    if not before:
        return context.abstract_params if context.has_first_weights else context.initial_params()
    if not _STAGE[before[-1]](context).done:
        raise _missing(context, name)
    return load_stage(context, before[-1])


def _check_new(context: Context) -> None:
    """Raises ConfigError when the first thing to do needs what a new workdir does not hold."""
    trained = [name for name in TRAINED if name in context.job.stages]
    if not trained and context.job.model.init_from:
        return
    if not trained:
        raise ConfigError(f"{context.workdir} holds no run yet; start it with `vilasr train`")
    if trained[0] != TRAINED[0]:
        raise _missing(context, trained[0])


def _missing(context: Context, name: str) -> ConfigError:
    before = TRAINED[TRAINED.index(name) - 1]
    return ConfigError(
        f"{name} starts from {before}, which {context.workdir} does not hold yet; "
        f"run `vilasr {before.replace('cold_start', 'sft')}` first, or `vilasr train` for all"
    )


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Questions for one model, and the folder that its answers and scores go to."""

    folder: Path
    of: dict[str, Any]  # {"stage", "step"} of the model; {"benchmark", "digest"} of imported questions
    rows: Callable[[], Sequence[Row]] | Path  # made when they are asked; or an imported benchmark's folder


def evaluations(context: Context) -> list[Evaluation]:
    """Each finished stage on held-out rows, the last one also on the controls and benchmarks.

    Raises:
      ConfigError: a stage of `config.eval.benchmark_stages` is not finished.
      DataError: a benchmark that is still to be answered can't be read.
    """
    job, last, home = context.job, last_stage(context), context.workdir / "eval"
    stages = ["untrained", *(name for name in TRAINED if _STAGE[name](context).done)]
    unknown = [name for name in job.eval.benchmark_stages if name not in stages]
    if job.data.benchmarks and unknown:
        where = f"config.eval.benchmark_stages={job.eval.benchmark_stages!r}"
        raise ConfigError(f"{where}: {context.workdir} holds no finished {unknown[0]!r}")
    found, count = [], job.eval.rows

    def test_rows() -> list[Row]:
        return context.rows("test", count)

    for stage in stages:
        of = model_of(context, stage)
        if context.families:
            found.append(Evaluation(home / stage, of, test_rows))
        if context.families and stage == last != "untrained":
            found.append(Evaluation(home / "blank_image", of, lambda: [blank(row) for row in test_rows()]))
            found.append(Evaluation(home / "ood", of, lambda: context.ood_rows(count)))
        if stage in (job.eval.benchmark_stages or (last,)):
            for path in map(Path, job.data.folders("benchmarks")):
                found.append(_benchmark(home / stage, of, path))
    if twice := [one.folder for one in found if [two.folder for two in found].count(one.folder) > 1]:
        raise ConfigError(f"config.data.benchmarks: two of them would write to {twice[0]}; ask one at a time")
    return found


def _benchmark(home: Path, of: dict[str, Any], path: Path) -> Evaluation:
    """A benchmark's evaluation; one that is finished need not be there any more."""
    if path.exists():
        mine = {**of, "benchmark": path.name, "digest": folder_digest(path)}
        return Evaluation(home / read_index(path)["format"], mine, path)
    for note in home.glob(f"*/{MODEL}"):
        mine = json.loads(note.read_text())
        if mine == {**of, "benchmark": path.name, "digest": mine.get("digest")}:
            return Evaluation(note.parent, mine, path)
    raise DataError(f"config.data.benchmarks: {path} is not there")


def evaluate_stages(context: Context, progress: Progress) -> None:
    """Answers and scores all `evaluations` that are not finished."""
    todo = [one for one in evaluations(context) if not _finished(context, one)]
    for stage, some in itertools.groupby(todo, lambda one: one.of["stage"]):
        if stage == "untrained" and not context.can_start_anew:
            source = context.job.model.init_from
            print(f"eval: no scores before training, as {source} is not there", file=sys.stderr)
            continue
        # Once for all that is asked of it; the stage before is let go.
        params = load_stage(context, stage, context.job.eval.best)
        for one in some:
            begin_evaluation(one.folder, one.of)
            _evaluate(context, progress, params, one)
        del params


def _finished(context: Context, one: Evaluation) -> bool:
    stage = one.of["stage"]
    last = 0 if stage == "untrained" else _STAGE[stage](context).step()
    return is_evaluated(one.folder, one.of, last)


def model_of(context: Context, stage: str) -> dict[str, Any]:
    """Which model of a stage is evaluated: {"stage", "step"}."""
    step = 0 if stage == "untrained" else _STAGE[stage](context).step(context.job.eval.best)
    return {"stage": stage, "step": step}


def _evaluate(context: Context, progress: Progress, params: Any, one: Evaluation) -> None:
    title = str(one.folder.relative_to(context.workdir / "eval"))
    if isinstance(one.rows, Path):
        run, what, count, name = evaluate_benchmark, one.rows, read_index(one.rows)["rows"], one.of["stage"]
    else:
        run, what, name = evaluate, one.rows(), title
        count = len(what)
    total = count * context.job.eval.samples
    bar = progress.add_task(f"eval: {title}", total=total, note="")
    run(context, params, what, one.folder, name, lambda n: progress.update(bar, completed=n))
    progress.update(bar, completed=total)


def export(context: Context) -> Path:
    """Writes the last stage's model as a Hugging Face folder; an earlier stage's there is replaced.

    Its `model.json` says which stage and step it is.
    """
    folder, last = context.workdir / "hf", last_stage(context)
    of = model_of(context, last)
    note = folder / MODEL
    if note.exists() and json.loads(note.read_text()) == of:
        return folder
    params = to_host(load_stage(context, last, context.job.eval.best))
    if is_writer():
        image = context.job.image
        export_hf(
            params,
            context.model_config,
            folder,
            tokenizer=context.tokenizer,
            min_pixels=image.min_pixels,
            max_pixels=image.max_pixels,
            overwrite=True,
            extra_files={**exported_settings(context.job, context.prompts), MODEL: of},
        )
    return folder


def write_summary(context: Context, seconds: float) -> dict[str, Any]:
    """The table printed at the end, as data; the time adds up over restarts."""
    path = context.workdir / "summary.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    order = ("untrained", *TRAINED, "more_sft", "direct", "text_coordinates", "blank_image", "ood")
    stages = {}
    for name in order:
        scores = context.workdir / "eval" / name / "scores.json"
        if scores.exists():
            stages[name] = json.loads(scores.read_text())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    benchmarks: dict[str, dict[str, Any]] = {}
    for scores in sorted((context.workdir / "eval").glob("*/*/scores.json")):
        *_, stage, benchmark, _ = scores.parts
        benchmarks.setdefault(stage, {})[benchmark] = json.loads(scores.read_text())
    summary = {
        "name": context.job.name,
        "benchmarks": benchmarks,
        "stages": stages,
        "seconds": before.get("seconds", 0.0) + seconds,
        "peak_rss_bytes": max(before.get("peak_rss_bytes", 0), peak),
        "parameters": context.parameter_count,
        "chance": next((scores["chance"] for scores in stages.values() if "chance" in scores), None),
    }
    if notes := read_notes(context.workdir):
        summary["left_out"] = notes
    if is_writer():
        write_json(path, summary)
    return summary
