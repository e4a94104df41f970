"""An optional SFT term: what the model is about to draw, rendered softly, against the drawing it should make.

Cross entropy treats a coordinate as a class: 14 for 42 costs as much as 41. The term measures the miss in the
image instead. At a coordinate's tokens the model's own probabilities, given the true text before them, make
an expected number:

    one token per number (a tiny vocabulary)  c = sum_v p(v) v               over all numbers v in it
    one token per digit (a published one)     c = sum_i 10^i sum_d p_i(d) d  over the ten digits at each place

Four of them are an expected box or line. It and the true one are rendered by `drawing.soft` on a small canvas
to which the image is shrunk, and their soft overlap `J` (Tanimoto, see `soft_iou`) gives the loss

    L = cross entropy + weight * mean over the batch's annotations of (1 - J)

With logits z over the numbers, p = softmax(z) and dc/dz_v = p_v (v - c), so

    dL/dz_v = -weight * dJ/dc * p_v (v - c)

A number gains probability in proportion to its distance on the side that raises the overlap: near misses
and far ones pull differently, and a distribution whose mean is right is left to the cross entropy.

Measured on the tiny maze (`vilasr bench soft`, weight 0.5, 300 steps of 8, two seeds): it loses 24 points. A
batch has some twenty times more tokens than annotations and both losses are means, so that at this weight the
term outweighs the cross entropy at the coordinates, and what has the right mean need not be right when it is
sampled.

Marking the tokens is host work (`mark`, on examples as they are encoded); `read` and `loss` run in the step.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from vilasr_jax.config import SoftDrawingSection
from vilasr_jax.drawing.soft import expected_number, soft_iou, soft_shape
from vilasr_jax.errors import TokenizerError
from vilasr_jax.processing import Batch, Encoded, Tokenizer
from vilasr_jax.tasks.rows import Source
from vilasr_jax.tasks.sources import MappedSource
from vilasr_jax.training.job_model import JobModel

_ITEM = re.compile(r"\{[^{}]{1,400}\}")
_INDEX = re.compile(r'"index"\s*:\s*([0-9]{1,4})\b')
_N = r"\s*(-?[0-9]{1,6}(?:\.[0-9]{1,4})?)\s*"
_BOX = re.compile(rf'"bbox_2d"\s*:\s*\[{_N},{_N},{_N},{_N}\]')
_ENDS = [re.compile(rf'"{key}_point_2d"\s*:\s*\[{_N},{_N}\]') for key in ("start", "end")]


class Numbers(NamedTuple):
    """The tokens of a vocabulary that are numbers.

    Attributes:
      pieces: every token's text, by id.
      ids, values: int32 and float32 [k], all integers from 0 on.
      digits: int32 [10], the tokens of "0" to "9".
    """

    pieces: tuple[str, ...]
    ids: np.ndarray
    values: np.ndarray
    digits: np.ndarray

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> Numbers:
        """Reads a vocabulary once. `TokenizerError` when a digit has no token of its own."""
        pieces = tuple(tokenizer.decode([i]) for i in range(tokenizer.vocab_size))
        found = {p: i for i, p in enumerate(pieces) if p.isascii() and p.isdigit() and len(p) < 7}
        missing = [digit for digit in "0123456789" if digit not in found]
        if missing:
            raise TokenizerError(f"soft_drawing needs a token for each digit; {missing[0]!r} has none")
        return cls(
            pieces,
            np.array(list(found.values()), np.int32),
            np.array([int(piece) for piece in found], np.float32),
            np.array([found[digit] for digit in "0123456789"], np.int32),
        )


@dataclasses.dataclass(frozen=True)
class SoftDrawing:
    """The loss term for one vocabulary."""

    section: SoftDrawingSection
    tokenizer: Tokenizer

    @cached_property
    def numbers(self) -> Numbers:
        """The vocabulary's numbers."""
        return Numbers.of(self.tokenizer)

    def mark(self, example: Encoded) -> Encoded:
        """The example with the extras that `loss` reads, all per token, 0 where there is no coordinate:

        - "annotation": 1 at an annotation's first coordinate token;
        - "corner": 1 to 4 for a box's x1, y1, x2, y2, -1 to -4 for a line's;
        - "scale": what the token's number is multiplied by: its decimal place, in canvas pixels;
        - "target": its true number times `scale`;
        - "digit": whether the other digits are its alternatives, not all numbers.
        """
        t = len(example.ids)
        extras = {
            "annotation": np.zeros(t, np.int32),
            "corner": np.zeros(t, np.int32),
            "scale": np.zeros(t, np.float32),
            "target": np.zeros(t, np.float32),
            "digit": np.zeros(t, bool),
        }
        sizes, largest = [image.size for image in example.images], example.special.family.coordinates
        for first, last in _turns(example.loss_mask):
            pieces = [self.numbers.pieces[i] for i in example.ids[first:last]]
            text, starts = "".join(pieces), np.cumsum([0, *map(len, pieces)])
            for index, sign, spans in _annotations(text):
                parts = [_tokens(text, starts, span) for span in spans]
                if not 1 <= index <= len(sizes) or not all(parts):
                    continue
                size = sizes[index - 1]
                sides = (1, 1) if largest is None else (size[0] / largest, size[1] / largest)
                scales = [self.section.canvas / max(size) * side for side in sides]
                extras["annotation"][first + parts[0][0][0]] = 1
                for corner, tokens in enumerate(parts, 1):
                    scale = scales[(corner - 1) % 2]
                    for at, factor in tokens:
                        extras["corner"][first + at] = sign * corner
                        extras["scale"][first + at] = factor * scale
                        extras["target"][first + at] = factor * scale * int(pieces[at])
                        extras["digit"][first + at] = len(pieces[at]) == 1 < len(tokens)
        return dataclasses.replace(example, extras={**example.extras, **extras})

    def read(self, logits: jax.Array) -> jax.Array:
        """[b, t, v] to [b, t, 2]: the expected number among all, and among the digits."""
        some = expected_number(logits, self.numbers.ids, self.numbers.values)
        digit = expected_number(logits, self.numbers.digits, np.arange(10, dtype=np.float32))
        return jnp.stack([some, digit], -1)

    def loss(self, read: jax.Array, batch: Batch) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The weighted term, and "soft_iou", the batch's mean overlap.

        Args:
          read: [b, t, 2] from `read`, column i is about token i.
          batch: with the extras of `mark`; a row's annotations beyond `section.annotations` are left out.
        """
        section, x = self.section, batch.extras
        n = section.annotations
        number = jnp.cumsum(x["annotation"], axis=1) - 1
        slot = jnp.where((x["corner"] != 0) & (number < n), 4 * number + jnp.abs(x["corner"]) - 1, 4 * n)

        def gather(values: jax.Array) -> jax.Array:  # [b, t] to [b, n, 4]
            sums = jax.vmap(lambda v, s: jax.ops.segment_sum(v, s, 4 * n + 1))(values, slot)
            return sums[:, :-1].reshape(-1, n, 4)

        expected = jnp.asarray(x["scale"]) * jnp.where(x["digit"], read[..., 1], read[..., 0])
        corners, target = gather(expected), gather(jnp.asarray(x["target"]))
        kinds = gather(jnp.sign(x["corner"]))[..., 0]  # 1 box, -1 line, 0 none (each of its tokens adds one)
        overlap = soft_iou(self._render(corners, kinds < 0), self._render(target, kinds < 0))
        valid = kinds != 0
        mean = jnp.where(valid, overlap, 0.0).sum() / jnp.maximum(valid.sum(), 1)
        return section.weight * jnp.where(valid.any(), 1 - mean, 0.0), {"soft_iou": mean}

    def _render(self, corners: jax.Array, is_line: jax.Array) -> jax.Array:
        """[b, n, 4] to masks [b, n, canvas, canvas]: filled boxes and lines."""
        canvas, width, softness = self.section.canvas, self.section.line_width, self.section.softness

        @jax.checkpoint
        def one(corners: jax.Array, line: jax.Array) -> jax.Array:
            size = (canvas, canvas)
            box = soft_shape("filled", corners, size, width, softness)
            return jnp.where(line, soft_shape("line", corners, size, width, softness), box)

        return jax.vmap(jax.vmap(one))(corners, is_line)


def open_soft_drawing(section: SoftDrawingSection, model: JobModel) -> SoftDrawing | None:
    """The loss term for a model's vocabulary; None where its weight is 0 or the job does not draw."""
    return SoftDrawing(section, model.tokenizer) if section.weight and model.settings.draw else None


