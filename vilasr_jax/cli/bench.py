"""Commands that measure: bench learn, soft, input, rollout, render, sft, convert, real and weights."""

from __future__ import annotations

import os
from typing import Any

from vilasr_jax.bench.small import small_presets
from vilasr_jax.cli.flags import (
    CONFIG,
    JSON,
    MAX_TOKENS,
    WORKDIR,
    check_at_least_1,
    job_and_workdir,
    max_tokens,
    read_job,
    save,
    use_devices,
)
from vilasr_jax.commands import Flag, command
from vilasr_jax.config import JobConfig, with_weights
from vilasr_jax.errors import ConfigError
from vilasr_jax.files import folder_path

SMALL = Flag("size", "tiny", f"the family of a small preset: {', '.join(small_presets())}", "tiny")
SEEDS = Flag("seeds", "0,1,2", "the seeds, with commas between them", "0,1,2")


@command("bench learn", "", CONFIG, WORKDIR, SEEDS, JSON)
def run_bench_learn(words: list[str], flags: Any) -> None:
    """Stages and controls of a config, seed by seed."""
    seeds = _seeds(flags)
    job, workdir = job_and_workdir(flags)
    from vilasr_jax.bench.learn import bench_learn

    save(flags, bench_learn(job, workdir, seeds))


@command("bench soft", "", CONFIG, WORKDIR, SEEDS, JSON)
def run_bench_soft(words: list[str], flags: Any) -> None:
    """A cold start with and without the soft term."""
    seeds = _seeds(flags)
    job, workdir = job_and_workdir(flags)
    from vilasr_jax.bench.soft import bench_soft

    save(flags, bench_soft(job, workdir, seeds))


def _seeds(flags: Any) -> list[int]:
    try:
        return [int(seed) for seed in flags.seeds.split(",")]
    except ValueError:
        raise ConfigError(f"--seeds={flags.seeds}: give integers with commas between them") from None


@command("bench input", "", CONFIG, JSON)
def run_bench_input(words: list[str], flags: Any) -> None:
    """Rows generated per second, against those that training needs."""
    job = read_job(flags, ())
    use_devices(job)
    from vilasr_jax.bench.input import bench_input

    save(flags, bench_input(job))


@command(
    "bench rollout",
    "",
    SMALL,
    Flag("scale", "", "cost against turns, slots and group size instead", False),
    JSON,
)
def run_bench_rollout(words: list[str], flags: Any) -> None:
    """Drawing conversations: ours, with a new prefill per turn, transformers."""
    import jax

    from vilasr_jax.parallel import check_devices

    if "host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        jax.config.update("jax_num_cpu_devices", os.cpu_count() or 1)
    check_devices()
    from vilasr_jax.bench.rollout import bench_rollout, bench_scale

    save(flags, bench_scale(flags.size) if flags.scale else bench_rollout(size=flags.size))


@command("bench render", "", SMALL, JSON)
def run_bench_render(words: list[str], flags: Any) -> None:
    """Drawings per second."""
    from vilasr_jax.bench.render import bench_render

    save(flags, bench_render(size=flags.size))


@command("bench sft", "", SMALL, JSON)
def run_bench_sft(words: list[str], flags: Any) -> None:
    """Supervised steps against transformers, same weights and data."""
    from vilasr_jax.bench.sft import bench_sft
    from vilasr_jax.parallel import check_devices

    check_devices()
    save(flags, bench_sft(flags.size))


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
    save(flags, bench_convert(flags.size, folder_path("--workdir", flags.workdir) if flags.workdir else None))


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
    save(flags, bench_real(flags.size, home, flags.weights, flags.layers, flags.tokens))


@command(
    "bench steps",
    "",
    Flag("size", "3b", "a model preset", required=True),
    Flag("tokens", "8192", "of the packed row", 8192),
    Flag("layers", "N", "cuts the language model to N layers, for a quick look", 0),
    JSON,
)
def run_bench_steps(words: list[str], flags: Any) -> None:
    """A published size's training steps on this machine, with random weights.

    A supervised step of one packed row, and a step of RL: seconds, tokens a second, MFU, peak memory. Sizes
    up to 4B are trained in full but for the vision tower, larger ones with LoRA.

    Example
      vilasr bench steps --size=3b
    """
    from vilasr_jax.bench.steps import bench_steps

    if flags.tokens < 2048 or flags.layers < 0:
        raise ConfigError(f"--tokens={flags.tokens}, --layers={flags.layers}: at least 2048 tokens, 0 layers")
    save(flags, bench_steps(flags.size, flags.tokens, flags.layers))


@command(
    "bench weights",
    "",
    Flag("checkpoint", "WHERE", "any checkpoint (`vilasr solve --help` lists them)", required=True),
    Flag("rows", "8", "questions of its task", 8),
    MAX_TOKENS,
    JSON,
)
def run_bench_weights(words: list[str], flags: Any) -> None:
    """A model's logits in bf16 and int8 against float32."""
    from vilasr_jax.bench.weights import bench_weights
    from vilasr_jax.parallel import check_devices

    check_at_least_1(flags, "rows")
    check_devices()
    save(flags, bench_weights(flags.checkpoint, flags.rows, max_tokens(flags)))
