"""A finished conversation as messages, read back from its token ids."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from vilasr_jax.processing import Tokenizer
from vilasr_jax.rollout.trajectory import Trajectory

Part = dict[str, Any]  # {"type": "text", "text": str} or {"type": "image"}


def messages_of(trajectory: Trajectory, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """[{"role", "content": [part, ...]}, ...]; the images in order are `trajectory.images_in_tokens`."""
    special, tokens = tokenizer.special, trajectory.tokens
    starts = np.flatnonzero(tokens == special.im_start)
    messages = []
    for start, end in pairwise([*starts, len(tokens)]):
        piece = tokens[start + 1 : end]
        stops = np.flatnonzero(piece == special.im_end)
        parts = _parts(piece[: stops[0]] if len(stops) else piece, tokenizer)
        role, _, rest = parts[0]["text"].partition(special.family.chat.after_role)
        messages.append({"role": role, "content": [p for p in [_text(rest), *parts[1:]] if p != _text("")]})
    return messages


def _parts(piece: np.ndarray, tokenizer: Tokenizer) -> list[Part]:
    """Texts and images in turn, a text first."""
    special = tokenizer.special
    parts, at = [], 0
    for start in np.flatnonzero(piece == special.vision_start):
        parts += [_text(tokenizer.decode(piece[at:start], skip_special=True)), {"type": "image"}]
        ends = np.flatnonzero(piece[start:] == special.vision_end)
        at = start + ends[0] + 1 if len(ends) else len(piece)
    return [*parts, _text(tokenizer.decode(piece[at:], skip_special=True))]


def _text(text: str) -> Part:
    return {"type": "text", "text": text}
