"""Duration of a conversion, compared with a plain copy of the same bytes, and its peak memory.

Random weights of a preset's shapes are written as safetensors and converted to Orbax and back; right before
each conversion `cp` copies its source. A conversion runs in a process of its own, whose peak is its own.
"""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from etils import epath

from vilasr_jax.checkpoint.hf_config import config_to_hf
from vilasr_jax.checkpoint.hf_layout import hf_tensors
from vilasr_jax.checkpoint.safetensors_files import write_safetensors
from vilasr_jax.errors import DataError
from vilasr_jax.files import write_json
from vilasr_jax.models import ModelConfig, preset
from vilasr_jax.models.params import is_norm

_BLOCK = 1 << 24  # values written in one go
_STD = 0.02  # of random weights
_SHIFT = 7  # values by which the next piece of noise begins later
_CHILD = """
import json, resource, sys, time
from vilasr_jax.checkpoint import convert_from_hf, convert_to_hf
began = time.monotonic()
{"in": convert_from_hf, "out": convert_to_hf}[sys.argv[1]](sys.argv[2], sys.argv[3])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps({"seconds": time.monotonic() - began, "peak_bytes": peak}))
"""


def bench_convert(size: str, workdir: Path | None = None) -> dict[str, Any]:
    """Times `cp`, safetensors -> Orbax and back for a preset's shapes in bfloat16; prints a table.

    Args:
      size: a preset.
      workdir: where the files go for a while, four times the weights' size; by default the system's
        temporary folder.

    Raises:
      DataError: the disk has too little free space.
    """
    config = preset(size, param_dtype="bfloat16")
    total = weight_bytes(config)
    if workdir:
        workdir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=workdir) as name:
        folder = Path(name)
        free = shutil.disk_usage(folder).free
        if free < 4.1 * total:
            raise DataError(
                f"{folder}: {free / 2**30:.1f} GiB free, {4.1 * total / 2**30:.1f} GiB needed; "
                "choose another --workdir"
            )
        source, orbax, back = (str(folder / part) for part in ("hf", "orbax", "back"))
        print(f"writing {total / 2**30:.1f} GiB of random {size} weights", flush=True)
        write_random(config, Path(source))
        result: dict[str, Any] = {"size": size, "bytes": total}
        for way, src, dst in (("in", source, orbax), ("out", orbax, back)):
            began = time.monotonic()
            subprocess.run(["cp", "-r", src, str(folder / "copy")], check=True)
            result[f"{way}_cp_seconds"] = time.monotonic() - began
            shutil.rmtree(folder / "copy")
            done = subprocess.run(
                [sys.executable, "-c", _CHILD, way, src, dst], check=True, capture_output=True, text=True
            )
            measured = json.loads(done.stdout.splitlines()[-1])
            result |= {f"{way}_{key}": value for key, value in measured.items()}
    print(f"{'':24}{'seconds':>9}{'cp':>9}{'x cp':>7}{'peak GiB':>10}")
    for way, label in (("in", "safetensors -> Orbax"), ("out", "Orbax -> safetensors")):
        seconds, cp = result[f"{way}_seconds"], result[f"{way}_cp_seconds"]
        peak = result[f"{way}_peak_bytes"] / 2**30
        print(f"{label:24}{seconds:9.1f}{cp:9.1f}{seconds / cp:7.1f}{peak:10.2f}")
    return result


def weight_bytes(config: ModelConfig) -> int:
    """Bytes of a model's weights in bfloat16."""
    return 2 * sum(math.prod(tensor.shape) for tensor in hf_tensors(config))


def write_random(config: ModelConfig, folder: Path) -> None:
    """Writes a Hugging Face folder with random bfloat16 weights of the config's shapes; norms scale by 1.

    All are pieces of one block of noise, which is faster than the disk. They begin at places of their own, so
    no two rows of a tensor and no two tensors are alike.
    """
    rng = np.random.default_rng(0)
    noise = (_STD * rng.standard_normal(_BLOCK, np.float32)).astype(ml_dtypes.bfloat16)
    noise = np.concatenate([noise, noise])
    tensors = {tensor.key: tensor.shape for tensor in hf_tensors(config)}
    norms = {tensor.key for tensor in hf_tensors(config) if is_norm(tensor.path.split("/"))}

    def values(name: str) -> Iterator[np.ndarray]:
        if name in norms:
            yield np.ones(tensors[name], noise.dtype)
            return
        rows, *rest = tensors[name]
        each = math.prod(rest)
        at_once = max(1, _BLOCK // each)
        place = int(rng.integers(_BLOCK))
        for start in range(0, rows, at_once):
            count = min(at_once, rows - start)
            yield noise[place : place + count * each].reshape(count, *rest)
            place = (place + _SHIFT) % _BLOCK

    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", config_to_hf(config))
    specs = [(name, noise.dtype, shape) for name, shape in tensors.items()]
    write_safetensors(epath.Path(folder), specs, values)
