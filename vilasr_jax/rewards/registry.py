"""Rewards by name: each a function of one finished conversation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vilasr_jax.drawing import ParsedTurn
from vilasr_jax.errors import ConfigError


@dataclass(frozen=True)
class Finished:
    """A finished conversation, as a reward sees it.

    `turns` are the assistant turns as read; `events` what the drawing session noted for each (empty when
    there was none); `question_type`, `answer`, `options` and `meta` are the row's.
    """

    turns: tuple[ParsedTurn, ...]
    events: tuple[Mapping[str, Any], ...]
    answer: str
    question_type: str = "multiple choice"
    options: tuple[str, ...] = ()
    meta: Mapping[str, Any] = field(default_factory=dict)

    @property
    def prediction(self) -> str | None:
        """The text of `<answer>` in the last turn. A number or letter elsewhere is no answer."""
        return self.turns[-1].answer if self.turns else None

    @property
    def drawings(self) -> int:
        """Number of images that were drawn (`Trajectory.drawings` counts turns)."""
        return sum(_count(event.get("drawn")) for event in self.events)

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The drawing calls as plain data in pixels: as the session noted them, else as parsed."""
        noted = [event.get("calls") for event in self.events]
        calls: list[dict[str, Any]] = []
        for number, turn in enumerate(self.turns):
            own = noted[number] if number < len(noted) else None
            read = [call.to_dict() for call in turn.calls]
            calls += own if isinstance(own, list) and len(own) == len(read) else read
        return calls


Reward = Callable[[Finished], float]
_REWARDS: dict[str, Reward] = {}


def register(name: str) -> Callable[[Reward], Reward]:
    """Adds a reward under `name`; it returns 0 to 1 for a `Finished`.

    A second registration of the same function name, as when a notebook's cell or a config file is run twice,
    replaces the first.
    """

    def add(reward: Reward) -> Reward:
        known = _REWARDS.get(name)
        if known is not None and known.__qualname__ != reward.__qualname__:
            raise ConfigError(f"reward {name!r} is registered twice; choose another name")
        _REWARDS[name] = reward
        return reward

    return add


def get_reward(name: str) -> Reward:
    """The reward registered as `name`; ConfigError for an unknown name."""
    if name not in _REWARDS:
        raise ConfigError(f"no reward named {name!r}; there are: {', '.join(sorted(_REWARDS))}")
    return _REWARDS[name]


def reward_names() -> Sequence[str]:
    """All registered names."""
    return sorted(_REWARDS)


def _count(drawn: Any) -> int:
    return len(drawn) if isinstance(drawn, (list, tuple)) else int(drawn or 0)
