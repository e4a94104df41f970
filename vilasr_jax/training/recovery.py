"""Recovery training: some questions of an RL step begin in the middle of a conversation that went wrong.

The turns of a failed conversation up to some point are replayed, and the model goes on from there (VRRL,
arXiv 2607.02490). The replayed turns are part of the prompt, so they are masked: the model is rewarded for
getting out of the mistake, not for making it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vilasr_jax.rollout import Request, Trajectory


@dataclasses.dataclass(frozen=True)
class Prefix:
    """The first turns of a failed conversation about the RL split's row `number` from seed `first` on."""

    first: int
    number: int
    texts: tuple[str, ...]

    def to_json(self) -> list[Any]:
        """For a checkpoint."""
        return [self.first, self.number, list(self.texts)]

    @classmethod
    def from_json(cls, value: Sequence[Any]) -> Prefix:
        """Reads what `to_json` wrote."""
        return cls(int(value[0]), int(value[1]), tuple(value[2]))


class ResumedSession:
    """A drawing session that has already heard some turns; `messages` holds them."""

    def __init__(self, session: Any, texts: Sequence[str]):
        self.session, self.messages = session, list(session.messages)
        for text in texts:
            reply = session.step(text)
            self.messages += [{"role": "assistant", "content": text}, reply.message]

    def __getattr__(self, name: str) -> Any:
        if name == "session":  # while it is being unpickled
            raise AttributeError(name)
        return getattr(self.session, name)


def resumed(request: Request, prefix: Prefix) -> Request:
    """The request, beginning after the turns of `prefix`."""
    return dataclasses.replace(request, session=lambda: ResumedSession(request.session(), prefix.texts))


def failed_prefix(
    first: int, number: int, trajectory: Trajectory, rng: np.random.Generator
) -> Prefix | None:
    """A random number of the first turns of a conversation without a right answer.

    None when it was right, or when not even its first turn drew something and kept to the format (what breaks
    the format can't earn a reward any more).
    """
    if trajectory.reward["accuracy"] > 0:
        return None
    sound = 0
    for turn in trajectory.turns[:-1]:
        if not _sound(turn):
            break
        sound += 1
    if not sound:
        return None
    return Prefix(first, number, tuple(trajectory.texts[: int(rng.integers(1, sound + 1))]))


def _sound(turn: Mapping[str, Any]) -> bool:
    return bool(turn["drawn"]) and turn["error"] is None and turn.get("strict_format", True)
