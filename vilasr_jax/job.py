"""All stages of a job in order, each skipped when its result is there and resumed when it is half done."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.progress import Progress

from vilasr_jax.checkpoint import export_hf
from vilasr_jax.checkpoint.hf_import import open_hf
from vilasr_jax.config import JobConfig, RLSection, to_dict
from vilasr_jax.drawing import DrawingSession
from vilasr_jax.errors import ConfigError
from vilasr_jax.files import write_json
from vilasr_jax.models.qwen2_5_vl import preset
from vilasr_jax.parallel import barrier, is_writer, to_host
from vilasr_jax.processing import Tokenizer
from vilasr_jax.progress import progress_bar
from vilasr_jax.report import render_report
from vilasr_jax.rewards import get_reward
from vilasr_jax.tasks import Row
from vilasr_jax.tasks.sources import FORMATS
from vilasr_jax.tasks.stored import read_index
from vilasr_jax.training.advantages import ADVANTAGES
from vilasr_jax.training.cold_start import cold_start_stage, run_cold_start
from vilasr_jax.training.context import Context
from vilasr_jax.training.groups import OVERLONG
from vilasr_jax.training.grpo import rl_stage, run_rl
from vilasr_jax.training.held_out import blank, evaluate, evaluate_benchmark
from vilasr_jax.training.keep import check_rule
from vilasr_jax.training.losses import POLICY_LOSSES
from vilasr_jax.training.optimizers import make_optimizer
from vilasr_jax.training.reflect import reflect_stage, run_reflect
from vilasr_jax.training.soft_drawing import check_soft_drawing
from vilasr_jax.training.state import check_groups
from vilasr_jax.training.synthesis import run_synthesis

TRAINED = ("cold_start", "reflect", "rl")
OTHERS = ("synthesize", "eval", "export", "report")
# What to do now, and how it is laid out over devices: not what the run is.
FREE = (
    "stages", "data.benchmarks", "eval.benchmark_stages", "engine", "mesh", "model.remat", "model.attention",
    "cold_start.accumulate", "reflect.accumulate", "rl.micro_batch",
)  # fmt: skip
_RUN = {"cold_start": run_cold_start, "reflect": run_reflect, "rl": run_rl}
_STAGE = {"cold_start": cold_start_stage, "reflect": reflect_stage, "rl": rl_stage}


def open_workdir(job: JobConfig, workdir: Path) -> None:
    """Writes the config into a new workdir; refuses one that belongs to another config.

    Keys and sections that don't say what the run is (`FREE`) may differ.
    """
    ours = json.loads(json.dumps(to_dict(job)))
    path = workdir / "config.json"
    if workdir.exists() and not workdir.is_dir():
        raise ConfigError(f"{workdir} is a file; give a folder for --workdir")
    if not path.exists():
        if is_writer():
            write_json(path, ours)
        return
    try:
        theirs = json.loads(path.read_text())
        if not isinstance(theirs, dict):
            raise ValueError("it holds no keys")
    except ValueError as error:
        raise ConfigError(f"{path} is no config of a run ({error}); choose another --workdir") from None
    before, now = dict(_flat(theirs)), dict(_flat(ours))
    changed = [
        f"{key}: {before[key]!r} there, {now[key]!r} now"
        for key in before
        if key in now and before[key] != now[key] and not f"{key}.".startswith(tuple(f"{k}." for k in FREE))
    ]
    if unlike := sorted(before.keys() ^ now.keys()):
        changed.append(f"its keys are of another version: {', '.join(unlike[:3])}")
    if changed:
        raise ConfigError(
            f"{workdir} belongs to another config ({'; '.join(changed[:3])}); choose another --workdir"
        )


def _flat(tree: dict, path: str = "") -> list[tuple[str, Any]]:
    items = []
    for key, value in tree.items():
        where = f"{path}.{key}" if path else key
        items += _flat(value, where) if isinstance(value, dict) else [(where, value)]
    return items


def check(context: Context) -> None:
    """Raises a UserError for what can't be run, before anything is written into the workdir."""
    job, shards = context.job, context.mesh.shape["data"] * context.mesh.shape["fsdp"]
    if job.model.init_from:
        open_hf(job.model.init_from)
    else:
        preset(job.model.preset, remat=job.model.remat, attention=job.model.attention)
    if job.tokenizer:
        Tokenizer.from_dir(job.tokenizer)
    DrawingSession([], "", settings=context.settings)
    check_soft_drawing(job.soft_drawing)
    for split in ("train", "rl", "val", "test"):
        context.specs(split)
    for family in context.families:
        family.ood(context.section(family))
    unknown = [name for name in job.stages if name not in (*TRAINED, *OTHERS)]
    if unknown:
        raise ConfigError(f"config.stages: no stage {unknown[0]!r}")
    if job.cold_start.format not in FORMATS:
        given = job.cold_start.format
        raise ConfigError(f"config.cold_start.format={given!r}: choose one of {', '.join(FORMATS)}")
    check_rl(job.rl)
    check_rule(job.synthesis.rule, "config.synthesis.rule")
    for key in ("eval.shard", "eval.samples", "reflect.shard", "synthesis.shard"):
        section, name = key.split(".")
        if getattr(getattr(job, section), name) < 1:
            raise ConfigError(f"config.{key} must be at least 1")
    for rows in context.imported.stored.values():
        rows[0]  # can be read
    sections = (job.cold_start.perception_optimizer, *(getattr(job, name).optimizer for name in TRAINED))
    for section in sections:
        make_optimizer(section, 1)
        check_groups(section.freeze)
    batches = {
        "cold_start.perception_batch": job.cold_start.perception_batch,
        "cold_start.batch": job.cold_start.batch,
        "reflect.batch": job.reflect.batch,
        "rl.micro_batch": job.rl.micro_batch,
    }
    for name in ("cold_start", "reflect"):
        section = getattr(job, name)
        if section.accumulate < 1 or section.batch % (shards * section.accumulate):
            raise ConfigError(
                f"config.{name}.accumulate={section.accumulate}: {name}.batch={section.batch} does not make "
                f"so many parts for {shards} data shards"
            )
    if dict(context.mesh.local_mesh.shape)["model"] != context.mesh.shape["model"]:
        raise ConfigError(
            f"config.mesh.model={context.mesh.shape['model']} reaches over several hosts; sampling needs it "
            "within one: make it no more than a host's devices"
        )
    if job.rl.prompts % context.host[1]:
        hosts = context.host[1]
        raise ConfigError(f"config.rl.prompts={job.rl.prompts} must be a multiple of the {hosts} hosts")
    for key, size in batches.items():
        if key.split(".")[0] in job.stages and (size < 1 or size % shards):
            raise ConfigError(f"config.{key}={size} must be a multiple of the mesh's {shards} data shards")
    for name in TRAINED:
        if name in job.stages and getattr(job, name).steps < 1:
            raise ConfigError(f"config.{name}.steps must be at least 1; or leave {name} out of config.stages")
    for name in ("reflect", "rl"):
        tokens, most = getattr(job, name).sampling.max_tokens, job.buckets.tokens[-1]
        if name in job.stages and tokens > most:
            raise ConfigError(
                f"config.{name}.sampling.max_tokens={tokens} is more than the largest training bucket, "
                f"config.buckets.tokens={most}"
            )
        images, most = job.drawing.max_images, job.buckets.images[-1]
        if name in job.stages and images > most:
            raise ConfigError(
                f"config.drawing.max_images={images} is more than the largest training bucket, "
                f"config.buckets.images={most}"
            )
    tokens, images = job.rl.sampling.max_tokens, job.drawing.max_images
    room = job.engine.prompt_tokens[-1], job.engine.prompt_images[-1]
    if "rl" in job.stages and job.rl.recovery and (room[0] < tokens or room[1] < images):
        raise ConfigError(
            f"config.rl.recovery={job.rl.recovery:g}: a replayed conversation is a prompt of up to {tokens} "
            f"tokens and {images} images, but config.engine.prompt_tokens ends at {room[0]} and "
            f"prompt_images at {room[1]}"
        )


