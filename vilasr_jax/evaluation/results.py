"""`results.jsonl`: one answered question a line, in the layout of the published results file.

    {question, options, problem_type, original_question_type, data_type, image_path, answer, grid_size,
     conversations: [{role, content}], model_output, model_id, sample_dir}

and also what the report and the scores need: id, sample, stage, prediction, score, correct, reward,
stop_reason, turns, images, drawings, corrected, errors, tokens, meta. The file grows by complete shards:
a stopped evaluation resumes after the last one and ends with the same file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from vilasr_jax.drawing import drawing_metrics, joined
from vilasr_jax.errors import DataError
from vilasr_jax.evaluation.scorers import score_answer
from vilasr_jax.files import write_json
from vilasr_jax.processing import Tokenizer
from vilasr_jax.rollout import Trajectory, messages_of

IMAGE = "<|vision_start|><|image_pad|><|vision_end|>"  # how published results mark an image


class ResultsFile:
    """`results.jsonl` of a folder, written `shard` lines at a time."""

    def __init__(self, folder: Path, shard: int):
        self.path, self.shard = folder / "results.jsonl", shard

    def __len__(self) -> int:
        """The number of lines."""
        if not self.path.exists():
            return 0
        with self.path.open("rb") as file:
            return sum(1 for _ in file)

    def begin(self) -> int:
        """Removes an incomplete last shard; returns the number of lines left."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            return 0
        ends, size = [0], 0
        with self.path.open("rb") as file:
            for line in file:
                size += len(line)
                if line.endswith(b"\n"):
                    ends.append(size)
        complete = (len(ends) - 1) // self.shard * self.shard
        with self.path.open("ab") as file:
            file.truncate(ends[complete])
        return complete

    def append(self, lines: Iterable[dict[str, Any]]) -> None:
        """Adds a shard's lines."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    def read(self) -> list[dict[str, Any]]:
        """Reads every line."""
        with self.path.open(encoding="utf-8") as file:
            return [json.loads(line) for line in file]


def write_results(folder: Path, lines: Sequence[dict[str, Any]], scores: Mapping[str, Any]) -> None:
    """Writes a folder's `results.jsonl` in one go, and `scores.json` last."""
    results = ResultsFile(folder, len(lines) + 1)
    results.begin()
    results.append(lines)
    write_json(folder / "scores.json", scores)


def figures(trajectory: Trajectory) -> dict[str, Any]:
    """The values of a scored conversation that `summarize` needs."""
    return {
        "id": trajectory.row["id"],
        "correct": trajectory.reward["accuracy"] == 1,
        "reward": trajectory.reward,
        "drawings": trajectory.drawings,
        "corrected": trajectory.corrected,
        "errors": trajectory.errors,
        "tokens": int(trajectory.loss_mask.sum()),
        "drawing": drawing_metrics(trajectory.turns, trajectory.row.get("truth", ())),
    }


def result_line(
    trajectory: Trajectory, tokenizer: Tokenizer, *, stage: str, model_id: str, image_folder: Path | None
) -> dict[str, Any]:
    """One line about a scored conversation; with `image_folder` all its images are saved there."""
    name = trajectory.id.replace("/", "-")
    folder = image_folder.name if image_folder else ""

    def path(index: int) -> str:
        return f"{folder}/{name}_{index}.png"

    if image_folder:
        image_folder.mkdir(parents=True, exist_ok=True)
        for index, image in enumerate(trajectory.images, 1):
            image.save(image_folder / f"{name}_{index}.png")
    row, meta = trajectory.row, trajectory.row["meta"]
    given = [path(k) for k in range(1, trajectory.base_images + 1)] if image_folder else []
    shown = iter(range(1, len(trajectory.images) + 1))
    prediction = trajectory.answer
    return {
        "question": row["question"],
        "options": row["options"],
        "problem_type": row["question_type"],
        "original_question_type": meta.get("original_question_type"),
        "data_type": row["data_type"],
        "image_path": meta.get("image_path", given),
        "answer": row["answer"],
        "grid_size": meta.get("grid_size"),
        "conversations": [
            _message(message, [path(next(shown)) if image_folder else None for _ in _images(message)])
            for message in messages_of(trajectory, tokenizer)
        ],
        "model_output": trajectory.texts[-1] if trajectory.texts else "",
        "model_id": model_id,
        "sample_dir": image_folder.name if image_folder else None,
        "sample": int(trajectory.id.rsplit("/", 1)[-1]),
        "stage": stage,
        "prediction": prediction,
        "score": _score(prediction, trajectory),
        **figures(trajectory),
        "stop_reason": trajectory.stop_reason,
        "turns": [
            {
                "text": turn["text"],
                "calls": turn["calls"],
                "error": turn["error"],
                "images": [path(k) for k in turn["drawn"]] if image_folder else [],
            }
            for turn in trajectory.turns
        ],
        "images": given,
        "meta": {**meta, "family": meta.get("family") or row["data_type"]},
    }


def _score(prediction: str | None, trajectory: Trajectory) -> float:
    """The published score; of a question type that has none, the reward's accuracy."""
    try:
        return score_answer(prediction, trajectory.row["answer"], trajectory.row["question_type"])
    except DataError:
        return trajectory.reward["accuracy"]


def _images(message: dict[str, Any]) -> list[dict[str, Any]]:
    return [part for part in message["content"] if part["type"] == "image"]


def _message(message: dict[str, Any], paths: list[str | None]) -> dict[str, Any]:
    """A message as published: plain text, or a user's images and then the text that marks their places."""
    text = joined(message, IMAGE)
    if not paths:
        return {"role": message["role"], "content": text}
    content = [{"type": "image", "image": path} for path in paths]
    return {"role": message["role"], "content": [*content, {"type": "text", "text": text}]}
