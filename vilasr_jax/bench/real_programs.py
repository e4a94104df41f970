"""The programs of `vilasr bench real`, each run as `python -m vilasr_jax.bench.real_programs KIND ...`.

Each prints its figures as JSON. Ours writes the conversation that it had into a file, whose tokens and images
the others read.
"""

from __future__ import annotations

import itertools
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors.numpy import load_file, save_file

from vilasr_jax.config import WEIGHTS

ROUNDS = 3  # of each figure; the least counts
STREAM_BYTES = 1 << 30
PASSES = 64  # over the array, in one call: dispatching one pass costs an accelerator half as much time


def ours(weights: str, folder: Path, turns: Path, tokens: int, started: float) -> dict[str, Any]:
    """This package, with a form of the weights."""
    import jax

    from vilasr_jax.bench.real import SIDE
    from vilasr_jax.bench.rollout_load import (
        Load,
        ScriptedEngine,
        ScriptedSession,
        Subject,
        make_engine,
        ruled_out,
    )
    from vilasr_jax.models.params import output_head
    from vilasr_jax.parallel import check_devices, sampling_mesh
    from vilasr_jax.rollout import Request, Trajectory
    from vilasr_jax.trained_model import open_model

    check_devices()
    model = open_model(folder, weights)
    load = Load(questions=1, group=1, turns=2, side=SIDE, shortest=tokens, longest=tokens, slots=1)
    subject = Subject(model.config, model.graphdef, None, model.tokenizer)
    form = model.job.engine.weights
    mesh = sampling_mesh(model.config, slots=1)
    engine = make_engine(ScriptedEngine, load, subject, mesh, lanes=1, decode_steps=8, weights=form)
    began = time.monotonic()
    params = engine.load(model.weights)
    load_seconds = time.monotonic() - began

    def hold(*limits: int) -> Trajectory:
        """A conversation whose turns have these numbers of tokens; the last answers."""

        def session() -> ScriptedSession:
            found = ScriptedSession(load, 0, 0)
            found.limits = list(limits)
            return found

        return engine.generate(params, [Request({"id": "real"}, session, 0)], jax.random.key(0))[0]

    hold(1)
    first_answer = time.time() - started
    drawn = hold(tokens, 1)  # compiles the other steps
    sampled = np.flatnonzero(drawn.loss_mask)
    written = drawn.tokens[sampled[0] : sampled[0] + tokens]
    if not turns.exists():
        images = np.stack([np.asarray(image) for image in drawn.images_in_tokens])
        first_prompt, second_prompt = drawn.tokens[: sampled[0]], drawn.tokens[: sampled[-1]]
        arrays = {"written": written, "images": images, "first": first_prompt, "second": second_prompt}
        arrays["allowed"] = np.flatnonzero(~ruled_out(subject))  # what all programs may write
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, turns)
    first, turn = least_seconds(lambda: hold(1)), least_seconds(lambda: hold(tokens))
    second = least_seconds(lambda: hold(tokens, 1))
    head = output_head(params.rest, model.config)
    read = sum(x.nbytes for x in jax.tree.leaves((params.layers, head))) // mesh.shape["model"]
    stats = mesh.local_devices[0].memory_stats() or {}
    peak = stats["peak_bytes_in_use"] / 2**30 if "peak_bytes_in_use" in stats else host_peak_gib()
    return {
        "peak_gib": peak,  # before the array of `stream_rate`
        "load_seconds": load_seconds,
        "first_answer_seconds": first_answer,
        "first_token_seconds": first,
        "tokens_per_second": (tokens - 1) / (turn - first),
        "drawing_turn_seconds": second - turn,
        "bytes_per_token": read,  # on each device
        "weights_per_token": weights_per_token(model.config),
        "stream_bytes_per_second": stream_rate(),
        "same_tokens": same_tokens(turns, written),
    }


