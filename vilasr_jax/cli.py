"""The `vilasr` command: one thin function per command.

Exit codes: 0 done, 1 our fault, 2 the user's input, 130 stopped by
Ctrl-C, 143 stopped by SIGTERM or Ctrl-C after saving.
"""

from __future__ import annotations

import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

from absl import logging

from vilasr_jax import __version__
from vilasr_jax.commands import Flag, command, find_command, help_text, listing
from vilasr_jax.config import (
    WEIGHTS,
    JobConfig,
    config_files,
    differences,
    from_config_dict,
    key_comments,
    with_weights,
)
from vilasr_jax.errors import INTERRUPTED, STOPPED, ConfigError, Stopped, UserError
from vilasr_jax.files import folder_path, write_json

CONFIG = Flag(
    "config", "FILE", "a config file, or one of `vilasr config --list`; --config.KEY=VALUE", required=True
)
WORKDIR = Flag(
    "workdir", "DIR", "the folder of the run; everything is written there", required=True, writes="folder"
)
JSON = Flag("json", "FILE", "also writes what is printed to this file", writes="file")
STAGE = (CONFIG, WORKDIR, JSON, Flag("profile", "N", "traces N steps of each stage with the JAX profiler", 0))
_DTYPES = ("float32", "bfloat16", "float16")
_WEIGHTS = Flag(
    "weights", "FORM", "of the weights while it samples: int8, bf16 or f32", choices=tuple(WEIGHTS)
)
_MAX_TOKENS = Flag(
    "max_tokens", "N", "of a conversation, its prompt included (default: the model's settings)", 0
)
SEEDS = Flag("seeds", "0,1,2", "the seeds, with commas between them", "0,1,2")


def main(argv: list[str] | None = None) -> None:
    """Entry point of the console script."""
    argv = sys.argv if argv is None else argv
    sys.path.append(os.getcwd())  # for the user's tasks, tools and model sizes
    logging.set_verbosity(logging.WARNING)
    try:
        code = _run(argv[1:])
        sys.stdout.flush()
    except UserError as error:
        print(f"vilasr: {' '.join(str(error).split())}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("vilasr: stopped by Ctrl-C", file=sys.stderr)
        code = INTERRUPTED
    except BrokenPipeError:  # the reader, such as `head`, has left
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except Stopped as stopped:
        print(f"vilasr: {stopped}, and saved; the same command resumes it", file=sys.stderr)
        code = STOPPED
    sys.exit(code)


def _run(argv: list[str]) -> int:
    if argv == ["--version"]:
        print(f"vilasr {__version__}")
        return 0
    if text := help_text(argv):
        print(text)
        return 0
    found, rest = find_command(argv)
    if found is None:
        print(
            f"{listing()}\n\n`vilasr COMMAND --help` says more about one, `vilasr --version` which this is."
        )
        return 0 if argv else 2
    found.function(*found.parse(rest))
    return 0


def read_job(flags: Any) -> JobConfig:
    """The job of `--config`.

    Raises:
      ConfigError: no config is given, or it can't be read.
    """
    if flags.config is None:
        raise ConfigError("give --config=FILE, such as configs/maze_tiny.py")
    try:
        flags.config.keys()
    except Exception as error:  # config_flags raises a file's own error when its values are first used
        raise ConfigError(f"--config: {error}") from error
    return from_config_dict(flags.config)


def _job(flags: Any, stages: tuple[str, ...] | None = None) -> tuple[JobConfig, Path]:
    """The job and workdir of a training command."""
    job = read_job(flags)
    if not flags.workdir:
        raise ConfigError("give a folder for the run: --workdir=runs/NAME")
    if stages is not None:
        job = dataclasses.replace(job, stages=stages)
    workdir = folder_path("--workdir", flags.workdir)
    _use_devices(job)
    return job, workdir


def _use_devices(job: JobConfig) -> None:
    """Sets up the config's virtual CPU devices, and joins the other processes of a pod."""
    import jax

    from vilasr_jax.parallel import check_devices, join

    if job.mesh.cpu_devices > 1 and "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", job.mesh.cpu_devices)
    join()
    check_devices()


