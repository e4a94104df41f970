"""The reward function of a job, built from its configuration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from vilasr_jax.config import JobConfig
from vilasr_jax.rewards.rule import RewardSettings, score


class SampledConversation(Protocol):
    """What a reward reads of a trajectory: the assistant's texts, the session's turns, the question."""

    turns: list[dict]
    row: dict

    @property
    def texts(self) -> Sequence[str]:
        """The assistant turns, in order."""


@dataclass(frozen=True)
class JobReward:
    """Scores finished conversations under one job's weights; call it with a trajectory."""

    settings: RewardSettings

    @classmethod
    def from_config(cls, job: JobConfig) -> JobReward:
        """The reward that `rl.rewards` and `rl.must_draw` describe."""
        weights: Mapping[str, Any] = job.rl.rewards
        return cls(
            RewardSettings(
                accuracy_weight=weights.get("accuracy", 0.0),
                format_weight=weights.get("format", 0.0),
                must_draw=job.rl.must_draw,
                extra=tuple(item for item in weights.items() if item[0] not in ("accuracy", "format")),
                tools=job.drawing.tools if job.cold_start.format == "drawing" else (),
                actions=job.drawing.actions,
            )
        )

    def __call__(self, trajectory: SampledConversation) -> dict[str, float]:
        """The parts of the reward by name, and their "total"; see `score`."""
        question = trajectory.row
        return score(
            trajectory.texts,
            trajectory.turns,
            answer=question["answer"],
            question_type=question["question_type"],
            options=question["options"],
            meta=question["meta"],
            settings=self.settings,
        )
