"""transformers' `generate`, turn by turn, for `vilasr bench rollout`."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from vilasr_jax.bench.rollout_load import Load, ScriptedSession, Subject, ruled_out
from vilasr_jax.checkpoint import export_hf
from vilasr_jax.processing import encode_turn, patchify
from vilasr_jax.rollout import make_prompt


class _FirstToken:
    """A streamer that records the time of the first token."""

    def __init__(self):
        self.calls: list[float] = []

    def put(self, value: Any) -> None:
        self.calls.append(time.monotonic())

    def end(self) -> None:
        pass


def hold_with_transformers(load: Load, subject: Subject) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Holds the first group's conversations in lock-step; returns the record and each one's tokens.

    At each turn `generate` gets the full conversations so far with all their images, left-padded to one
    batch, and runs until the longest turn of the group is complete.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        export_hf(subject.params, subject.config, folder, tokenizer=subject.tokenizer)
        loader = transformers.AutoModelForImageTextToText
        model = loader.from_pretrained(folder, dtype=torch.float32, attn_implementation="sdpa").eval()
    special, never = subject.tokenizer.special, np.flatnonzero(ruled_out(subject)).tolist()
    first = _FirstToken()
    counts = {"sampled": 0, "prefilled": 0, "images": 0}
    began, busy = time.monotonic(), time.process_time()
    sessions = [ScriptedSession(load, 0, n) for n in range(load.group)]
    tokens = [make_prompt(subject.tokenizer, session).encoded.ids for session in sessions]
    for turn in range(load.turns):
        limits = [session.limits[turn] for session in sessions]
        inputs = _inputs(tokens, [session.images for session in sessions], special)
        width = inputs["input_ids"].shape[1]
        with torch.no_grad():
            out = model.generate(
                **inputs,
                do_sample=False,
                max_new_tokens=max(limits),
                suppress_tokens=never,
                eos_token_id=special.im_end,
                pad_token_id=special.endoftext,
                streamer=first,
            )
        counts["sampled"] += sum(limits)
        counts["prefilled"] += sum(map(len, tokens))
        counts["images"] += sum(len(session.images) for session in sessions)
        for n, session in enumerate(sessions):
            written = out[n, width : width + limits[n]].numpy().astype(np.int32)
            reply = session.step("")
            parts = [tokens[n], written]
            if reply.message is not None:
                parts.append(encode_turn(subject.tokenizer, reply.message, closed=False).ids)
            tokens[n] = np.concatenate(parts)
    wall, busy = time.monotonic() - began, time.process_time() - busy
    record = {
        "name": "transformers",
        "conversations": load.group,
        "seconds": wall,
        "processor_seconds": busy,
        "sampled_tokens": counts["sampled"],
        "tokens_per_second": counts["sampled"] / wall,
        "prefilled": counts["prefilled"] / load.group,
        "images": counts["images"] / load.group,
        "first_token": first.calls[1] - began,
        "threads": torch.get_num_threads(),
        "version": transformers.__version__,
    }
    return record, tokens


def _inputs(tokens: list[np.ndarray], images: list[list], special) -> dict[str, Any]:
    width = max(map(len, tokens))
    ids = np.full((len(tokens), width), special.endoftext, np.int64)
    mask = np.zeros_like(ids)
    for row, own in enumerate(tokens):
        ids[row, width - len(own) :], mask[row, width - len(own) :] = own, 1
    read = [patchify(image, spec=special.family.images) for own in images for image in own]
    return {
        "input_ids": torch.tensor(ids),
        "attention_mask": torch.tensor(mask),
        "mm_token_type_ids": torch.tensor((ids == special.image_pad).astype(np.int64)),
        "pixel_values": torch.tensor(np.concatenate([patches for patches, _ in read])),
        "image_grid_thw": torch.tensor([grid for _, grid in read]),
    }
