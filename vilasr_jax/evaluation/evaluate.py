"""Held-out questions, answered in full free-running conversations, scored and written down."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vilasr_jax.drawing import drawing_metrics, metric_sums
from vilasr_jax.evaluation.intervals import wilson_interval
from vilasr_jax.files import write_json
from vilasr_jax.rollout import Trajectory


def summarize(trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """Accuracy with its 95 % Wilson interval, and how much was drawn and corrected."""
    n = len(trajectories)
    right = sum(t.reward["accuracy"] == 1 for t in trajectories)
    low, high = wilson_interval(right, n)
    drawing = metric_sums([drawing_metrics(t.turns, t.row.get("truth", ())) for t in trajectories])
    return {
        "accuracy": right / n,
        "ci95": [low, high],
        "n": n,
        "drawings": float(np.mean([t.drawings for t in trajectories])),
        "drew": float(np.mean([t.drawings > 0 for t in trajectories])),
        "corrected": float(np.mean([t.corrected > 0 for t in trajectories])),
        "errors": float(np.mean([t.errors for t in trajectories])),
        "tokens": float(np.mean([t.loss_mask.sum() for t in trajectories])),
        "format": float(np.mean([t.reward["format"] for t in trajectories])),
        "drawing": {name: total / count for name, (total, count) in drawing.items()},
    }


def score_all(
    trajectories: Sequence[Trajectory], reward: Callable[[Trajectory], dict[str, float]]
) -> None:
    """Fills in every trajectory's reward parts."""
    for trajectory in trajectories:
        trajectory.reward = reward(trajectory)


def write_results(
    directory: Path, stage: str, trajectories: Sequence[Trajectory], scores: dict[str, Any], gallery: int
) -> None:
    """Writes `results.jsonl`, the pictures of the first `gallery` conversations, and `scores.json` last."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "images").mkdir(exist_ok=True)
    with (directory / "results.jsonl").open("w") as file:
        for number, trajectory in enumerate(trajectories):
            kept = trajectory if number < gallery else None
            file.write(json.dumps(_line(directory, stage, trajectory, kept is not None)) + "\n")
    write_json(directory / "scores.json", scores)


def _line(directory: Path, stage: str, trajectory: Trajectory, pictures: bool) -> dict[str, Any]:
    name = trajectory.id.replace("/", "-")

    def path(index: int) -> str:
        return f"images/{name}_{index}.png"

    if pictures:
        for index, image in enumerate(trajectory.images, 1):
            image.save(directory / path(index))
    row = trajectory.row
    return {
        "id": row["id"],
        "stage": stage,
        "question": row["question"],
        "options": row["options"],
        "answer": row["answer"],
        "prediction": trajectory.answer,
        "correct": trajectory.reward["accuracy"] == 1,
        "reward": trajectory.reward,
        "stop_reason": trajectory.stop_reason,
        "turns": [
            {
                "text": turn["text"],
                "calls": turn["calls"],
                "error": turn["error"],
                "images": [path(k) for k in turn["drawn"]] if pictures else [],
            }
            for turn in trajectory.turns
        ],
        "images": [path(k) for k in range(1, trajectory.base_images + 1)] if pictures else [],
        "drawings": trajectory.drawings,
        "corrected": trajectory.corrected,
        "drawing": drawing_metrics(trajectory.turns, row.get("truth", ())),
        "meta": {**row["meta"], "family": row["data_type"]},
    }
