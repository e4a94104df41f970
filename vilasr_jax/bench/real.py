"""A published size on this machine: ours, transformers and vLLM, with the same weights, image and tokens.

A folder of a preset's shapes with random weights is written once. Each program then runs in a process of its
own, one after another, and measures a conversation of a model that draws once:

    [prompt with an image] -> written tokens -> [text with the drawn image] -> a token

Decoding at batch 1 reads each weight of the decoder once a token, so the bandwidth of memory bounds it; that
is measured by the same process, with as many threads.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vilasr_jax.bench.convert import weight_bytes, write_random
from vilasr_jax.bench.rollout_load import WORDS
from vilasr_jax.checkpoint.folders import complete_folder
from vilasr_jax.checkpoint.hf_config import preprocessor_config
from vilasr_jax.errors import DataError
from vilasr_jax.files import write_json
from vilasr_jax.models import ModelConfig, family_of, preset
from vilasr_jax.processing import Tokenizer, train_tiny_tokenizer

PEERS = ("transformers", "vllm")  # measured where they are installed
SIDE = 448  # pixels of the image; 256 tokens
_COLUMNS = (
    ("load_seconds", "load s", 1),
    ("first_answer_seconds", "start s", 1),
    ("first_token_seconds", "first token s", 2),
    ("tokens_per_second", "tokens/s", 2),
    ("drawing_turn_seconds", "drawing turn s", 2),
    ("peak_gib", "peak GiB", 2),
    ("same_tokens", "same tokens", 0),
)


def bench_real(
    size: str,
    home: Path,
    weights: Sequence[str] = ("bf16", "int8"),
    layers: int = 0,
    tokens: int = 32,
    peers: str = "bf16",
) -> dict[str, Any]:
    """Measures a preset with random weights in our forms of `weights` and in its peers; prints a table.

    Args:
      size: a preset, such as "3b".
      home: where the folder of the weights is, or is written.
      weights: forms of ours, see `config.WEIGHTS`.
      layers: of the decoder; 0: all.
      tokens: that are decoded.
      peers: form of the weights in the peers, bf16 or f32.

    Raises:
      DataError: the disk has too little free space.
      RuntimeError: one of ours fails.
    """
    folder = model_folder(size, home, layers)
    records: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        turns = Path(name) / "turns.safetensors"
        for form in weights:
            records.append(_measured(f"ours, {form}", f"ours-{form}", folder, turns, tokens))
            if "failed" in records[-1]:
                raise RuntimeError(f"bench real: {records[-1]['name']} failed: {records[-1]['failed']}")
        for peer in PEERS:
            if importlib.util.find_spec("torch") and importlib.util.find_spec(peer):
                records.append(_measured(f"{peer}, {peers}", f"{peer}-{peers}", folder, turns, tokens))
            else:
                print(f"{peer}: not installed, left out", flush=True)
    bandwidth = max(record["stream_bytes_per_second"] for record in records[: len(weights)])
    width = 4 if peers == "f32" else 2
    for record in records:
        if "tokens_per_second" in record:
            read = record.get("bytes_per_token", width * records[0]["weights_per_token"])
            record["of_bound"] = record["tokens_per_second"] * read / bandwidth
    _print(records, bandwidth)
    result = {"size": size, "layers": layers, "tokens": tokens, "cores": os.cpu_count()}
    return {**result, "load": os.getloadavg()[0], "bandwidth": bandwidth, "records": records}


def model_folder(size: str, home: Path, layers: int = 0) -> Path:
    """The Hugging Face folder of a preset with random weights, below `home`; written where it is missing.

    The vocabulary has the published size; its tokenizer is a small one.

    Raises:
      DataError: the disk has too little free space.
    """
    folder = home / (f"{size}-{layers}-layers" if layers else size)
    if folder.exists():
        return folder
    family = family_of(preset(size))
    tokenizer = train_tiny_tokenizer(list(WORDS), [], 600, family)
    changes: dict[str, Any] = {"num_layers": layers} if layers else {}
    config = preset(size, param_dtype="bfloat16", **tokenizer.special.config_fields(), **changes)
    if config.vocab_size < tokenizer.vocab_size:
        config = config.replace(vocab_size=-(-tokenizer.vocab_size // 8) * 8)
    home.mkdir(parents=True, exist_ok=True)
    free, total = shutil.disk_usage(home).free, weight_bytes(config)
    if free < 1.05 * total:
        raise DataError(
            f"{home}: {free / 2**30:.1f} GiB free, {total / 2**30:.1f} GiB needed; choose another --workdir"
        )
    print(f"writing {total / 2**30:.1f} GiB of random {size} weights to {folder}", flush=True)
    write_folder(config, tokenizer, folder)
    return folder


def write_folder(config: ModelConfig, tokenizer: Tokenizer, folder: Path) -> None:
    """Writes a Hugging Face folder with random bfloat16 weights, as people download it."""
    spec = family_of(config).images
    with complete_folder(folder) as partial:
        write_random(config, Path(partial))
        tokenizer.save(partial)
        pixels = spec.factor**2, spec.max_pixels
        write_json(partial / "preprocessor_config.json", preprocessor_config(config, *pixels))


def _measured(name: str, kind: str, folder: Path, turns: Path, tokens: int) -> dict[str, Any]:
    """The record of one program; its error in place of figures where it fails."""
    print(f"measuring {name}", flush=True)
    words = map(str, (kind, folder, turns, tokens, time.time()))
    command = [sys.executable, "-m", "vilasr_jax.bench.real_programs", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        return {"name": name, "failed": last[0]}
    return {"name": name, **json.loads(done.stdout.splitlines()[-1])}


def _print(records: list[dict[str, Any]], bandwidth: float) -> None:
    heads = "".join(f"{head:>16}" for _, head, _ in _COLUMNS)
    print(f"{'':20}{heads}{'of the bound':>14}")
    for record in records:
        if "failed" in record:
            print(f"{record['name']:20}  failed: {record['failed']}")
            continue
        cells = "".join(f"{record[key]:16.{digits}f}" for key, _, digits in _COLUMNS)
        print(f"{record['name']:20}{cells}{record['of_bound']:14.0%}")
    print(
        "start: from the start of the process to its first token; drawing turn: from the end of a turn to "
        "the first token of the next: ours inserts the drawn image, transformers reads the conversation "
        "again, vLLM what its prefix cache lacks; "
        f"the bound: {bandwidth / 1e9:.1f} GB/s, measured, over the bytes of weights a token reads; "
        "same tokens: at the start of the first turn, those of the first program; all choose among the same; "
        "peak: of the accelerator's memory, or of the host's on a CPU"
    )