def transformers(dtype: str, folder: Path, turns: Path, tokens: int, started: float) -> dict[str, Any]:
    """transformers with SDPA, on a GPU where torch sees one."""
    import torch
    from transformers import AutoModelForImageTextToText, LogitsProcessor

    from vilasr_jax.processing import patchify

    device = "cuda" if torch.cuda.is_available() else "cpu"
    began = time.monotonic()
    loader = AutoModelForImageTextToText
    model = loader.from_pretrained(folder, dtype=getattr(torch, dtype), attn_implementation="sdpa")
    model = model.eval().to(device)
    load_seconds = time.monotonic() - began
    saved = load_file(turns)
    others = torch.ones(model.config.get_text_config().vocab_size, dtype=torch.bool)
    others[saved["allowed"]] = False
    others = others.to(device)

    class RuleOut(LogitsProcessor):
        def __call__(self, input_ids: Any, scores: Any) -> Any:
            return scores.masked_fill(others, -torch.inf)

    def write(ids: np.ndarray, images: int, count: int, conversation: int) -> np.ndarray:
        """`count` tokens after `ids`, which hold this many of the images; nothing is kept between calls."""
        read = [patchify(Image.fromarray(pixels)) for pixels in saved["images"][:images]]
        inputs = {
            "input_ids": ids[None].astype(np.int64),
            "attention_mask": np.ones((1, len(ids)), np.int64),
            "mm_token_type_ids": (ids == model.config.image_token_id)[None].astype(np.int64),
            "pixel_values": np.concatenate([patches for patches, _ in read]),
            "image_grid_thw": np.array([grid for _, grid in read]),
        }
        with torch.no_grad():
            out = model.generate(
                **{name: torch.tensor(value).to(device) for name, value in inputs.items()},
                do_sample=False,
                min_new_tokens=count,
                max_new_tokens=count,
                logits_processor=[RuleOut()],
            )
        return out[0, len(ids) :].cpu().numpy()

    figures = peer_figures(write, turns, tokens, started)
    peak = torch.cuda.max_memory_allocated() / 2**30 if device == "cuda" else host_peak_gib()
    return {"load_seconds": load_seconds, **figures, "peak_gib": peak}


def vllm(dtype: str, folder: Path, turns: Path, tokens: int, started: float) -> dict[str, Any]:
    """vLLM with its prefix cache; a salt makes each measured conversation new to it."""
    import torch
    from vllm import LLM, SamplingParams

    saved = load_file(turns)
    began = time.monotonic()
    model = LLM(
        str(folder),
        dtype=dtype,
        max_model_len=len(saved["second"]) + tokens + 64,
        max_num_seqs=1,
        enable_prefix_caching=True,
        limit_mm_per_prompt={"image": len(saved["images"])},
    )
    load_seconds = time.monotonic() - began
    allowed = saved["allowed"].tolist()
    pad = json.loads((folder / "config.json").read_text())["image_token_id"]

    def write(ids: np.ndarray, images: int, count: int, conversation: int) -> np.ndarray:
        alone = ids[(ids != pad) | (np.roll(ids, 1) != pad)]  # it repeats the pad of an image by itself
        pictures = [Image.fromarray(pixels) for pixels in saved["images"][:images]]
        prompt = {
            "prompt_token_ids": alone.tolist(),
            "multi_modal_data": {"image": pictures},
            "cache_salt": str(conversation),
        }
        sampling = SamplingParams(temperature=0, max_tokens=count, ignore_eos=True, allowed_token_ids=allowed)
        return np.array(model.generate([prompt], sampling)[0].outputs[0].token_ids)

    figures = peer_figures(write, turns, tokens, started)
    if (
        torch.cuda.is_available()
    ):  # what its process has allocated of the GPU, with a cache as large as it finds room
        free, total = torch.cuda.mem_get_info()
        peak = (total - free) / 2**30
    else:
        model.llm_engine.engine_core.shutdown()  # its process, whose peak is known when it has ended
        peak = host_peak_gib()
    return {"load_seconds": load_seconds, **figures, "peak_gib": peak}


