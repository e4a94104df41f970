"""Flags that several commands have, and what is read from them."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from vilasr_jax.commands import COMMANDS, Flag
from vilasr_jax.config import WEIGHTS, JobConfig, check_section, from_config_dict
from vilasr_jax.errors import ConfigError
from vilasr_jax.files import folder_path, write_json
from vilasr_jax.slices import has_chips

CONFIG = Flag(
    "config", "FILE", "a config file, or one of `vilasr config --list`; --config.KEY=VALUE", required=True
)
WORKDIR = Flag(
    "workdir", "DIR", "the folder of the run; everything is written there", required=True, writes="folder"
)
JSON = Flag("json", "FILE", "also writes what is printed to this file", writes="file")
WEIGHTS_FORM = Flag(
    "weights", "FORM", "of the weights while it samples: int8, bf16 or f32", choices=tuple(WEIGHTS)
)
MAX_TOKENS = Flag(
    "max_tokens", "N", "of a conversation, its prompt included (default: the model's settings)", 0
)


def read_job(flags: Any, stages: tuple[str, ...] | None = None) -> JobConfig:
    """The job of `--config`.

    Args:
      stages: that the command runs, whose settings are checked; None: those of the config.

    Raises:
      ConfigError: it can't be read, or a value is outside of its limits.
    """
    try:
        flags.config.keys()
    except Exception as error:  # config_flags raises a file's own error when its values are first used
        raise ConfigError(f"--config: {error}") from error
    job = from_config_dict(flags.config)
    if stages is not None:
        job = dataclasses.replace(job, stages=stages)
    check_section(job)
    return job


def require(command: str, flags: Any, *names: str, instead: str = "") -> None:
    """Refuses a command without flags that it can only do without in some cases.

    Args:
      command: its name.
      names: of the flags.
      instead: the flag in their place, such as ", or --list".

    Raises:
      ConfigError: one is missing; the message has the usage.
    """
    declared = COMMANDS[command]
    missing = [flag.usage for flag in declared.flags if flag.name in names and flags[flag.name].value is None]
    if missing:
        raise ConfigError(f"give {' and '.join(missing)}{instead}; usage: {declared.usage}")


def job_and_workdir(flags: Any) -> tuple[JobConfig, Path]:
    """The job and workdir of a command that computes; the devices are set up."""
    job, workdir = read_job(flags), folder_path("--workdir", flags.workdir)
    use_devices(job)
    return job, workdir


def run_to_start(flags: Any, stages: tuple[str, ...] | None) -> tuple[JobConfig, Path]:
    """The job and workdir of a command that runs stages; refused before JAX is imported where that can be.

    Args:
      stages: to run; None: those of the config.
    """
    from vilasr_jax.workdir import check_start, resolve_job

    job, workdir = read_job(flags, stages), folder_path("--workdir", flags.workdir)
    if not _others_may_wait():
        check_start(resolve_job(job, workdir), workdir)
    use_devices(job)
    return job, workdir


def _others_may_wait() -> bool:
    """Whether other processes may wait for this one, so that each has to get its error, in `begin`."""
    return bool(os.environ.get("VILASR_NUM_PROCESSES")) or has_chips()


def use_devices(job: JobConfig) -> None:
    """Sets up the config's virtual CPU devices, and joins the other processes of a pod."""
    import jax

    from vilasr_jax.parallel import check_devices, join

    if job.mesh.cpu_devices > 1 and "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", job.mesh.cpu_devices)
    join()
    check_devices()


def save(flags: Any, value: object) -> None:
    if flags.json:
        write_json(flags.json, value)


def check_at_least_1(flags: Any, name: str) -> None:
    if flags[name].value < 1:
        raise ConfigError(f"--{name}={flags[name].value} must be at least 1")


def max_tokens(flags: Any) -> int:
    if flags.max_tokens < 0:
        raise ConfigError(f"--max_tokens={flags.max_tokens} must be at least 1")
    return flags.max_tokens
