"""The config of a workdir: written when a run begins, and compared with the config of every later command."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

from vilasr_jax.checkpoint.address import check_address
from vilasr_jax.config import TRAINED, JobConfig, flatten, from_config_dict, to_dict, with_new_keys
from vilasr_jax.errors import CheckpointError, ConfigError
from vilasr_jax.files import near_path, write_json
from vilasr_jax.models import DEFAULT_PRESET
from vilasr_jax.training.wording import same_prompt, save_prompts

# Keys that later commands may change: what to do now, and its layout over devices.
MAY_CHANGE = (
    "stages",
    "data.root",
    "data.benchmarks",
    "eval.benchmark_stages",
    "eval.best",
    "engine",
    "mesh",
    "model.remat",
    "model.attention",
    "cold_start.accumulate",
    "reflect.accumulate",
    "rl.micro_batch",
)
# Groups of data keys, each with the folder of the workdir that exists once they were used. Until then they
# may change; a later command that gives none of a group uses the earlier values.
DATA_GROUPS = (
    ("cold_start", ("data.traces", "data.traces_fraction", "data.traces_pixels")),
    ("reflect", ("data.reflect_traces", "data.reflect_questions")),
    ("rl", ("data.questions",)),
    ("reflect", ("data.questions_pixels",)),
    ("reflect", ("data.allow_same_questions",)),
    ("traces", ("data.synthesis_questions",)),
    ("eval", ("data.benchmarks_pixels",)),
)
DATA = tuple(key for _, keys in DATA_GROUPS for key in keys)
# What a run did before a key existed, where that is not the key's default.
EARLIER = {"cold_start.loss": "token_mean", "reflect.loss": "token_mean"}
# Sections whose keys users add.
_OPEN = ("rl.rewards.",)


def resolve_job(job: JobConfig, workdir: Path) -> JobConfig:
    """The job to run in `workdir`: the given one, with the data that earlier commands named.

    Keys in `MAY_CHANGE` may differ from the workdir's config; those in `DATA` until the stage that uses them
    begins.

    Raises:
      ConfigError: the workdir belongs to another config, or is a file.
    """
    path = workdir / "config.json"
    if workdir.exists() and not workdir.is_dir():
        raise ConfigError(f"{workdir} is a file; give a folder for --workdir")
    if not path.exists():
        return job
    before, now = flatten(_read(path)), flatten(_plain(job))
    if same_prompt(job, workdir, before.get("drawing.prompt")):
        before["drawing.prompt"] = now["drawing.prompt"]
    if _same_preset(before.get("model.preset"), now["model.preset"], now["model.init_from"]):
        before["model.preset"] = now["model.preset"]
    defaults = flatten(_plain(JobConfig()))
    for key in now.keys() & defaults.keys() - before.keys():  # a key that did not exist yet
        if not key.startswith(_OPEN):
            before[key] = EARLIER.get(key, defaults[key])
    for folder, keys in DATA_GROUPS:
        if all(now[key] == defaults[key] for key in keys):  # none is given
            now |= {key: before[key] for key in keys}
        elif not (workdir / folder).exists():
            before |= {key: now[key] for key in keys}
    changed = []
    for key in before.keys() & now.keys():
        if before[key] != now[key] and not f"{key}.".startswith(tuple(f"{one}." for one in MAY_CHANGE)):
            changed.append(f"{key}: {before[key]!r} there, {now[key]!r} now")
    if unlike := sorted(before.keys() ^ now.keys()):
        changed.append(f"its keys are of another version: {', '.join(unlike[:3])}")
    if changed:
        raise ConfigError(
            f"{workdir} belongs to another config ({'; '.join(sorted(changed)[:3])}); choose another "
            "--workdir"
        )
    data = {key.removeprefix("data."): now[key] for key in DATA}
    data = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    return dataclasses.replace(job, data=dataclasses.replace(job.data, **data))


def check_start(job: JobConfig, workdir: Path) -> None:
    """Refuses a job of `resolve_job` that can't begin in a new workdir. Without JAX.

    Raises:
      ConfigError: no stage of the job can begin there.
      CheckpointError: `config.model.init_from` is no checkpoint.
    """
    if (workdir / "config.json").exists():
        return
    if job.model.init_from:
        try:
            check_address(job.model.init_from)
        except CheckpointError as error:
            raise type(error)(f"config.model.init_from: {error}") from error
    elif not set(job.stages) & set(TRAINED):
        cure = near_path(workdir) or "; start it with `vilasr train`"
        raise ConfigError(f"{workdir} holds no run yet{cure}")


def _same_preset(before: Any, now: str, init_from: str) -> bool:
    """Whether two values may mean the same: one that is left out is that of the weights, or the default."""
    if init_from and not (before and now):
        return True
    return (before or DEFAULT_PRESET) == (now or DEFAULT_PRESET)


def open_workdir(job: JobConfig, workdir: Path) -> JobConfig:
    """Like `resolve_job`; also writes the config of a new workdir, and data that was not named before.

    `eval.best` is always written: a workdir is opened at the step that its last command scores and exports.
    """
    from vilasr_jax.parallel import is_writer  # which needs JAX

    job, path = resolve_job(job, workdir), workdir / "config.json"
    if not is_writer():
        return job
    ours = _plain(job)
    if not path.exists():
        save_prompts(job, workdir)
        write_json(path, ours)
        return job
    saved = _read(path)
    data = saved.get("data", {}) | {key: ours["data"][key] for key in ours["data"] if f"data.{key}" in DATA}
    found = {**saved, "data": data, "eval": {**saved.get("eval", {}), "best": job.eval.best}}
    if found != saved:
        write_json(path, found)
    return job


def read_job(workdir: Path) -> JobConfig:
    """The job of a workdir.

    Raises:
      ConfigError: there is no config of a run.
    """
    return from_config_dict(_read(workdir / "config.json"))


def _plain(job: JobConfig) -> dict[str, Any]:
    return json.loads(json.dumps(to_dict(job)))


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
        if not isinstance(values, dict):
            raise ValueError("it holds no keys")
        return with_new_keys(values)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} isn't a config of a run ({error}); choose another --workdir") from None