def check_rl(section: RLSection) -> None:
    """Raises ConfigError for settings of the RL stage that don't exist or can't work together."""
    for key, given, known in (
        ("advantage", section.advantage, ADVANTAGES),
        ("loss", section.loss, POLICY_LOSSES),
        ("overlong", section.overlong, OVERLONG),
    ):
        if given not in known:
            raise ConfigError(f"config.rl.{key}={given!r}: choose one of {', '.join(known)}")
    for name in section.rewards:
        get_reward(name)
    if section.group < 2:
        raise ConfigError(f"config.rl.group={section.group}: samples are compared in groups of 2 at least")
    if section.updates < 1 or section.prompts * section.group < section.updates:
        raise ConfigError(
            f"config.rl.updates={section.updates}: at least 1, at most prompts x group = "
            f"{section.prompts * section.group}"
        )


def train(job: JobConfig, workdir: Path, profile: int = 0) -> dict[str, Any]:
    """Runs the job's stages in `workdir`; returns the summary that is also written there.

    With `profile`, so many steps of each stage are traced into its folder `profile`.
    """
    began = time.monotonic()
    context = Context(job, workdir, profile=profile)
    check(context)
    if not (workdir / "config.json").exists():
        _check_new(context)
    open_workdir(job, workdir)
    barrier("workdir")
    with progress_bar() as progress:
        params: Any = None
        for name in TRAINED:
            if name in job.stages:
                params = _start(context, name) if params is None else params
                params = _RUN[name](context, params, progress)
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


