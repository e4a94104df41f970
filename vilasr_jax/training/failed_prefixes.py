"""Recovery training: some questions of an RL step begin in the middle of a conversation that went wrong.

The turns of a failed conversation up to some point are replayed, and the model continues from there (VRRL,
arXiv 2607.02490). The replayed turns are part of the prompt, so they are masked: the model is rewarded for
getting out of the mistake, not for making it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging

from vilasr_jax.rollout import Request, Trajectory


@dataclasses.dataclass(frozen=True)
class FailedPrefix:
    """The first turns of a failed conversation about the question that `source` names (see `Row.source`)."""

    source: tuple[str, int]
    texts: tuple[str, ...]

    def to_json(self) -> list[Any]:
        """For a checkpoint: [name, number, texts]."""
        return [*self.source, list(self.texts)]

    @classmethod
    def from_json(cls, value: Sequence[Any]) -> FailedPrefix:
        """Reads what `to_json` wrote."""
        return cls((str(value[0]), int(value[1])), tuple(value[2]))


def read_pool(values: Iterable[Sequence[Any]]) -> list[FailedPrefix]:
    """The prefixes of a checkpoint. Those of earlier versions began with a number, which did not say what the
    question was: they are left out, with a line in the log."""
    values = list(values)
    pool = [FailedPrefix.from_json(value) for value in values if isinstance(value[0], str)]
    if len(pool) < len(values):
        logging.warning(
            "recovery: %d failed conversations that an earlier version saved do not name their question and "
            "are not replayed",
            len(values) - len(pool),
        )
    return pool


class ResumedSession:
    """A drawing session whose first turns are replayed; `messages` holds them."""

    def __init__(self, session: Any, texts: Sequence[str]):
        self.session, self.messages = session, list(session.messages)
        for text in texts:
            reply = session.step(text)
            self.messages += [{"role": "assistant", "content": text}, reply.message]

    def __getattr__(self, name: str) -> Any:
        if name == "session":  # while it is being unpickled
            raise AttributeError(name)
        return getattr(self.session, name)


def resumed(request: Request, prefix: FailedPrefix) -> Request:
    """The request, beginning after the turns of `prefix`."""
    return dataclasses.replace(request, session=lambda: ResumedSession(request.session(), prefix.texts))


def failed_prefix(trajectory: Trajectory, rng: np.random.Generator) -> FailedPrefix | None:
    """A random number of the first turns of a conversation without a right answer.

    None when it was right, when not even its first turn drew something and had the right format (what breaks
    the format can't earn a reward any more), or when its row does not say how to find the question again.
    """
    source = trajectory.row.get("source")
    if trajectory.reward["accuracy"] > 0 or source is None:
        return None
    sound = 0
    for turn in trajectory.turns[:-1]:
        if not _sound(turn):
            break
        sound += 1
    if not sound:
        return None
    return FailedPrefix((source[0], source[1]), tuple(trajectory.texts[: int(rng.integers(1, sound + 1))]))


def _sound(turn: Mapping[str, Any]) -> bool:
    return bool(turn["drawn"]) and turn["error"] is None and turn.get("strict_format", True)
