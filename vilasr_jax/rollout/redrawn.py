"""Conversations without their images, for another host: it draws those again that it looks at.

A drawing session is deterministic: the same question and the same turns give the same pixels. So a
conversation travels as its ids, log-probabilities and turns, some kilobytes, where its images would be
megabytes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, overload

from PIL import Image

from vilasr_jax.drawing.sizes import Frame
from vilasr_jax.errors import DataError
from vilasr_jax.rollout.conversation import Request
from vilasr_jax.rollout.packed_arrays import pack_arrays, unpack_arrays
from vilasr_jax.rollout.trajectory import Trajectory

_ARRAYS = ("tokens", "loss_mask", "logprobs")


def without_images(trajectory: Trajectory) -> bytes:
    """A conversation as bytes, without its images and its row; see `redrawn`."""
    left_out = ("images", "row", *_ARRAYS)
    plain = {
        f.name: getattr(trajectory, f.name) for f in dataclasses.fields(trajectory) if f.name not in left_out
    }
    drawn = trajectory.base_images + sum(len(turn["drawn"]) for turn in trajectory.turns)
    count = max(drawn, trajectory.images_read)  # a session that failed may have drawn more
    plain["sizes"] = [image.size for image in trajectory.images[:count]]
    return pack_arrays(plain, {name: getattr(trajectory, name) for name in _ARRAYS})


def redrawn(data: bytes, request: Request) -> Trajectory:
    """Reads what `without_images` wrote about a question; its `images` are `RedrawnImages`."""
    plain, arrays = unpack_arrays(data)
    sizes = [(width, height) for width, height in plain.pop("sizes")]
    replay = _Replay(plain["id"], request.session, plain["turns"], sizes)
    fields: dict[str, Any] = {**arrays, **plain}
    return Trajectory(images=RedrawnImages(replay, range(len(sizes))), row=request.row, **fields)


class RedrawnImages(Sequence[Image.Image]):
    """Images of a conversation, drawn when they are first looked at; a slice draws nothing."""

    def __init__(self, replay: _Replay, numbers: range):
        self._replay, self._numbers = replay, numbers

    @property
    def sizes(self) -> list[Frame]:
        """(width, height) of each, without drawing any."""
        return [self._replay.sizes[number] for number in self._numbers]

    def __len__(self) -> int:
        return len(self._numbers)

    @overload
    def __getitem__(self, index: int) -> Image.Image: ...

    @overload
    def __getitem__(self, index: slice) -> RedrawnImages: ...

    def __getitem__(self, index: int | slice) -> Image.Image | RedrawnImages:
        if isinstance(index, slice):
            return RedrawnImages(self._replay, self._numbers[index])
        return self._replay.image(self._numbers[index])


class _Replay:
    """A conversation's session, replayed as far as its images are needed."""

    def __init__(self, name: str, make: Callable[[], Any], turns: Sequence[dict], sizes: Sequence[Frame]):
        self.name, self.make, self.turns, self.sizes = name, make, turns, sizes
        self._session: Any = None

    def image(self, number: int) -> Image.Image:
        if self._session is None:
            self._session = self.make()
        session = self._session
        while len(session.images) <= number and len(session.events) < len(self.turns):
            turn = self.turns[len(session.events)]
            session.step(turn["text"], **({"lost": turn["lost"]} if turn.get("lost") else {}))
        found = session.images[number] if number < len(session.images) else None
        if found is None or found.size != self.sizes[number]:
            raise DataError(
                f"conversation {self.name}: drawn again, its image {number + 1} is "
                f"{'missing' if found is None else found.size}, not {self.sizes[number]}; a session must be "
                "deterministic"
            )
        return found
