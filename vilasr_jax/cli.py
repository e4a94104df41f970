"""The `vilasr` command: one thin function a subcommand.

Exit codes: 0 done, 1 a fault of ours, 2 the user's input, 143 stopped by SIGTERM after saving.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path

from absl import flags, logging
from ml_collections import config_flags

from vilasr_jax.config import JobConfig, differences, from_config_dict, split_config_path
from vilasr_jax.errors import STOPPED, ConfigError, Stopped, UserError
from vilasr_jax.files import write_json
from vilasr_jax.usage import HELP

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "A file of configs/; override a key with --config.key=value.")
flags.DEFINE_string("workdir", None, "The folder of the run: everything is written there.")
flags.DEFINE_string("json", None, "Also write what is printed to this file.")
flags.DEFINE_string("question", None, "solve: what to ask about the images.", short_name="Q")
flags.DEFINE_list("options", [], "solve: the choices, with commas between them, when there are any.")
flags.DEFINE_string("checkpoint", None, "solve: a workdir, or a Hugging Face folder.")
flags.DEFINE_string("out", None, "solve: a folder for the drawn images. data show: the page.")
flags.DEFINE_integer("count", 8, "data show: rows of each task.", lower_bound=1)
flags.DEFINE_string("images", None, "data import: where relative image paths start, if not at SRC.")
flags.DEFINE_string("topology", None, "plan: a TPU slice, such as v5e:8x8, v6e:4x4 or v5p:4x4x4.")
flags.DEFINE_list("steps", [], "plan: only these steps, with commas between them.")
flags.DEFINE_bool("sweep", False, "plan: try meshes, remat policies and batch sizes, and recommend one.")
flags.DEFINE_float("max_minutes", 60.0, "plan: of all compilations together.")
flags.DEFINE_float("chip_hour", 0.0, "plan: what a chip costs an hour, to tell the cost of 1,000 samples.")
flags.DEFINE_integer("layers", 0, "plan: cut the language model to so many layers, for a quick look.")
flags.DEFINE_string("save_hlo", "", "plan: a folder for each step's optimised HLO text.")
flags.DEFINE_list("answers", [], "eval: results files (or folders that hold one) to score without a model.")
flags.DEFINE_string("benchmark", "", "eval --answers: which benchmark, where the file does not say.")
flags.DEFINE_string("host", "127.0.0.1", "serve: the address to listen at.")
flags.DEFINE_integer("port", 8000, "serve: the port to listen at; 0 takes any free one.")
flags.DEFINE_string("token", None, "serve: what clients send as their API key (default: VILASR_TOKEN).")
flags.DEFINE_list("allow-host", [], "serve: more host names that it answers to, with commas between them.")
flags.DEFINE_integer("slots", 8, "serve: conversations at once.", lower_bound=1)
flags.DEFINE_enum("param_dtype", None, ["float32", "bfloat16", "float16"], "convert from-hf: of the weights.")
flags.DEFINE_string("size", "7b", "bench convert: a model preset.")
flags.DEFINE_bool("scale", False, "bench rollout: cost against turns, slots and group size instead.")
flags.DEFINE_integer("profile", 0, "train: steps of each stage to trace with the JAX profiler.")
flags.DEFINE_string("seeds", "0,1,2", "bench learn, bench soft: the seeds, with commas between them.")

USAGE = """vilasr COMMAND [--config=configs/X.py] [--config.key=value ...] [--workdir=DIR]

  train                     all stages of a config in order; each is skipped when done, resumed when half done
  sft | reflect | rl        one stage; --profile=5 traces five steps of it
  synthesize                traces of the last stage (or config.model.init_from) as a teacher
  eval                      the finished stages of a workdir on held-out questions and config.data.benchmarks
  eval --answers A.jsonl[,B.jsonl...] [--benchmark NAME]
                            scores anyone's results files without a model; several are compared
  solve IMAGE... --question Q [--options A,B,C,D] --checkpoint DIR [--out DIR]
                            one question; prints each turn, saves each drawn image
  data make                 rows of config.tasks as TFDS folders in --workdir, config.make says how many;
                            in parallel, and a stopped run goes on
  data show [DIR]           a page of rows with images and traces, of the config or made in DIR
                            [--out=PAGE.html] [--count=N]
  data import FORMAT SRC DST [--images=DIR]
                            published data to rows; SRC may be gs://; FORMAT is cold_start, rrs, rl, maze,
                            SpatialEval_spatialreal, vsi_bench, spar_bench or mmsi_bench
  serve WORKDIR [--port 8000]
                            a page to ask the model on, and an OpenAI-compatible API
  convert from-hf SRC DST   a Hugging Face folder to an Orbax checkpoint
  convert to-hf SRC DST     and back
  plan --topology=v5e:8x8   compiles the config's steps for a TPU slice, without one: memory, traffic, time
  config --config=X.py      every value that would run, and the defaults that it differs from
  report WORKDIR            the HTML page of a run
  bench learn               the controls and seeds of a config, in one table
  bench soft                a cold start with and without the soft drawing term, seed by seed
  bench input               rows a second that are made, beside those that a config's training step takes
  bench rollout [--scale]   drawing conversations: ours, re-prefilling each turn, transformers
  bench render              drawings a second
  bench sft                 supervised steps beside transformers, the same weights and data
  bench convert --size 7b   a conversion beside a plain copy of the same bytes

