"""All stages of a job in order; finished ones are skipped, and an unfinished one is resumed."""

from __future__ import annotations

import dataclasses
import itertools
import json
import resource
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from rich.progress import Progress

from vilasr_jax.checkpoint import export_hf
from vilasr_jax.checks import check
from vilasr_jax.config import TRAINED, JobConfig, SamplingSection, with_weights
from vilasr_jax.conversation_settings import exported_settings
from vilasr_jax.environment import note_start
from vilasr_jax.errors import ConfigError, DataError
from vilasr_jax.files import write_json
from vilasr_jax.model_card import CARD, NOTE, model_card, read_scores
from vilasr_jax.open_checkpoint import open_checkpoint
from vilasr_jax.parallel import from_writer, gather_results, is_writer, to_host
from vilasr_jax.parallel.memory import Account, device_limit, shared_memory
from vilasr_jax.progress import COMPILING, progress_bar
from vilasr_jax.report import render_report
from vilasr_jax.report.workdir import INT8
from vilasr_jax.rollout.sampling_weights import SamplingWeights
from vilasr_jax.tasks import Row
from vilasr_jax.tasks.stored import folder_digest, read_index
from vilasr_jax.training.cold_start import run_cold_start
from vilasr_jax.training.evaluate import (
    MODEL,
    begin_evaluation,
    blank,
    evaluate,
    evaluate_benchmark,
    is_evaluated,
)
from vilasr_jax.training.grpo import run_rl
from vilasr_jax.training.memory import StageMemory
from vilasr_jax.training.reflect import run_reflect
from vilasr_jax.training.row_filter import read_notes
from vilasr_jax.training.run import Run, open_run
from vilasr_jax.training.synthesis import run_synthesis
from vilasr_jax.workdir import check_start, open_workdir, resolve_job

_TRAIN = {"cold_start": run_cold_start, "reflect": run_reflect, "rl": run_rl}


def begin(
    job: JobConfig,
    workdir: Path,
    mesh: Mesh | None = None,
    *,
    profile: int = 0,
    limit: int = 0,
    weights: str = "",
) -> tuple[Run, list[str]]:
    """Opens a run and checks all that can be before its first step; returns it and the stages that are left.

    Args:
      job: the configuration.
      workdir: the run's folder; new, or that of the same run.
      mesh: by default over all devices, as `job.mesh` says.
      profile: see `train`.
      limit: bytes of a device; 0: what it has (see `parallel.memory.device_limit`).
      weights: see `train`.

    Raises:
      UserError: the job can't run, or can't run in this workdir.
    """
    job = resolve_job(job, workdir)
    run = open_run(with_weights(job, weights), workdir, mesh, profile=profile)

    def find_todo() -> list[str]:
        check_start(job, workdir)
        names = unfinished(run)
        check(run, names)
        if not (workdir / "config.json").exists() and not job.model.init_from:
            _check_new(run)
        return names

    def prepare() -> None:
        open_workdir(job, workdir)
        note_start(workdir)
        run.model.save_config()

    todo = gather_results(find_todo)[0]
    from_writer(prepare)
    run.model.tokenizer  # noqa: B018  which all processes wait for
    run.examples.check(todo)
    run.questions.check(todo)
    shared = "" if limit else shared_memory(run.mesh, job.engine.memory_gib)
    for account in accounts(run, todo, limit):
        if is_writer():
            print(f"{account}{shared}", file=sys.stderr)
        account.check()
    return run, todo


def accounts(run: Run, stages: Sequence[str], limit: int = 0) -> list[Account]:
    """What each device will hold in the stages' moments, before anything is allocated."""
    limit = limit or device_limit(run.mesh, run.job.engine.memory_gib)
    model = run.model
    return StageMemory(run.job, model.config, model.abstract_params, run.mesh, limit).accounts(stages)


def train(job: JobConfig, workdir: Path, profile: int = 0, weights: str = "") -> dict[str, Any]:
    """Runs the job's stages in `workdir`; returns the summary that is also saved there.

    Args:
      job: the configuration.
      workdir: the run's folder; new, or that of the same run.
      profile: steps of each stage to trace into its folder `profile`.
      weights: while this command samples, one of `config.WEIGHTS`; "": as the job says. The workdir's config
        does not change.

    Raises:
      UserError: the job can't run, or can't run in this workdir.
      Stopped: after a stop request; the stage is saved.
    """
    began = time.monotonic()

    # ------------------------------------------------ what is left to do, and whether it can run
    run, todo = begin(job, workdir, profile=profile, weights=weights)
    job = run.job

    # ------------------------------------------------ the stages
    with progress_bar(shown=is_writer()) as progress:
        params: Any = None
        for name in TRAINED:
            if name in todo:
                params = run.stages.start_params(name) if params is None else params
                params = _TRAIN[name](run, params, progress)
        del params
        if "synthesize" in job.stages:
            run_synthesis(run, _load(run, run.stages.last(), job.synthesis.sampling, progress), progress)
        if "eval" in job.stages:
            evaluate_stages(run, progress)
        if "export" in job.stages:
            export(run)

    # ------------------------------------------------ the summary
    summary = write_summary(run, time.monotonic() - began)
    if "report" in job.stages and is_writer():
        render_report(workdir)
    return summary


