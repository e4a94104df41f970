"""Commands that run a job's stages: train, sft, reflect, rl, synthesize and eval."""

from __future__ import annotations

import dataclasses
from typing import Any

from vilasr_jax.cli.flags import CONFIG, JSON, WORKDIR, require, run_to_start, save
from vilasr_jax.commands import Flag, command
from vilasr_jax.errors import ConfigError

STAGE = (CONFIG, WORKDIR, JSON, Flag("profile", "N", "traces N steps of each stage with the JAX profiler", 0))


def _train(flags: Any, stages: tuple[str, ...] | None = None, weights: str = "") -> None:
    job, workdir = run_to_start(flags, stages)
    from vilasr_jax.evaluation import print_scores, read_results
    from vilasr_jax.job import train
    from vilasr_jax.report import print_summary
    from vilasr_jax.training import interrupt

    interrupt.listen()
    summary = train(job, workdir, flags.profile, weights)
    if summary["stages"]:
        print_summary(summary)
    for stage, benchmarks in summary["benchmarks"].items():
        for name in benchmarks:
            print_scores(read_results(workdir / "eval" / stage / name))
    save(flags, summary)
    print(f"Everything is in {workdir}")


@command("train", "", *STAGE)
def run_train(words: list[str], flags: Any) -> None:
    """All stages of a config in order; finished ones are skipped.

    The workdir holds config.json, the stages' folders with checkpoints and metrics.jsonl, eval/, hf/ (the
    exported model), summary.json and report.html. Ctrl-C stops a run; the same command resumes it. A finished
    stage never runs again: choose another --workdir, or delete the stage's folder.

    Example
      vilasr train --config=configs/maze_tiny.py --workdir=runs/quickstart
    """
    _train(flags)


@command("sft", "", *STAGE)
def run_sft(words: list[str], flags: Any) -> None:
    """The first stage, cold start: SFT on expert drawing traces."""
    _train(flags, ("cold_start",))


@command("reflect", "", *STAGE)
def run_reflect(words: list[str], flags: Any) -> None:
    """The second stage: SFT on sampled conversations that corrected themselves.

    The workdir must hold a finished cold start, whose model samples the conversations; or, in a new workdir,
    the stage starts from the checkpoint config.model.init_from.
    """
    _train(flags, ("reflect",))


@command("rl", "", *STAGE)
def run_rl(words: list[str], flags: Any) -> None:
    """The third stage: GRPO on questions without traces.

    The workdir must hold a finished reflection; or, in a new workdir, RL starts from the checkpoint
    config.model.init_from (`vilasr solve --help` lists what it may be).
    """
    _train(flags, ("rl",))


@command("synthesize", "", *STAGE)
def run_synthesize(words: list[str], flags: Any) -> None:
    """Traces of a teacher: the last stage, or config.model.init_from.

    Writes the traces into the workdir, for config.data.traces of another run. The teacher may be any
    checkpoint (`vilasr solve --help` lists them), in a new workdir.
    """
    _train(flags, ("synthesize",))


@command(
    "eval",
    "",
    *(dataclasses.replace(flag, required=False) for flag in STAGE),
    Flag("answers", "A.jsonl,B.jsonl", "results files, or folders with one: scores and compares them", []),
    Flag("benchmark", "NAME", "with --answers: the benchmark, if the file does not name it", ""),
    Flag(
        "weights", "FORM", "int8: of the weights while it samples; its scores stay apart", choices=("int8",)
    ),
)
def run_eval(words: list[str], flags: Any) -> None:
    """Scores of a workdir's models on held-out questions and benchmarks, or of results files.

    The finished stages of a workdir answer in free-running conversations; eval/, summary.json and report.html
    are written there. Questions with a score are skipped. In a new workdir the checkpoint
    config.model.init_from answers (`vilasr solve --help` lists what it may be). With --answers no workdir is
    needed.
    """
    if not flags.answers:
        require("eval", flags, "config", "workdir", instead=", or --answers for scores of results files")
        _train(flags, ("eval", "report"), flags.weights or "")
        return
    if flags.weights:
        raise ConfigError("--weights: results files are answered already; leave it out with --answers")
    from vilasr_jax.evaluation import compare, print_comparison, print_scores, read_results

    runs = [read_results(path, flags.benchmark) for path in flags.answers]
    scores: dict[str, object] = {run.label: run.to_dict() for run in runs}
    for run in runs:
        print_scores(run)
    if len(runs) > 1:
        scores["comparison"] = comparison = compare(runs)
        print_comparison(comparison)
    save(flags, scores)