`vilasr COMMAND --help` says more about one.

Examples
  vilasr train --config=configs/maze_tiny.py --workdir=runs/quickstart
  vilasr solve maze.png --question "..." --checkpoint runs/quickstart
"""


def main(argv: list[str] | None = None) -> None:
    """Entry point of the console script."""
    argv = sys.argv if argv is None else argv
    sys.path.append(os.getcwd())  # tasks, tools and sizes of the user's own lie there
    logging.set_verbosity(logging.WARNING)
    try:
        code = _run(argv)
    except UserError as error:
        code = _refuse(error)
    except Stopped as stopped:
        print(f"vilasr: {stopped}, and saved; the same command goes on from there", file=sys.stderr)
        code = STOPPED
    sys.exit(code)


def _run(argv: list[str]) -> int:
    if len(argv) < 2 or argv[1] in ("help", "-h", "--help", "--helpfull", "--helpshort"):
        print(USAGE)
        return 0 if len(argv) > 1 else 2
    command = COMMANDS.get(argv[1])
    if command is None:
        known = ", ".join(COMMANDS)
        raise ConfigError(f"no command {argv[1]!r}; there are: {known}. `vilasr help` shows them")
    if any(word in ("-h", "--help") for word in argv[2:]):
        print(HELP.get(argv[1], USAGE))
        return 0
    command(_parse(argv))
    return 0


def _parse(argv: list[str]) -> list[str]:
    """Reads the flags; returns the words that are none."""
    try:
        return FLAGS([argv[0], *argv[2:]])[1:]
    except Exception as error:  # absl, config_flags and the config file itself raise many types
        text = str(error)
        if text[:1] in ("'", '"'):  # what a missing key said, quoted once more
            text = f"no such key: {ast.literal_eval(text)}"
        text = " ".join(text.split())
        raise ConfigError(text or type(error).__name__) from error


def _refuse(error: Exception) -> int:
    print(f"vilasr: {' '.join(str(error).split())}", file=sys.stderr)
    return 2


def _read_config() -> JobConfig:
    if FLAGS.config is None:
        raise ConfigError("give a config: --config=configs/maze_tiny.py")
    split_config_path(config_flags.get_config_filename(FLAGS["config"]))
    try:
        FLAGS.config.keys()
    except Exception as error:  # a file that could not be read is told of only when it is used
        raise ConfigError(f"--config: {error}") from error
    return from_config_dict(FLAGS.config)


def _job(stages: tuple[str, ...] | None = None) -> tuple[JobConfig, Path]:
    """The config and workdir of a training command."""
    job = _read_config()
    if not FLAGS.workdir:
        raise ConfigError("give a folder for the run: --workdir=runs/NAME")
    if stages is not None:
        job = dataclasses.replace(job, stages=stages)
    _use_devices(job)
    return job, Path(FLAGS.workdir)


def _use_devices(job: JobConfig) -> None:
    """Virtual CPU devices where the config asks for them, and the other processes where there are any."""
    import jax

    from vilasr_jax.parallel import check_devices, join

    if job.mesh.cpu_devices > 1 and "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", job.mesh.cpu_devices)
    join()
    check_devices()


def _train(stages: tuple[str, ...] | None = None) -> Callable[[list[str]], None]:
    def command(words: list[str]) -> None:
        from vilasr_jax.evaluation import print_scores, read_results
        from vilasr_jax.job import train
        from vilasr_jax.report import print_summary
        from vilasr_jax.training import interrupt

        _no_words(words)
        job, workdir = _job(stages)
        interrupt.listen()
        summary = train(job, workdir, FLAGS.profile)
        if summary["stages"]:
            print_summary(summary)
        for stage, benchmarks in summary["benchmarks"].items():
            for name in benchmarks:
                print_scores(read_results(workdir / "eval" / stage / name))
        _save(summary)
        print(f"Everything is in {workdir}")

    return command


def _eval(words: list[str]) -> None:
    from vilasr_jax.evaluation import compare, print_comparison, print_scores, read_results

    if not FLAGS.answers:
        _train(("eval", "report"))(words)
        return
    _no_words(words)
    runs = [read_results(path, FLAGS.benchmark) for path in FLAGS.answers]
    scores: dict[str, object] = {run.label: run.to_dict() for run in runs}
    for run in runs:
        print_scores(run)
    if len(runs) > 1:
        scores["comparison"] = comparison = compare(runs)
        print_comparison(comparison)
    _save(scores)


def _solve(words: list[str]) -> None:
    from vilasr_jax.parallel import check_devices
    from vilasr_jax.solve import solve

    if not words or not FLAGS.question or not FLAGS.checkpoint:
        raise ConfigError("usage: vilasr solve IMAGE... --question Q --checkpoint DIR [--out DIR]")
    check_devices()
    solve(words, FLAGS.question, Path(FLAGS.checkpoint), Path(FLAGS.out or "solved"), FLAGS.options)


def _data(words: list[str]) -> None:
    if not words or words[0] not in DATA:
        raise ConfigError(f"usage: vilasr data WHAT ...; there are: {', '.join(DATA)}")
    DATA[words[0]](words[1:])


def _data_make(words: list[str]) -> None:
    from vilasr_jax.progress import progress_bar
    from vilasr_jax.tasks.dataset import make_data

    _no_words(words)
    job = _read_config()
    if not FLAGS.workdir:
        raise ConfigError("give a folder for the rows: --workdir=data/NAME")
    with progress_bar() as progress:
        bar = progress.add_task("rows", total=None, note="")

        def show(done: int, total: int, note: str) -> None:
            progress.update(bar, completed=done, total=total, note=note)

        report = make_data(job, Path(FLAGS.workdir), show)
    for name, made in report.items():
        rows = ", ".join(f"{split} {count:,}" for split, count in made["rows"].items())
        print(f"{name}: {rows}; {made['bytes'] / 2**20:,.1f} MiB in {made['folder']}")
    _save(report)


def _data_show(words: list[str]) -> None:
    from vilasr_jax.tasks.show import show_data

    out = Path(FLAGS.out or "rows.html")
    if len(words) > 1 or out.is_dir():
        raise ConfigError("usage: vilasr data show [DIR] --config=configs/X.py [--out=PAGE.html] [--count=N]")
    shown = show_data(_read_config(), Path(words[0]) if words else None, FLAGS.count, out)
    print(f"Wrote {out}: {shown} rows")


def _data_import(words: list[str]) -> None:
    from vilasr_jax.drawing.prompts import FILE
    from vilasr_jax.files import split_lines
    from vilasr_jax.progress import progress_bar
    from vilasr_jax.tasks.importers import BROKEN, import_data

    if len(words) != 3:
        raise ConfigError("usage: vilasr data import FORMAT SRC DST [--images=DIR]")
    with progress_bar() as progress:
        bar = progress.add_task(f"import {words[0]}", total=100, visible=False, note="")

        def show(done: float, note: str) -> None:
            progress.update(bar, completed=int(100 * done), visible=True, note=note)

        index = import_data(*words, FLAGS.images, show)
    print(f"{index['rows']:,} rows with {index['images']:,} images are in {words[2]}")
    if index["broken"]:
        listed = split_lines((Path(words[2]) / BROKEN).read_text())
        print("\n".join(listed[:10]), *(["..."] if len(listed) > 10 else []), sep="\n")
        print(f"{index['broken']:,} rows were left out; {Path(words[2]) / BROKEN} lists them")
    if prompt := index.get("prompt"):
        kept = (Path(words[2]) / FILE).exists()
        said = f"is kept in {Path(words[2]) / FILE}" if kept else "is not kept: too few agree"
        print(f"prompt: {prompt['agree']:,} of {prompt['rows']:,} conversations have the same, which {said}")
    _save(index)


def _config(words: list[str]) -> None:
    _no_words(words)
    found = differences(_read_config())
    for key, (value, default) in found.items():
        note = "" if value == default else f"  # default: {default!r}"
        print(f"{key} = {value!r}{note}")
    _save({key: {"value": value, "default": default} for key, (value, default) in found.items()})


def _serve(words: list[str]) -> None:
    if lacking := [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]:
        needed = 'pip install "vilasr-jax[serve]"'
        raise ConfigError(f"vilasr serve needs {' and '.join(lacking)}; install the extra [serve]: {needed}")
    from vilasr_jax.parallel import check_devices
    from vilasr_jax.serve import Limits, serve

    if len(words) != 1:
        raise ConfigError("usage: vilasr serve WORKDIR [--port=8000] [--host=127.0.0.1] [--token=SECRET]")
    token = os.environ.get("VILASR_TOKEN", "") if FLAGS.token is None else FLAGS.token
    check_devices()
    limits = Limits(slots=FLAGS.slots, waiting=3 * FLAGS.slots)
    serve(
        Path(words[0]),
        host=FLAGS.host,
        port=FLAGS.port,
        token=token,
        limits=limits,
        allow_hosts=FLAGS["allow-host"].value,
    )


def _convert(words: list[str]) -> None:
    from vilasr_jax.checkpoint import convert_from_hf, convert_to_hf
    from vilasr_jax.parallel import check_devices

    ways = {"from-hf": convert_from_hf, "to-hf": convert_to_hf}
    if len(words) != 3 or words[0] not in ways:
        raise ConfigError("usage: vilasr convert from-hf SRC DST, or vilasr convert to-hf SRC DST")
    check_devices()
    if FLAGS.param_dtype and words[0] == "to-hf":
        raise ConfigError("--param_dtype is for convert from-hf; to-hf writes what the checkpoint holds")
    ways[words[0]](words[1], words[2], **({"param_dtype": FLAGS.param_dtype} if FLAGS.param_dtype else {}))
    print(f"Wrote {words[2]}")


def _report(words: list[str]) -> None:
    from vilasr_jax.report import render_report

    workdir = words[0] if words else FLAGS.workdir
    if not workdir or not Path(workdir).is_dir():
        raise ConfigError(f"vilasr report WORKDIR: {workdir!r} is no folder of a run")
    print(f"Wrote {render_report(Path(workdir))}")


def _plan(words: list[str]) -> None:
    from vilasr_jax.plan import plan, print_plan, print_sweep, refuse, sweep

    _no_words(words)
    if not FLAGS.topology:
        raise ConfigError("name a TPU slice: --topology=v5e:8x8")
    job = _read_config()
    if FLAGS.sweep:
        result = sweep(job, FLAGS.topology, minutes=FLAGS.max_minutes, layers=FLAGS.layers)
        print_sweep(result)
        _save(result)
        return
    result = plan(
        job, FLAGS.topology, FLAGS.steps, minutes=FLAGS.max_minutes, layers=FLAGS.layers, save=FLAGS.save_hlo
    )
    print_plan(result, FLAGS.chip_hour)
    _save(result)
    refuse(result)


def _bench(words: list[str]) -> None:
    if len(words) != 1 or words[0] not in BENCHES:
        raise ConfigError(f"usage: vilasr bench NAME; there are: {', '.join(BENCHES)}")
    _save(BENCHES[words[0]]())


def _bench_learn() -> object:
    from vilasr_jax.bench.learn import bench_learn

    job, workdir = _job()
    return bench_learn(job, workdir, _seeds())


def _bench_soft() -> object:
    from vilasr_jax.bench.soft import bench_soft

    job, workdir = _job()
    return bench_soft(job, workdir, _seeds())


def _seeds() -> list[int]:
    try:
        return [int(seed) for seed in FLAGS.seeds.split(",")]
    except ValueError:
        raise ConfigError(f"--seeds={FLAGS.seeds}: give whole numbers with commas between them") from None


def _bench_input() -> object:
    from vilasr_jax.bench.input import bench_input

    job = _read_config()
    _use_devices(job)
    return bench_input(job)


def _bench_render() -> object:
    from vilasr_jax.drawing.bench import bench_render

    records = bench_render()
    for r in records:
        print(
            f"{r['side']} x {r['side']}, {r['workers']} workers, {r['annotations']} annotations: "
            f"{r['drawings_per_second']:,.0f} a second by the clock; "
            f"{r['drawings_per_core_second']:,.0f} a second of a core "
            f"(bare PIL calls {r['pil_per_second']:,.0f}, only copied {r['copies_per_second']:,.0f})"
        )
    return records


def _bench_sft() -> object:
    from vilasr_jax.bench.sft import bench_sft
    from vilasr_jax.parallel import check_devices

    check_devices()
    return bench_sft()


def _bench_rollout() -> object:
    import jax

    from vilasr_jax.parallel import check_devices

    if "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    check_devices()
    from vilasr_jax.bench.rollout import bench_rollout, bench_scale

    return bench_scale() if FLAGS.scale else bench_rollout()


def _bench_convert() -> object:
    from vilasr_jax.bench.convert import bench_convert
    from vilasr_jax.parallel import check_devices

    check_devices()
    return bench_convert(FLAGS.size, Path(FLAGS.workdir) if FLAGS.workdir else None)


def _no_words(words: list[str]) -> None:
    if words:
        raise ConfigError(f"unexpected word {words[0]!r}; flags start with --")


def _save(value: object) -> None:
    if FLAGS.json:
        write_json(FLAGS.json, value)


COMMANDS: dict[str, Callable[[list[str]], None]] = {
    "train": _train(),
    "sft": _train(("cold_start",)),
    "reflect": _train(("reflect",)),
    "rl": _train(("rl",)),
    "synthesize": _train(("synthesize",)),
    "eval": _eval,
    "solve": _solve,
    "data": _data,
    "serve": _serve,
    "convert": _convert,
    "plan": _plan,
    "config": _config,
    "report": _report,
    "bench": _bench,
}

DATA: dict[str, Callable[[list[str]], None]] = {
    "make": _data_make,
    "show": _data_show,
    "import": _data_import,
}

BENCHES: dict[str, Callable[[], object]] = {
    "learn": _bench_learn,
    "soft": _bench_soft,
    "input": _bench_input,
    "rollout": _bench_rollout,
    "render": _bench_render,
    "sft": _bench_sft,
    "convert": _bench_convert,
}


if __name__ == "__main__":
    main()