def unfinished(run: Run) -> list[str]:
    """The stages of the job that are not finished."""
    finished = run.stages.finished()
    names = [name for name in run.job.stages if name not in finished]
    if "eval" in names and not set(names) & set(TRAINED):
        if all(_finished(run, one) for one in evaluations(run)):
            names.remove("eval")
    return names


def _check_new(run: Run) -> None:
    """Raises ConfigError when the first stage needs what a new workdir does not hold."""
    first = next(name for name in TRAINED if name in run.job.stages)
    if first != TRAINED[0]:
        raise run.stages.missing(first)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Questions for one model, and the folder for its results and scores."""

    folder: Path
    of: dict[str, Any]  # {"stage", "step"} of the model; {"benchmark", "digest"} of imported questions
    rows: Callable[[], Sequence[Row]] | Path  # generated when needed; or an imported benchmark's folder


def evaluations(run: Run) -> list[Evaluation]:
    """Each finished stage on held-out rows, the last one also on the controls and benchmarks.

    Raises:
      ConfigError: a stage of `config.eval.benchmark_stages` is not finished.
      DataError: a benchmark that is still to be answered can't be read.
    """
    job, home = run.job, run.workdir / "eval"
    stages = ["untrained", *run.stages.finished()]
    last = stages[-1]
    unknown = [name for name in job.eval.benchmark_stages if name not in stages]
    if job.data.benchmarks and unknown:
        where = f"config.eval.benchmark_stages={job.eval.benchmark_stages!r}"
        raise ConfigError(f"{where}: {run.workdir} holds no finished {unknown[0]!r}")
    found, count = [], job.eval.rows
    form = INT8 if job.engine.weights else ""  # its scores have folders of their own

    def test_rows() -> list[Row]:
        return run.tasks.rows("test", count)

    for stage in stages:
        of = model_of(run, stage)
        if job.engine.weights:
            of["weights"] = job.engine.weights
        if run.tasks.families:
            found.append(Evaluation(home / f"{stage}{form}", of, test_rows))
        if run.tasks.families and stage == last != "untrained":
            found.append(
                Evaluation(home / f"blank_image{form}", of, lambda: [blank(row) for row in test_rows()])
            )
            found.append(Evaluation(home / f"ood{form}", of, lambda: run.tasks.ood_rows(count)))
        if stage in (job.eval.benchmark_stages or (last,)):
            for path in map(Path, job.data.folders("benchmarks")):
                found.append(_benchmark(home / f"{stage}{form}", of, path))
    if twice := [one.folder for one in found if [two.folder for two in found].count(one.folder) > 1]:
        raise ConfigError(f"config.data.benchmarks: two of them would write to {twice[0]}; ask one at a time")
    return found


def _benchmark(home: Path, of: dict[str, Any], path: Path) -> Evaluation:
    """A benchmark's evaluation; of a finished one the folder may be gone."""
    if path.exists():
        noted = {**of, "benchmark": path.name, "digest": folder_digest(path)}
        return Evaluation(home / read_index(path)["format"], noted, path)
    for note in home.glob(f"*/{MODEL}"):
        noted = json.loads(note.read_text())
        if noted == {**of, "benchmark": path.name, "digest": noted.get("digest")}:
            return Evaluation(note.parent, noted, path)
    raise DataError(f"config.data.benchmarks: {path} is not there")


def evaluate_stages(run: Run, progress: Progress) -> None:
    """Runs all `evaluations` that are not finished."""
    found = evaluations(run)
    finished = from_writer(lambda: [_finished(run, one) for one in found])
    todo = [one for one, known in zip(found, finished, strict=True) if not known]
    for stage, some in itertools.groupby(todo, lambda one: one.of["stage"]):
        if stage == "untrained" and not run.model.has_initial_params:
            source = run.job.model.init_from
            why = f"the weights of {source} that the run began with are not there"
            print(f"eval: no scores before training, as {why}", file=sys.stderr)
            continue
        # Loaded once for all evaluations of the stage, and freed before the next stage.
        params = _load(run, stage, run.job.eval.sampling, progress, run.job.eval.best)
        for one in some:
            begin_evaluation(one.folder, one.of)
            _evaluate(run, progress, params, one)
        del params