def load_stage(context: Context, name: str) -> Any:
    """The final parameters of a finished stage, or the fresh ones for "untrained"."""
    if name == "untrained":
        return context.initial_params()
    return _STAGE[name](context).load_params(context.abstract_params)


def last_stage(context: Context) -> str:
    """The last trained stage that is finished."""
    finished = [name for name in TRAINED if _STAGE[name](context).done]
    return finished[-1] if finished else "untrained"


def _start(context: Context, name: str) -> Any:
    """What a stage starts from: the stage before it."""
    before = TRAINED[: TRAINED.index(name)]
    if not before:
        return context.initial_params()
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


def evaluate_stages(context: Context, progress: Progress) -> None:
    """Evaluates each finished stage on held-out rows, the last one also on the controls and benchmarks."""
    job, last = context.job, last_stage(context)
    stages = ["untrained", *(name for name in TRAINED if _STAGE[name](context).done)]
    unknown = [name for name in job.eval.benchmark_stages if name not in stages]
    if job.data.benchmarks and unknown:
        where = f"config.eval.benchmark_stages={job.eval.benchmark_stages!r}"
        raise ConfigError(f"{where}: {context.workdir} holds no finished {unknown[0]!r}")
    rows = context.rows("test", job.eval.rows) if context.families else []
    for stage in stages:
        runs = _evaluations(context, stage, last, rows)
        todo = {folder: what for folder, what in runs.items() if not (folder / "scores.json").exists()}
        if not todo:
            continue
        params = load_stage(context, stage)  # once for all that is asked of it; the stage before is let go
        for folder, (what, count) in todo.items():
            _evaluate(context, progress, stage, params, folder, what, count)
        del params


def _evaluations(
    context: Context, stage: str, last: str, rows: Sequence[Row]
) -> dict[Path, tuple[Sequence[Row] | Path, int]]:
    """What a stage is asked, by folder of the results: rows or an imported benchmark's folder; how many."""
    job, folder = context.job, context.workdir / "eval"
    runs: dict[Path, tuple[Sequence[Row] | Path, int]] = {}
    if rows:
        runs[folder / stage] = rows, len(rows)
        if stage == last != "untrained":
            runs[folder / "blank_image"] = [blank(row) for row in rows], len(rows)
            runs[folder / "ood"] = context.ood_rows(len(rows)), len(rows)
    if stage in (job.eval.benchmark_stages or (last,)):
        for path in map(Path, job.data.benchmarks):
            index = read_index(path)
            runs[folder / stage / index["format"]] = path, index["rows"]
    return runs


def _evaluate(
    context: Context,
    progress: Progress,
    stage: str,
    params: Any,
    folder: Path,
    what: Sequence[Row] | Path,
    count: int,
) -> None:
    """Asks a stage the rows, or those of an imported benchmark."""
    title = folder.relative_to(context.workdir / "eval")
    benchmark = isinstance(what, Path)
    run, name = (evaluate_benchmark, stage) if benchmark else (evaluate, str(title))
    total = count * context.job.eval.samples
    bar = progress.add_task(f"eval: {title}", total=total, note="")
    run(context, params, what, folder, name, lambda n: progress.update(bar, completed=n))
    progress.update(bar, completed=total)


def export(context: Context) -> Path:
    """Writes the last stage's model as a Hugging Face folder."""
    folder = context.workdir / "hf"
    params = None if folder.exists() else to_host(load_stage(context, last_stage(context)))
    if params is not None and is_writer():
        image = context.job.image
        export_hf(
            params,
            context.model_config,
            folder,
            tokenizer=context.tokenizer,
            min_pixels=image.min_pixels,
            max_pixels=image.max_pixels,
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
    if is_writer():
        write_json(path, summary)
    return summary
