"""The total reward of a conversation, from its parts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from absl import logging

from vilasr_jax.drawing import PUBLISHED, ActionFormat, ParsedTurn, get_format, get_tools
from vilasr_jax.rewards.registry import Finished, get_reward


@dataclass(frozen=True)
class RewardSettings:
    """The published rule by default; the other parts are off.

    A part that is off costs nothing; `extra` gives a weight to any other registered reward.
    """

    accuracy_weight: float = 0.5
    format_weight: float = 0.5
    drawing_weight: float = 0.0  # for rows that come with right drawings
    repeat_penalty: float = 0.0  # subtracted for turns that only repeat a drawing
    must_draw: bool = False  # an answer without any drawing gets nothing
    extra: tuple[tuple[str, float], ...] = ()
    tools: tuple[str, ...] = PUBLISHED  # () where the model may only write
    actions: str = "published"  # the form of actions, see `drawing.formats`

    def weights(self) -> dict[str, float]:
        """Weight of each part that counts."""
        parts = {
            "accuracy": self.accuracy_weight,
            "format": self.format_weight,
            "drawing": self.drawing_weight,
            "repeat": -self.repeat_penalty,
            **dict(self.extra),
        }
        return {name: w for name, w in parts.items() if w or name in ("accuracy", "format")}


def score(
    texts: Sequence[str],
    events: Sequence[Mapping[str, Any]] = (),
    *,
    answer: str,
    question_type: str = "multiple choice",
    options: Sequence[str] = (),
    meta: Mapping[str, Any] | None = None,
    settings: RewardSettings = RewardSettings(),
) -> dict[str, float]:
    r"""Scores one conversation by its assistant turns; nothing a model writes makes it raise.

    $$R = \begin{cases} \sum_p w_p r_p & r_\text{accuracy} > 0 \\ 0 & \text{else} \end{cases}$$

    with $w = 0.5$ for accuracy and for format as published (arXiv 2506.09965), never below 0.

    Args:
      texts: the assistant turns, in order.
      events: what `DrawingSession.events` noted for them; `drew`, `must_draw` and the repeat penalty need
      them.
      answer, question_type, options, meta: the row's fields.
      settings: weights.

    Returns:
      Each part (0 to 1), `drew` (1 when anything was drawn) and `total`.

    >>> score(["<think>up, then left</think> Action: Answer\n<answer>B</answer>"], answer="B")
    {'accuracy': 1.0, 'format': 1.0, 'drew': 0.0, 'total': 1.0}
    """
    weights = settings.weights()
    rewards = {name: get_reward(name) for name in weights}  # raises on a wrong name
    tools, form = get_tools(settings.tools), get_format(settings.actions)
    done = Finished(
        turns=tuple(_read(text, form, tools) for text in texts),
        events=tuple(events),
        answer=answer,
        question_type=question_type,
        options=tuple(options),
        meta=meta or {},
    )
    parts = {name: _value(name, reward, done) for name, reward in rewards.items()}
    drew = float(done.drawings > 0)
    total = max(0.0, sum(weights[name] * value for name, value in parts.items()))
    if parts["accuracy"] <= 0 or (settings.must_draw and not drew):
        total = 0.0
    return {**parts, "drew": drew, "total": total}


def _read(text: Any, form: ActionFormat, tools: Sequence[Any]) -> ParsedTurn:
    return form.parse(text if isinstance(text, str) else "", tools)


def _value(name: str, reward: Any, done: Finished) -> float:
    """The value of a reward; 0 and a warning in the log when a user's own function raises."""
    try:
        value = float(reward(done))
    except Exception as error:
        logging.warning("reward %r failed (%s: %s); counted as 0", name, type(error).__name__, error)
        return 0.0
    return value if value == value else 0.0
