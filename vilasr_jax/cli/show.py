"""Commands that show what would run, or what has run: plan, config, report and watch."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

from vilasr_jax.cli.flags import CONFIG, JSON, WORKDIR, check_at_least_1, read_job, require, save
from vilasr_jax.commands import Flag, command
from vilasr_jax.config import JobConfig, check_section, config_files, differences, key_comments
from vilasr_jax.errors import ConfigError, did_you_mean
from vilasr_jax.files import folder_path, near_path


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
    Flag("sampling", "SLOTS", "instead: solve and serve on one host, with SLOTS conversations at once", 0),
    Flag("save_hlo", "DIR", "a folder for each step's optimised HLO text", ""),
    Flag("job", "", "also simulates a step of RL and an epoch of supervised training", False),
    Flag("saved", "FILE", "of an earlier --json: nothing is compiled; with --job", ""),
    Flag("conversations", "KEY=N,...", "lengths that --job draws: turns, turn_tokens, tokens, ...", []),
    Flag("recorded", "DIR", "a run's folder, whose sampled conversations give --job the lengths", ""),
    Flag(
        "host_costs", "KEY=N,...", "costs of a host that --job need not measure: draw_ms, save_gbs, ...", []
    ),
    Flag("shared_queue", "", "--job: hosts sample from one queue, not equal parts as a run does", False),
    JSON,
)
def run_plan(words: list[str], flags: Any) -> None:
    """A config's steps compiled for a TPU slice, without one: memory, traffic, time.

    Runs on any machine that has the package libtpu; with --job and --saved on any machine.

    Example
      vilasr plan --config=configs/vilasr.py:7b,v5e-64 --topology=v5e-64 --job --chip_hour=1
    """
    job, limits = read_job(flags), {"minutes": flags.max_minutes, "layers": flags.layers}
    from vilasr_jax.plan import plan, print_plan, print_sweep, refuse, sweep

    if flags.job:
        return _plan_job(job, flags)
    for name in ("saved", "conversations", "recorded", "host_costs", "shared_queue"):
        if flags[name].value:
            raise ConfigError(f"--{name} is for --job, which is not given")
    if flags.sweep:
        result = sweep(job, flags.topology, **limits)
        print_sweep(result)
        save(flags, result)
        return
    folder = str(folder_path("--save_hlo", flags.save_hlo)) if flags.save_hlo else ""
    result = plan(job, flags.topology, flags.steps, save=folder, slots=flags.sampling, **limits)
    print_plan(result, flags.chip_hour)
    save(flags, result)
    refuse(result)


def _plan_job(job: JobConfig, flags: Any) -> None:
    """`vilasr plan --job`."""
    from vilasr_jax.plan import plan, print_plan, refuse
    from vilasr_jax.plan.simulation import HostCosts, Workload, print_job, read_plan, simulate_job

    for name in ("sweep", "sampling", "steps"):
        if flags[name].value:
            raise ConfigError(f"--{name} does not go with --job, which needs the steps of the job's stages")
    workload = Workload(**_numbers(flags, "conversations", Workload))
    costs = _numbers(flags, "host_costs", HostCosts)
    HostCosts(**costs)  # which refuses values out of range
    recorded = _run_folder("--recorded", flags.recorded) if flags.recorded else None
    if flags.saved:
        result = read_plan(flags.saved, flags.topology)
    else:
        folder = str(folder_path("--save_hlo", flags.save_hlo)) if flags.save_hlo else ""
        result = plan(job, flags.topology, minutes=flags.max_minutes, layers=flags.layers, save=folder)
        print_plan(result, flags.chip_hour)
        save(flags, result)  # before a refusal
        refuse(result)
    found = simulate_job(
        job,
        result,
        workload,
        costs,
        recorded=recorded,
        shared_queue=flags.shared_queue,
        price=flags.chip_hour,
    )
    print_job(found, flags.chip_hour)
    save(flags, {**result, "job": found})


def _numbers(flags: Any, name: str, cls: type) -> dict[str, Any]:
    """The values of a flag `--name=KEY=N,...`, with the types of the fields of `cls`."""
    kinds: dict[str, Any] = {field.name: type(field.default) for field in dataclasses.fields(cls)}
    found = {}
    for word in flags[name].value:
        key, _, value = word.partition("=")
        if key not in kinds:
            raise ConfigError(f"--{name}={word}: no such key{did_you_mean(key, kinds)}")
        try:
            found[key] = kinds[key](value)
        except ValueError:
            number = "an integer" if kinds[key] is int else "a number"
            raise ConfigError(f"--{name}={word}: {key} must be {number}") from None
    return found


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
    require("config", flags, "config", instead=", or --list")
    job = read_job(flags)
    check_section(job)
    found = differences(job)
    for key, (value, default) in found.items():
        note = "" if value == default else f"  # default: {default!r}"
        print(f"{key} = {value!r}{note}")
    save(flags, {key: {"value": value, "default": default} for key, (value, default) in found.items()})


def _run_folder(name: str, path: str) -> Path:
    """The folder of a run that has begun; ConfigError says what else the path is."""
    from vilasr_jax.report.workdir import is_run

    folder = folder_path(name, path)
    if not folder.exists():
        why = f"there is no such folder{near_path(folder)}"
    elif not folder.is_dir():
        why = "it is a file"
    elif is_run(folder):
        return folder
    elif above := next(filter(is_run, folder.resolve().parents), None):
        why = f"it is in one; give {above}"
    else:
        why = "no run has begun in it"
    raise ConfigError(f"{name}={path} isn't a folder of a run: {why}")


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

    if not words and not flags.workdir:
        raise ConfigError("give the folder of a run: vilasr report WORKDIR")
    workdir = _run_folder("WORKDIR", words[0] if words else flags.workdir)
    other = _run_folder("--compare", flags.compare) if flags.compare else None
    print(f"Wrote {render_report(workdir, other)}")


@command(
    "watch",
    "WORKDIR",
    Flag("seconds", "30", "between two looks at the folder, and two loads of the page", 30),
)
def run_watch(words: list[str], flags: Any) -> None:
    """The report of a job while it runs, with the newest conversations.

    Writes WORKDIR/watch.html whenever something in the folder has changed; open it in a browser, which loads
    it again by itself. Run it while `vilasr train` runs, on any machine that sees the folder. RL's
    conversations are there with --config.rl.sample_every=10, every tenth step. Ctrl-C ends it, not the run.

    Example
      vilasr watch runs/quickstart
    """
    from vilasr_jax.report import watch

    workdir = _run_folder("WORKDIR", words[0])
    check_at_least_1(flags, "seconds")
    with contextlib.suppress(KeyboardInterrupt):
        watch(workdir, flags.seconds)