def mark(sources: Sequence[Source[Encoded]], soft: SoftDrawing | None) -> Sequence[Source[Encoded]]:
    """Sources of training examples, marked for `soft` (see `SoftDrawing.mark`) unless it is None."""
    return [MappedSource(source, soft.mark) for source in sources] if soft else sources


def _turns(mask: np.ndarray) -> Iterator[tuple[int, int]]:
    """First and last + 1 token of each stretch of trained tokens."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], np.asarray(mask, np.int8), [0]])))
    return zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)


def _annotations(text: str) -> Iterator[tuple[int, int, list[tuple[int, int]]]]:
    """Image index, 1 for a box or -1 for a line, and the four coordinates' spans, of a turn's items."""
    for item in _ITEM.finditer(text, max(0, text.find("</think>"))):
        index = _INDEX.search(text, *item.span())
        box = _BOX.search(text, *item.span())
        start, end = (pattern.search(text, *item.span()) for pattern in _ENDS)
        if index and box:
            yield int(index[1]), 1, [box.span(i) for i in range(1, 5)]
        elif index and start and end and start.start() < end.start():
            yield int(index[1]), -1, [point.span(i) for point in (start, end) for i in (1, 2)]


def _tokens(text: str, starts: np.ndarray, span: tuple[int, int]) -> list[tuple[int, float]]:
    """A number's digit tokens and what each is multiplied by; none when a token holds more than digits."""
    sign = -1.0 if text[span[0]] == "-" else 1.0
    point = text.find(".", *span)
    ones = (point if point >= 0 else span[1]) - 1  # index of the ones
    tokens, at = [], int(np.searchsorted(starts, span[0]))
    if starts[at] != span[0]:
        return []
    while starts[at] < span[1]:
        piece = text[starts[at] : starts[at + 1]]
        if starts[at + 1] > span[1] or not (piece.isdigit() or piece in ("-", ".")):
            return []
        if piece.isdigit():
            place = ones - (int(starts[at + 1]) - 1)
            tokens.append((at, sign * 10.0 ** (place + (place < 0))))
        at += 1
    return tokens