def _save(flags: Any, value: object) -> None:
    if flags.json:
        write_json(flags.json, value)


def _train(flags: Any, stages: tuple[str, ...] | None = None, weights: str = "") -> None:
    from vilasr_jax.evaluation import print_scores, read_results
    from vilasr_jax.job import train
    from vilasr_jax.report import print_summary
    from vilasr_jax.training import interrupt

    job, workdir = _job(flags, stages)
    job = with_weights(job, weights)
    interrupt.listen()
    summary = train(job, workdir, flags.profile)
    if summary["stages"]:
        print_summary(summary)
    for stage, benchmarks in summary["benchmarks"].items():
        for name in benchmarks:
            print_scores(read_results(workdir / "eval" / stage / name))
    _save(flags, summary)
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
    from vilasr_jax.evaluation import compare, print_comparison, print_scores, read_results

    if not flags.answers:
        _train(flags, ("eval", "report"), flags.weights or "")
        return
    if flags.weights:
        raise ConfigError("--weights: results files are answered already; leave it out with --answers")
    runs = [read_results(path, flags.benchmark) for path in flags.answers]
    scores: dict[str, object] = {run.label: run.to_dict() for run in runs}
    for run in runs:
        print_scores(run)
    if len(runs) > 1:
        scores["comparison"] = comparison = compare(runs)
        print_comparison(comparison)
    _save(flags, scores)


@command(
    "solve",
    "IMAGE...",
    Flag("question", "TEXT", "the question", required=True, short="Q"),
    Flag("checkpoint", "WHERE", "any checkpoint, see below", required=True),
    Flag("options", "A,B,C,D", "the choices, with commas between them, if there are any", []),
    Flag("out", "DIR", "a folder for the drawn images", "solved", writes="folder"),
    Flag("video", "", "the images are frames of one video, in order", False),
    _WEIGHTS,
    _MAX_TOKENS,
)
def run_solve(words: list[str], flags: Any) -> None:
    """One question about images, answered turn by turn.

    Prints each turn while it is written, and saves each drawn image. A checkpoint is
      runs/x            a workdir: its last finished stage
      runs/x:rl         a stage of it: cold_start, reflect or rl
      runs/x:rl@120     a saved step of a stage
      DIR               a Hugging Face folder, or an Orbax folder of `vilasr convert from-hf`
      hf://ORG/NAME     a model of the Hugging Face hub, downloaded once (the extra [hub])
    each local or gs://.

    Example
      vilasr solve maze.png --question "Where is the end?" --options=A,B,C,D --checkpoint runs/quickstart
    """
    from vilasr_jax.parallel import check_devices
    from vilasr_jax.solve import solve

    check_devices()
    out = folder_path("--out", flags.out)
    solve(
        words,
        flags.question,
        flags.checkpoint,
        out,
        flags.options,
        weights=flags.weights or "",
        max_tokens=_max_tokens(flags),
        video=flags.video,
    )