def _load(
    run: Run, stage: str, sampling: SamplingSection, progress: Progress, best: bool = False
) -> SamplingWeights:
    """A stage's weights for sampling alone; the parameters as training has them are not loaded, or freed."""
    bar = progress.add_task(f"load {stage}, MiB", total=None, note="")

    def show(done: int, total: int) -> None:
        progress.update(bar, completed=done >> 20, total=total >> 20)

    try:
        return run.rollouts.engine(sampling).load(run.stages.sampled_weights(stage, best), show)
    finally:
        progress.remove_task(bar)


def _finished(run: Run, one: Evaluation) -> bool:
    stage = one.of["stage"]
    last: int | None = 0
    if stage != "untrained" and not (one.folder / MODEL).exists():  # an earlier version's
        last = run.stages[stage].step()
    return is_evaluated(one.folder, one.of, last)


def model_of(run: Run, stage: str) -> dict[str, Any]:
    """The model of a stage that is evaluated and exported: {"stage", "step"}."""
    return {"stage": stage, "step": 0 if stage == "untrained" else run.stages[stage].step(run.job.eval.best)}


def _evaluate(run: Run, progress: Progress, params: Any, one: Evaluation) -> None:
    title = str(one.folder.relative_to(run.workdir / "eval"))
    if isinstance(one.rows, Path):
        count = read_index(one.rows)["rows"]
        call = partial(evaluate_benchmark, run, params, one.rows, one.folder, one.folder.parent.name)
    else:
        rows = one.rows()
        count, call = len(rows), partial(evaluate, run, params, rows, one.folder, title)
    total = count * run.job.eval.samples
    note = "" if run.job.eval.sampling in run.rollouts.engines else COMPILING
    bar = progress.add_task(f"eval: {title}", total=total, note=note)
    call(lambda n: progress.update(bar, completed=n, note="" if n else note))
    progress.update(bar, completed=total, note="")


def export(run: Run) -> Path:
    """Exports the last stage's model as a Hugging Face folder, replacing that of an earlier stage.

    Its `model.json` says which stage and step it is, and its README.md is a model card. Returns the folder.
    """
    folder, last = run.workdir / "hf", run.stages.last()
    of = model_of(run, last)
    note = folder / NOTE
    scores = read_scores(run.workdir)
    trained = run.stages.through(last)
    card = model_card(run.job, run.model.config, of, run.model.parameter_count, scores, trained)
    if from_writer(lambda: note.exists() and json.loads(note.read_text()) == of):
        if is_writer():
            (folder / CARD).write_text(card)  # it may have been evaluated since
        return folder
    if last != "untrained" and getattr(run.job, last).optimizer.lora_base:
        if is_writer():
            opened = open_checkpoint(f"{run.workdir}:{last}@{of['step']}")
            opened.write_hf(folder, run.job.model.param_dtype, overwrite=True)
            write_json(folder / NOTE, of)
        return folder
    params = to_host(run.stages.load_params(last, run.job.eval.best))
    if is_writer():
        image = run.job.image
        export_hf(
            params,
            run.model.config,
            folder,
            tokenizer=run.model.tokenizer,
            min_pixels=image.min_pixels,
            max_pixels=image.max_pixels,
            overwrite=True,
            extra_files={**exported_settings(run.job, run.model.prompts), NOTE: of, CARD: card},
        )
    return folder


def write_summary(run: Run, seconds: float) -> dict[str, Any]:
    """Saves and returns the table printed at the end, as data; seconds add up over restarts."""
    path = run.workdir / "summary.json"
    before = json.loads(path.read_text()) if path.exists() else {}
    order = ("untrained", *TRAINED, "more_sft", "direct", "text_coordinates", "blank_image", "ood")
    stages = {}
    for name in (f"{stage}{form}" for stage in order for form in ("", INT8)):
        scores = run.workdir / "eval" / name / "scores.json"
        if scores.exists():
            stages[name] = json.loads(scores.read_text())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    benchmarks: dict[str, dict[str, Any]] = {}
    for scores in sorted((run.workdir / "eval").glob("*/*/scores.json")):
        *_, stage, benchmark, _ = scores.parts
        benchmarks.setdefault(stage, {})[benchmark] = json.loads(scores.read_text())
    summary = {
        "name": run.job.name,
        "benchmarks": benchmarks,
        "stages": stages,
        "seconds": before.get("seconds", 0.0) + seconds,
        "peak_rss_bytes": max(before.get("peak_rss_bytes", 0), peak),
        "parameters": run.model.parameter_count,
        "chance": next((scores["chance"] for scores in stages.values() if "chance" in scores), None),
    }
    if notes := read_notes(run.workdir):
        summary["left_out"] = notes
    if is_writer():
        write_json(path, summary)
    return summary
