"""Supervised steps compared with transformers + PyTorch: the same weights, conversations, batch and cores.

Theirs is the usual recipe: AdamW, conversations padded to the longest of a micro-batch, gradients accumulated
over the batch. Ours packs the same conversations into rows. Both count useful tokens only: padding earns
nothing. The two alternate, each in a process of its own, so that a busy machine slows both alike; processor
seconds are reported with the clock's, as a core that others use counts for neither.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vilasr_jax.bench.small import small_preset
from vilasr_jax.errors import ConfigError
from vilasr_jax.models import DEFAULT_PRESET, ModelConfig, family_of
from vilasr_jax.processing import Budget, Encoded, SpecialTokens, image_grid, patchify

CORES = 2
BATCH = 32  # conversations per step, as published
MICRO_BATCH = 4  # theirs, padded to one length
ROUNDS = 2  # of both, in turns
STEPS = 3  # timed in each, after one that warms up
LEARNING_RATE = 1e-4
ROW = {"tokens": 1152, "vision_rows": 7, "patches": 100}  # 12 rows per step, 92 % of their tokens useful


def special_tokens(size: str) -> SpecialTokens:
    """Ids after those of words, for the family of a small preset."""
    return SpecialTokens.of(family_of(small_preset(size)), range(2000, 2007))


def model_config(size: str) -> ModelConfig:
    """About 3M parameters of the family of a small preset: what two cores train in seconds."""
    return small_preset(
        size,
        vocab_size=2048,
        hidden_size=192,
        intermediate_size=512,
        num_layers=4,
        head_dim=48,
        mrope_section=(8, 8, 8),
        **special_tokens(size).config_fields(),
        scan_unroll=4,
        vision=dict(depth=3, hidden_size=96, intermediate_size=256, num_heads=4),
    )


def conversations(special: SpecialTokens, count: int = BATCH) -> list[Encoded]:
    """Drawing conversations of 2 to 12 turns, an image in each, their lengths as uneven as real ones."""
    rng, unit = np.random.default_rng(0), special.family.images.factor
    examples = []
    for _ in range(count):
        ids: list[int] = []
        mask: list[bool] = []
        images = []
        for _ in range(2 + min(int(rng.geometric(0.25)), 10)):
            side = unit * int(rng.integers(2, 5))
            images.append(Image.fromarray(rng.integers(0, 255, (side, side, 3), np.uint8)))
            pads = (side // unit) ** 2
            said, wrote = int(rng.integers(8, 24)), int(rng.integers(16, 64))
            turn = [special.vision_start, *[special.image_pad] * pads, special.vision_end]
            ids += [*turn, *rng.integers(0, 2000, said + wrote).tolist()]
            mask += [False] * (len(turn) + said) + [True] * wrote
        examples.append(Encoded(np.array(ids, np.int32), np.array(mask), images, special))
    return examples


def bench_sft(size: str = DEFAULT_PRESET) -> dict[str, Any]:
    """Runs both in turns and prints a table; `size` is the small preset of whose family the model is.

    Raises:
      ConfigError: torch or transformers is not installed, or `size` is no small preset.
    """
    config, special = model_config(size), special_tokens(size)
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise ConfigError(f"bench sft needs {error.name}: pip install 'vilasr_jax[parity]'") from None
    runs: dict[str, list[dict[str, Any]]] = {"ours": [], "theirs": []}
    with tempfile.TemporaryDirectory() as name:
        _write_weights(config, Path(name))
        for _ in range(ROUNDS):
            for side, found in runs.items():
                found.append(_worker(side, name, size))
    tokens = sum(len(one.ids) for one in conversations(special))
    print(f"{special.family.title}, {tokens:,} useful tokens a step")
    table: dict[str, Any] = {
        "model_type": config.model_type,
        "useful_tokens": tokens,
        "load": os.getloadavg()[0],
        "runs": runs,
    }
    for side, found in runs.items():
        seconds, cpu_seconds = (
            float(np.median([s for run in found for s in run[name]])) for name in ("seconds", "cpu_seconds")
        )
        table[side] = {
            "tokens_per_second": tokens / seconds,
            "tokens_per_cpu_second": tokens / cpu_seconds,
            "useful_share": found[0]["useful_share"],
            "peak_bytes": max(run["peak_bytes"] for run in found),
            "first_loss": found[0]["losses"][0],
        }
    for name, figure in (("ratio", "tokens_per_second"), ("cpu_ratio", "tokens_per_cpu_second")):
        table[name] = table["ours"][figure] / table["theirs"][figure]
    for side, label in (("ours", "vilasr_jax, packed"), ("theirs", "transformers, padded")):
        row = table[side]
        print(
            f"{label:22} {row['tokens_per_second']:8.0f} useful tokens/s"
            f"   {row['tokens_per_cpu_second']:8.0f} a processor second   {row['useful_share']:.0%} useful"
            f"   {row['peak_bytes'] / 2**30:.2f} GiB   first loss {row['first_loss']:.4f}"
        )
    print(
        f"ratio {table['ratio']:.2f}, {table['cpu_ratio']:.2f} in processor time "
        f"({ROUNDS} rounds of {STEPS} steps, {CORES} cores, load {table['load']:.1f})"
    )
    return table


def _write_weights(config: ModelConfig, folder: Path) -> None:
    from flax import nnx

    from vilasr_jax.checkpoint import export_hf
    from vilasr_jax.models.params import build

    params = nnx.split(build(config))[1]
    export_hf(params, config, folder / "hf")


def _worker(side: str, folder: str, size: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "vilasr_jax.bench.sft", side, folder, size]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": str(CORES)}
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    if done.returncode:
        raise RuntimeError(f"bench sft: {side} failed: {done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def _timed(step, useful: int, slots: int) -> dict[str, Any]:
    """Runs `step() -> loss` once to warm up and then STEPS times."""
    losses, seconds, cpu_seconds = [step()], [], []
    for _ in range(STEPS):
        began, began_cpu = time.monotonic(), time.process_time()
        losses.append(step())
        seconds.append(time.monotonic() - began)
        cpu_seconds.append(time.process_time() - began_cpu)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    times = {"seconds": seconds, "cpu_seconds": cpu_seconds}
    return {"losses": losses, **times, "peak_bytes": peak, "useful_share": useful / slots}


def _ours(folder: Path, size: str) -> dict[str, Any]:
    import jax

    jax.config.update("jax_num_cpu_devices", CORES)
    import optax

    from vilasr_jax.checkpoint.hf_import import import_hf
    from vilasr_jax.config import MeshSection, OptimizerSection
    from vilasr_jax.models.params import abstract
    from vilasr_jax.parallel import make_mesh, put_batch
    from vilasr_jax.processing import collate_packed, pack
    from vilasr_jax.training.state import init_state
    from vilasr_jax.training.steps import make_sft_step

    mesh = make_mesh(MeshSection())
    graphdef = abstract(model_config(size))[0]
    params = import_hf(folder / "hf", param_dtype="float32")[1]
    optimizer = optax.adamw(LEARNING_RATE)
    state = init_state(params, optimizer, mesh, OptimizerSection())
    special = special_tokens(size)
    examples, budget = conversations(special), Budget(**ROW, spec=special.family.images)
    rows = pack(examples, budget)
    count = -(-len(rows) // CORES) * CORES
    run = make_sft_step(graphdef, optimizer, mesh=mesh, accumulate=count // CORES)

    def step() -> float:
        nonlocal state
        batch = collate_packed(rows, budget, rows=count)
        state, metrics = run(state, put_batch(mesh, batch))
        return float(metrics["loss"][0] / metrics["loss"][1])

    return _timed(step, sum(len(e.ids) for e in examples), count * budget.tokens)


def _theirs(folder: Path, size: str) -> dict[str, Any]:
    import torch
    import transformers

    torch.set_num_threads(CORES)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder / "hf", dtype=torch.float32)
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=1e-4)
    special = special_tokens(size)
    spec, examples = special.family.images, conversations(special)
    total = sum(int(e.loss_mask.sum()) for e in examples)
    parts = [examples[at : at + MICRO_BATCH] for at in range(0, len(examples), MICRO_BATCH)]

    def inputs(some: list[Encoded]) -> dict[str, Any]:
        length = max(len(e.ids) for e in some)
        ids = np.full((len(some), length), special.endoftext, np.int64)
        seen, labels = np.zeros_like(ids), np.full_like(ids, -100)
        for row, e in enumerate(some):
            n = len(e.ids)
            ids[row, :n], seen[row, :n] = e.ids, 1
            labels[row, :n] = np.where(e.loss_mask, e.ids, -100)
        images = [image for e in some for image in e.images]
        arrays = {
            "input_ids": ids,
            "attention_mask": seen,
            "labels": labels,
            "mm_token_type_ids": (ids == special.image_pad).astype(np.int64),
            "pixel_values": np.concatenate([patchify(image, spec=spec)[0] for image in images]),
            "image_grid_thw": np.array([image_grid(image, spec) for image in images]),
        }
        return {name: torch.tensor(value) for name, value in arrays.items()}

    def step() -> float:
        loss_sum = 0.0
        for some in parts:
            loss = model(**inputs(some), num_items_in_batch=torch.tensor(total)).loss
            loss.backward()
            loss_sum += float(loss.detach())
        optimizer.step()
        optimizer.zero_grad()
        return loss_sum

    slots = sum(len(some) * max(len(e.ids) for e in some) for some in parts)
    return _timed(step, sum(len(e.ids) for e in examples), slots)


if __name__ == "__main__":
    print(json.dumps({"ours": _ours, "theirs": _theirs}[sys.argv[1]](Path(sys.argv[2]), sys.argv[3])))