@command(
    "serve",
    "CHECKPOINT",
    Flag("port", "8000", "the port to listen at; 0: any free one", 8000),
    Flag("host", "127.0.0.1", "the address to listen at; beyond this machine it needs a token", "127.0.0.1"),
    Flag("token", "SECRET", "what clients send as their API key (default: VILASR_TOKEN)"),
    Flag("allow-host", "A,B", "more host names that it answers to, such as host.docker.internal", []),
    Flag("cors", "A,B", "origins whose web pages may call the API, such as https://chat.example; *: any", []),
    Flag("images", "4", "images of a question, at most, such as 16 frames of a video", 4),
    Flag(
        "history",
        "HOW",
        "earlier turns of a chat: refuse, fold (into the question) or ignore",
        "refuse",
        choices=("refuse", "fold", "ignore"),
    ),
    Flag("slots", "8", "conversations at once; three times as many may wait, more get a 429", 8),
    _WEIGHTS,
    _MAX_TOKENS,
)
def run_serve(words: list[str], flags: Any) -> None:
    """A web page for questions to a model, and an OpenAI-compatible API.

    The page is at http://HOST:PORT, the API (chat completions with images, streaming) at http://HOST:PORT/v1.
    CHECKPOINT is a workdir (its last finished stage), or any other checkpoint (`vilasr solve --help` lists
    them). Ctrl-C ends it.
    It answers to the names of this machine; with a --host beyond it to any name, or to those of --allow-host.

    Example
      vilasr serve runs/quickstart
      curl http://127.0.0.1:8000/v1/chat/completions -H "Content-Type: application/json" -d @question.json
    """
    from vilasr_jax.parallel import check_devices
    from vilasr_jax.serve import Limits, serve

    _at_least_1(flags, "slots")
    _at_least_1(flags, "images")
    token = os.environ.get("VILASR_TOKEN", "") if flags.token is None else flags.token
    check_devices()
    limits = Limits(
        slots=flags.slots,
        waiting=3 * flags.slots,
        max_tokens=_max_tokens(flags),
        images=flags.images,
        body_bytes=max(1, flags.images // 4) * Limits.body_bytes,
        history=flags.history,
    )
    serve(
        words[0],
        host=flags.host,
        port=flags.port,
        token=token,
        limits=limits,
        allow_hosts=flags["allow-host"].value,
        cors=flags.cors,
        weights=flags.weights or "",
    )


@command("data make", "", CONFIG, WORKDIR, JSON)
def run_data_make(words: list[str], flags: Any) -> None:
    """Rows of config.tasks as TFDS folders, in parallel.

    config.make says how many rows. The same command resumes a stopped run.
    """
    from vilasr_jax.progress import show_progress
    from vilasr_jax.tasks.dataset import make_data

    job = read_job(flags)
    folder = folder_path("--workdir", flags.workdir)
    with show_progress("rows") as show:
        report = make_data(job, folder, show, _model_family(job, folder))
    for name, folder in report.items():
        rows = ", ".join(f"{split} {count:,}" for split, count in folder["rows"].items())
        print(f"{name}: {rows}; {folder['bytes'] / 2**20:,.1f} MiB in {folder['folder']}")
    _save(flags, report)


def _model_family(job: JobConfig, folder: Path) -> Any:
    """The family of the job's model; JAX is loaded only to read it from weights."""
    from vilasr_jax.models import family_of, preset

    if not job.model.init_from:
        return family_of(preset(job.model.preset))
    from vilasr_jax.open_checkpoint import run_family

    return run_family(job, folder)


@command(
    "data show",
    "[DIR]",
    CONFIG,
    Flag("out", "PAGE.html", "the page", "rows.html", writes="file"),
    Flag("count", "8", "rows of each task", 8),
)
def run_data_show(words: list[str], flags: Any) -> None:
    """A page of rows with images and traces, of a config or a folder.

    DIR is a folder of `vilasr data make`.
    """
    from vilasr_jax.tasks.show import show_data

    out = folder_path("--out", flags.out)
    _at_least_1(flags, "count")
    if out.is_dir():
        raise ConfigError(f"--out={out} is a folder; give a name for the page")
    job = read_job(flags)
    folder = folder_path("DIR", words[0]) if words else None
    shown = show_data(job, folder, flags.count, out, _model_family(job, out.parent))
    print(f"Wrote {out}: {shown} rows")


IMAGES = Flag("images", "DIR", "where relative image paths start, if not at SRC")


@command(
    "data check",
    "SRC",
    CONFIG,
    IMAGES,
    Flag("out", "PAGE.html", "the page", "check.html", writes="file"),
    Flag("count", "24", "rows on the page", 24),
    JSON,
)
def run_data_check(words: list[str], flags: Any) -> None:
    """What a model will see of your own pictures, and which rows are refused.

    SRC is a folder with train.jsonl, train.json or train.csv, or such a file of any name
    (docs/your_own_pictures.md). The page shows pictures with their targets
    as they will be drawn.

    Example
      vilasr data check photos --config=configs/pictures_tiny.py
    """
    from vilasr_jax.tasks.check_pictures import check_pictures, print_check

    _at_least_1(flags, "count")
    out = folder_path("--out", flags.out)
    found = check_pictures(words[0], _canvas(flags, out.parent), out, flags.count, flags.images)
    print_check(found)
    print(f"Wrote {out}")
    _save(flags, found)


def _canvas(flags: Any, folder: Path) -> Any:
    """How the pictures of `folder` are resized and drawn on, for the model of the config."""
    from vilasr_jax.conversation_settings import drawing_settings
    from vilasr_jax.open_checkpoint import run_family
    from vilasr_jax.tasks.importers import Canvas
    from vilasr_jax.training.wording import job_prompts

    job = read_job(flags)
    family = run_family(job, folder)
    settings = drawing_settings(job, "vqa", job_prompts(job, folder), family)
    return Canvas(settings, job.image.min_pixels, job.data.traces_pixels or job.image.max_pixels, family)


@command(
    "data import",
    "FORMAT SRC DST",
    IMAGES,
    dataclasses.replace(
        CONFIG, help="the config of the model that is trained, for `pictures`", required=False
    ),
    Flag("coordinates", "N", "coordinates run from 0 to N over an image (1000); 0: they are pixels", 0),
    JSON,
)
def run_data_import(words: list[str], flags: Any) -> None:
    """Published data, or your own pictures, to rows for training and evaluation.

    Rows that can't be used are left out, and listed with file and line in DST.

    FORMAT  pictures (your own: docs/your_own_pictures.md), cold_start, rrs, rl, maze,
            SpatialEval_spatialreal, vsi_bench, spar_bench or mmsi_bench
    SRC     a folder, a zip file or a part of one, or gs://BUCKET/...
    """
    from vilasr_jax.drawing.prompts import FILE
    from vilasr_jax.files import split_lines
    from vilasr_jax.progress import show_progress
    from vilasr_jax.tasks.importers import BROKEN, import_data

    name, source, target = words
    if flags.coordinates < 0:
        raise ConfigError(f"--coordinates={flags.coordinates} must be 1000, say, or 0 for pixels")
    canvas = None if flags.config is None else _canvas(flags, Path(target))
    with show_progress(f"import {name}, percent") as show:
        index = import_data(name, source, target, flags.images, show, canvas, flags.coordinates or None)
    print(f"{index['rows']:,} rows with {index['images']:,} images are in {target}")
    if index["broken"]:
        listed = split_lines((Path(target) / BROKEN).read_text())
        print("\n".join(listed[:10]), *(["..."] if len(listed) > 10 else []), sep="\n")
        print(f"{index['broken']:,} rows were left out; {Path(target) / BROKEN} lists them")
    if prompt := index.get("prompt"):
        saved = (Path(target) / FILE).exists()
        where = f"is saved in {Path(target) / FILE}" if saved else "is not saved: too few agree"
        print(f"prompt: {prompt['agree']:,} of {prompt['rows']:,} conversations have the same, which {where}")
    _save(flags, index)


@command(
    "convert from-hf",
    "SRC DST",
    Flag("param_dtype", "DTYPE", "of the weights; by default as stored", choices=_DTYPES),
)
def run_convert_from_hf(words: list[str], flags: Any) -> None:
    """A Hugging Face folder to an Orbax checkpoint, a tensor at a time.

    SRC is a folder, local or gs://, or hf://ORG/NAME. Memory stays far below the size of the model. Where
    tensors are of mixed dtypes, config.json decides.

    Example
      vilasr convert from-hf hf://ORG/NAME checkpoints/7b
    """
    from vilasr_jax.checkpoint import convert_from_hf
    from vilasr_jax.open_checkpoint import hf_folder
    from vilasr_jax.parallel import check_devices
    from vilasr_jax.progress import show_progress

    check_devices()
    with show_progress("weights") as show:
        convert_from_hf(hf_folder(words[0]), words[1], param_dtype=flags.param_dtype, report=show)
    print(f"Wrote {words[1]}")


@command(
    "convert to-hf",
    "SRC DST",
    Flag(
        "dtype",
        "DTYPE",
        "of the weights; by default as stored, but bfloat16 for a published size",
        choices=_DTYPES,
    ),
)
def run_convert_to_hf(words: list[str], flags: Any) -> None:
    """Any checkpoint to a Hugging Face folder, a tensor at a time.

    SRC is a workdir, a stage or a step of one, or any other checkpoint (`vilasr solve --help` lists them).

    Example
      vilasr convert to-hf runs/x:rl@120 exported --dtype=bfloat16
    """
    from vilasr_jax.open_checkpoint import convert_to_hf
    from vilasr_jax.parallel import check_devices
    from vilasr_jax.progress import show_progress

    check_devices()
    with show_progress("weights") as show:
        convert_to_hf(words[0], words[1], flags.dtype, show)
    print(f"Wrote {words[1]}")


@command("convert to-peft", "SRC DST")
def run_convert_to_peft(words: list[str], flags: Any) -> None:
    """A stage that LoRA trained to an adapter in PEFT's format.

    SRC is a workdir, a stage or a step of one. DST gets adapter_config.json and adapter_model.safetensors.
    The adapter belongs to the weights that the stage began with.

    Example
      vilasr convert to-peft runs/lora:cold_start adapter
    """
    from vilasr_jax.open_checkpoint import convert_to_peft
    from vilasr_jax.parallel import check_devices

    check_devices()
    convert_to_peft(words[0], words[1])
    print(f"Wrote {words[1]}")


@command(
    "push",
    "DIR ORG/NAME",
    Flag("private", "", "a new model is visible to you alone", False),
    Flag("message", "TEXT", "of the commit", ""),
)
def run_push(words: list[str], flags: Any) -> None:
    """An exported model to the Hugging Face hub.

    DIR is a Hugging Face folder (`vilasr convert to-hf`), or a workdir whose export is uploaded, unless a
    stage has finished since. What an earlier upload left there is replaced. Its README.md is the model card:
    read it first. Needs the extra [hub], and a login: `hf auth login`.

    Example
      vilasr push runs/quickstart me/maze-drawer --private
    """
    from vilasr_jax.checkpoint.hub import upload
    from vilasr_jax.open_checkpoint import exported_folder

    folder, model = exported_folder(words[0])
    address = upload(folder, words[1], private=flags.private, message=flags.message)
    print(f"Uploaded {folder}: {model}")
    print(f"Anywhere: vilasr solve picture.png --checkpoint {address} --question ...")


@command(
    "plan",
    "",
    CONFIG,
    Flag("topology", "v5e:8x8", "the slice, such as v5e:8x8, v5e-64 or v5p:4x4x4", required=True),
    Flag("steps", "A,B", "only these steps", []),
    Flag("sweep", "", "tries meshes, remat policies and batch sizes, and recommends one", False),
    Flag("max_minutes", "60", "of all compilations", 60.0),
    Flag("chip_hour", "PRICE", "the price of a chip per hour, for the cost of 1,000 samples", 0.0),
    Flag("layers", "N", "cuts the language model to N layers, for a quick look", 0),
    Flag("save_hlo", "DIR", "a folder for each step's optimised HLO text", ""),
    JSON,
)
def run_plan(words: list[str], flags: Any) -> None:
    """A config's steps compiled for a TPU slice, without one: memory, traffic, time.

    Runs on any machine that has the package libtpu.
    """
    from vilasr_jax.plan import plan, print_plan, print_sweep, refuse, sweep

    job, limits = read_job(flags), {"minutes": flags.max_minutes, "layers": flags.layers}
    if flags.sweep:
        result = sweep(job, flags.topology, **limits)
        print_sweep(result)
        _save(flags, result)
        return
    save = str(folder_path("--save_hlo", flags.save_hlo)) if flags.save_hlo else ""
    result = plan(job, flags.topology, flags.steps, save=save, **limits)
    print_plan(result, flags.chip_hour)
    _save(flags, result)
    refuse(result)


def _all_keys() -> str:
    lines = [f"  {key} = {value!r}{note and f'  # {note}'}" for key, value, note in key_comments()]
    return "\n".join(["Keys, with their defaults, for --config.KEY=VALUE:", *lines])


@command(
    "config",
    "",
    dataclasses.replace(CONFIG, required=False),
    Flag("list", "", "lists the configs that come with vilasr instead", False),
    JSON,
    appendix=_all_keys,
)
def run_config(words: list[str], flags: Any) -> None:
    """Every value that would run, and the defaults that differ.

    Prints one `KEY = VALUE` per line, with the default where it differs.

    Example
      vilasr config --config=configs/vilasr.py:7b,v5e-64
    """
    if flags.list:
        for name, path in config_files().items():
            summary = path.read_text().removeprefix('"""').splitlines()[0]
            print(f"{name:16} {summary}")
        return
    found = differences(read_job(flags))
    for key, (value, default) in found.items():
        note = "" if value == default else f"  # default: {default!r}"
        print(f"{key} = {value!r}{note}")
    _save(flags, {key: {"value": value, "default": default} for key, (value, default) in found.items()})


@command(
    "report",
    "[WORKDIR]",
    dataclasses.replace(WORKDIR, required=False),
    Flag("compare", "DIR", "another run's workdir, whose curves and scores are shown, too", ""),
)
def run_report(words: list[str], flags: Any) -> None:
    """The HTML page of a run.

    It is WORKDIR/report.html, a file that loads nothing, of the stages that have run so far.

    Example
      vilasr report runs/second --compare=runs/first
    """
    from vilasr_jax.report import render_report

    workdir = words[0] if words else flags.workdir
    if not workdir or not folder_path("WORKDIR", workdir).is_dir():
        raise ConfigError(f"vilasr report WORKDIR: {workdir!r} isn't a folder of a run")
    if flags.compare and not folder_path("--compare", flags.compare).is_dir():
        raise ConfigError(f"--compare={flags.compare} isn't a folder of a run")
    print(f"Wrote {render_report(Path(workdir), flags.compare or None)}")


@command("bench learn", "", CONFIG, WORKDIR, SEEDS, JSON)
def run_bench_learn(words: list[str], flags: Any) -> None:
    """Stages and controls of a config, seed by seed."""
    from vilasr_jax.bench.learn import bench_learn

    job, workdir = _job(flags)
    _save(flags, bench_learn(job, workdir, _seeds(flags)))


@command("bench soft", "", CONFIG, WORKDIR, SEEDS, JSON)
def run_bench_soft(words: list[str], flags: Any) -> None:
    """A cold start with and without the soft term."""
    from vilasr_jax.bench.soft import bench_soft

    job, workdir = _job(flags)
    _save(flags, bench_soft(job, workdir, _seeds(flags)))


def _at_least_1(flags: Any, name: str) -> None:
    if flags[name].value < 1:
        raise ConfigError(f"--{name}={flags[name].value} must be at least 1")


def _max_tokens(flags: Any) -> int:
    if flags.max_tokens < 0:
        raise ConfigError(f"--max_tokens={flags.max_tokens} must be at least 1")
    return flags.max_tokens


def _seeds(flags: Any) -> list[int]:
    try:
        return [int(seed) for seed in flags.seeds.split(",")]
    except ValueError:
        raise ConfigError(f"--seeds={flags.seeds}: give integers with commas between them") from None


@command("bench input", "", CONFIG, JSON)
def run_bench_input(words: list[str], flags: Any) -> None:
    """Rows generated per second, against those that training needs."""
    from vilasr_jax.bench.input import bench_input

    job = read_job(flags)
    _use_devices(job)
    _save(flags, bench_input(job))


@command(
    "bench rollout", "", Flag("scale", "", "cost against turns, slots and group size instead", False), JSON
)
def run_bench_rollout(words: list[str], flags: Any) -> None:
    """Drawing conversations: ours, with a new prefill per turn, transformers."""
    import jax

    from vilasr_jax.parallel import check_devices

    if "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    check_devices()
    from vilasr_jax.bench.rollout import bench_rollout, bench_scale

    _save(flags, bench_scale() if flags.scale else bench_rollout())


@command("bench render", "", JSON)
def run_bench_render(words: list[str], flags: Any) -> None:
    """Drawings per second."""
    from vilasr_jax.bench.render import bench_render

    _save(flags, bench_render())


@command("bench sft", "", JSON)
def run_bench_sft(words: list[str], flags: Any) -> None:
    """Supervised steps against transformers, same weights and data."""
    from vilasr_jax.bench.sft import bench_sft
    from vilasr_jax.parallel import check_devices

    check_devices()
    _save(flags, bench_sft())


@command(
    "bench convert",
    "",
    Flag("size", "7b", "a model preset", "7b"),
    Flag("workdir", "DIR", "a folder for the weights (default: a temporary one)"),
    JSON,
)
def run_bench_convert(words: list[str], flags: Any) -> None:
    """A conversion against `cp` of the same bytes."""
    from vilasr_jax.bench.convert import bench_convert
    from vilasr_jax.parallel import check_devices

    check_devices()
    _save(
        flags, bench_convert(flags.size, folder_path("--workdir", flags.workdir) if flags.workdir else None)
    )


@command(
    "bench real",
    "",
    Flag("size", "3b", "a model preset", required=True),
    Flag("weights", "bf16,int8", "forms of our weights", ["bf16", "int8"]),
    Flag("layers", "N", "cuts the language model to N layers, for a quick look", 0),
    Flag("tokens", "N", "tokens that are decoded", 32),
    Flag("workdir", "DIR", "a folder for the weights, which are written once", "runs/real", writes="folder"),
    JSON,
)
def run_bench_real(words: list[str], flags: Any) -> None:
    """A published size on this machine: ours, transformers and vLLM.

    Writes a folder with the size's shapes and random weights once. Each program then runs by itself, on the
    same image and tokens: time to load and to the first token, tokens a second and their fraction of what the
    bandwidth of memory allows, seconds of a drawing turn, peak memory.

    Example
      vilasr bench real --size=3b --layers=4
    """
    from vilasr_jax.bench.real import bench_real

    for form in flags.weights:
        with_weights(JobConfig(), form)  # which refuses other words
    if flags.tokens < 2 or flags.layers < 0:
        raise ConfigError(f"--tokens={flags.tokens}, --layers={flags.layers}: at least 2 tokens and 0 layers")
    home = folder_path("--workdir", flags.workdir)
    _save(flags, bench_real(flags.size, home, flags.weights, flags.layers, flags.tokens))


@command(
    "bench weights",
    "",
    Flag("checkpoint", "WHERE", "any checkpoint (`vilasr solve --help` lists them)", required=True),
    Flag("rows", "8", "questions of its task", 8),
    _MAX_TOKENS,
    JSON,
)
def run_bench_weights(words: list[str], flags: Any) -> None:
    """A model's logits in bf16 and int8 against float32."""
    from vilasr_jax.bench.weights import bench_weights
    from vilasr_jax.parallel import check_devices

    _at_least_1(flags, "rows")
    check_devices()
    _save(flags, bench_weights(flags.checkpoint, flags.rows, _max_tokens(flags)))


if __name__ == "__main__":
    main()