def host_peak_gib() -> float:
    """The most memory of the host that this process, or one that it started and that has ended, has held."""
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return max(resource.getrusage(kind).ru_maxrss for kind in kinds) / 2**20


def peer_figures(
    write: Callable[..., np.ndarray], turns: Path, tokens: int, started: float
) -> dict[str, Any]:
    """The figures of a program that is given the tokens of a conversation at each turn.

    Args:
      write: `write(ids, images, count, conversation)` gives `count` tokens after `ids`; it may reuse what it
        computed of the same conversation, which is a number.
      turns: the file of the conversation.
      tokens: of a turn.
      started: when the process was, in seconds of `time.time`.
    """
    saved = load_file(turns)
    conversations = itertools.count()
    write(saved["first"], 1, 1, next(conversations))
    first_answer = time.time() - started
    written = write(saved["first"], 1, tokens, next(conversations))
    first = least_seconds(lambda: write(saved["first"], 1, 1, next(conversations)))
    turn = least_seconds(lambda: write(saved["first"], 1, tokens, next(conversations)))

    def drawing_turn() -> float:
        conversation = next(conversations)
        write(saved["first"], 1, tokens, conversation)
        began = time.monotonic()
        write(saved["second"], len(saved["images"]), 1, conversation)
        return time.monotonic() - began

    return {
        "first_answer_seconds": first_answer,
        "first_token_seconds": first,
        "tokens_per_second": (tokens - 1) / (turn - first),
        "drawing_turn_seconds": min(drawing_turn() for _ in range(ROUNDS)),
        "same_tokens": same_tokens(turns, written),
    }


def same_tokens(turns: Path, written: np.ndarray) -> int:
    """How many tokens at the start of the first turn are those of the saved conversation."""
    equal = load_file(turns)["written"] == written
    return len(equal) if equal.all() else int(equal.argmin())


def least_seconds(call: Callable[[], Any]) -> float:
    """Seconds of a call, the least of several: other work on the machine only adds to it."""
    seconds = []
    for _ in range(ROUNDS):
        began = time.monotonic()
        call()
        seconds.append(time.monotonic() - began)
    return min(seconds)


def weights_per_token(config: Any) -> int:
    """Weights of the decoder's layers and the output head, which each token is multiplied with."""
    import jax

    from vilasr_jax.models.params import abstract, decoder_layers, output_head

    params = abstract(config)[1]
    return sum(x.size for x in jax.tree.leaves((decoder_layers(params), output_head(params, config))))


def stream_rate() -> float:
    """Bytes per second that a sum over a large array reads, on the first device."""
    import jax
    import jax.numpy as jnp

    if jax.devices()[0].platform == "cpu":
        threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        parts = np.array_split(np.ones(STREAM_BYTES // 8, np.int64), threads)
        with ThreadPoolExecutor(threads) as pool:
            return STREAM_BYTES / least_seconds(lambda: list(pool.map(np.add.reduce, parts)))
    array = jnp.ones(STREAM_BYTES // 4, jnp.int32)

    def sums(array: jax.Array) -> jax.Array:  # each pass waits for the last, and is no other's constant
        return jax.lax.fori_loop(0, PASSES, lambda _, last: jnp.sum(array ^ last), jnp.int32(0))

    total = jax.jit(sums)
    total(array).block_until_ready()
    return PASSES * STREAM_BYTES / least_seconds(lambda: total(array).block_until_ready())


def main(kind: str, folder: str, turns: str, tokens: str, started: str) -> None:
    """Measures one program and prints its figures."""
    given = (Path(folder), Path(turns), int(tokens), float(started))
    if kind.startswith("ours-"):
        found = ours(kind.removeprefix("ours-"), *given)
    else:
        name, _, form = kind.partition("-")
        found = {"transformers": transformers, "vllm": vllm}[name](WEIGHTS[form], *given)
    print(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
