"""Evaluation: free-running conversations about held-out questions and benchmarks, saved and scored.

Everything that a score depends on (prompt, limits, pixels, frames, sampling, scorers) is saved with it.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from absl import logging
from PIL import Image

from vilasr_jax.config import JobConfig, to_dict
from vilasr_jax.drawing.prompts import PromptSet
from vilasr_jax.errors import DataError
from vilasr_jax.evaluation import ResultsFile, result_line, score_all, score_lines, summarize
from vilasr_jax.evaluation.score_file import SKIPPED
from vilasr_jax.files import write_json
from vilasr_jax.models import DEFAULT_PRESET
from vilasr_jax.parallel import barrier, from_writer, is_writer
from vilasr_jax.rollout import Trajectory
from vilasr_jax.tasks import Row, chance
from vilasr_jax.tasks.rows import Source
from vilasr_jax.tasks.stored import DecodedRows, StoredRows, read_index
from vilasr_jax.training.imported_rows import Imported
from vilasr_jax.training.questions import Questions
from vilasr_jax.training.row_filter import LOGGED, usable_everywhere
from vilasr_jax.training.run import Run

SCORES, MODEL, IMAGES = "scores.json", "model.json", "images"


def is_evaluated(folder: Path, of: dict[str, Any], last_step: int | None = None) -> bool:
    """Whether `folder` holds the finished scores of the model `of` ({"stage", "step"}).

    Earlier versions did not note the model: their results in a folder named like the stage are of its
    `last_step`. Their benchmark scores are computed again, as they were read leniently.
    """
    if not (folder / SCORES).exists():
        return False
    if (folder / MODEL).exists():
        return json.loads((folder / MODEL).read_text()) == of
    return folder.name == of["stage"] and of["step"] == last_step and "benchmark" not in of


def begin_evaluation(folder: Path, of: dict[str, Any]) -> None:
    """Notes in `folder` which model is evaluated there; results of another one are deleted, not continued."""
    if is_writer():
        note = folder / MODEL
        if folder.exists() and not (note.exists() and json.loads(note.read_text()) == of):
            for path in folder.iterdir():
                if path.is_file():
                    path.unlink()
                elif path.name == IMAGES:
                    shutil.rmtree(path)
        write_json(folder / MODEL, of)
    barrier("evaluation")


def evaluate(
    run: Run,
    params: Any,
    rows: Sequence[Row],
    folder: Path,
    name: str,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Samples conversations about `rows`; writes results and scores into `folder`.

    Args:
      run: the job and its parts.
      params: parameters of the model to evaluate.
      rows: the questions.
      folder: gets `results.jsonl`, `scores.json` and images; a stopped evaluation resumes there.
      name: the stage in the results.
      progress: called with the number of finished conversations.
    """
    lines = _answer(run, params, rows, folder, name, progress)
    scores = summarize(lines)
    scores["chance"] = chance(rows)
    for name_of_part, key in (("families", "family"), ("kinds", "kind"), ("parts", "unlike")):
        values = sorted({row.meta[key] for row in rows if key in row.meta})
        if len(values) > 1 or key == "unlike":
            scores[name_of_part] = {value: _part(rows, lines, key, value) for value in values}
    scores |= _left_out(lines)
    scores["sampling"] = to_dict(run.job.eval.sampling)
    scores["settings"] = settings_of(run.job, run.model.prompts)
    _write_scores(folder, scores)


def evaluate_benchmark(
    run: Run,
    params: Any,
    source: Path,
    folder: Path,
    name: str,
    progress: Callable[[int], None] | None = None,
) -> None:
    """Samples conversations about the imported benchmark in `source`, and scores them as published.

    As in the published evaluation, a conversation that repeats a drawing is not ended. See `evaluate` for the
    arguments.
    """
    index = read_index(source)
    rows = run.tasks.imported.decoded("benchmarks", StoredRows([source]))
    lines = _answer(run, params, rows, folder, name, progress, stop_on_repeat=False)
    scored = score_lines(lines, index["format"])
    data = {"format": index["format"], "source": index.get("source"), "rows": index["rows"]}
    if index.get("broken"):
        data["left_out_at_import"] = index["broken"]
        lost = index["broken"]
        logging.warning("%s: %d questions were left out at import and are in no score", source, lost)
    scores = {
        **scored.to_dict(),
        **{key: value for key, value in summarize(lines).items() if key != "pass_at_k"},
        **_left_out(lines),
        "settings": {**settings_of(run.job, run.model.prompts, "benchmarks"), "data": data},
    }
    _write_scores(folder, scores)


def _write_scores(folder: Path, scores: dict[str, Any]) -> None:
    if is_writer():
        model = {"model": json.loads((folder / MODEL).read_text())} if (folder / MODEL).exists() else {}
        write_json(folder / SCORES, {**scores, **model})


def settings_of(job: JobConfig, prompts: PromptSet, use: str = "") -> dict[str, Any]:
    """The settings that a score depends on: prompts, limits, pixels, frames, sampling.

    Args:
      job: the configuration.
      prompts: the prompt of the run.
      use: the key of `config.data` whose rows are evaluated; "" for rows of the tasks.
    """
    image = job.image
    least, most = Imported(job).pixels(use) if use else (image.min_pixels, image.max_pixels)
    return {
        "prompt": {"variant": prompts.name, "sha256": prompts.sha256, "source": prompts.source},
        "style": job.drawing.style,
        **({"actions": job.drawing.actions} if job.drawing.actions != "published" else {}),
        "tools": list(job.drawing.tools) if job.cold_start.format == "drawing" else [],
        "max_turns": job.drawing.max_turns,
        "maze_turns": job.drawing.maze_turns or job.drawing.max_turns,
        "max_images": job.drawing.max_images,
        "stop_on_repeat": not use,  # benchmarks run as published
        "min_pixels": least,
        "max_pixels": most,
        "frames": job.data.frames,
        "sampling": to_dict(job.eval.sampling),
        "samples": job.eval.samples,
        "seed": job.seed,
        "model": {
            "preset": job.model.preset or ("" if job.model.init_from else DEFAULT_PRESET),
            "init_from": job.model.init_from,
            "dtype": job.model.dtype,
            "weights": job.engine.weights or job.model.dtype,
        },
    }


def _answer(
    run: Run,
    params: Any,
    rows: Source[Row],
    folder: Path,
    name: str,
    progress: Callable[[int], None] | None,
    stop_on_repeat: bool = True,
) -> list[dict[str, Any]]:
    """Conversations about every question as lines of `results.jsonl`; lines already in the file stay."""
    section = run.job.eval
    samples = section.samples
    results = ResultsFile(folder, section.shard * samples)
    done = min(from_writer(results.begin) // samples, len(rows))
    shown = 0  # wrong or corrected conversations with pictures, beyond the first ones
    if done and is_writer():
        shown = sum(bool(line["images"]) for line in results.read()[section.gallery :])
    if 0 < done < len(rows) and is_writer():
        print(f"eval: {name}: resuming after {done} answered questions of {len(rows)}", file=sys.stderr)
    for first in range(done, len(rows), section.shard):
        numbers = range(first, min(first + section.shard, len(rows)))
        some = usable_everywhere(
            rows, numbers, lambda row: run.questions.check_request(row, section.sampling)
        )
        for refused in (row for row in some if isinstance(row, DataError)):
            logging.warning("left out, counts as wrong: %s", refused)
        if not any(isinstance(row, Row) for row in some) and len(rows) == len(some):
            raise DataError(f"{folder}: none of {len(rows)} questions can be used; the first: {some[0]}")
        requests = [
            run.questions.request(row, number * samples, samples, stop_on_repeat)
            for row, number in zip(some, numbers, strict=True)
            if isinstance(row, Row)
        ]
        answered = iter(
            run.rollouts.sample_on_all_hosts(
                section.sampling,
                params,
                requests,
                run.rollouts.key("eval"),
                None if progress is None else partial(_report, progress, first * samples),
            )
            if requests
            else ()
        )
        trajectories = [
            next(answered) if isinstance(row, Row) else _empty(run.questions, rows, number, sample)
            for row, number in zip(some, numbers, strict=True)
            for sample in range(samples)
        ]
        score_all(trajectories, run.reward)
        if is_writer():
            lines = []
            for number, trajectory in enumerate(trajectories, first * samples):
                pictured = number < section.gallery
                if not pictured and shown < section.gallery and is_instructive(trajectory):
                    pictured, shown = True, shown + 1
                line = result_line(
                    trajectory,
                    run.model.tokenizer,
                    stage=name,
                    model_id=f"{run.job.name}/{name}",
                    image_folder=folder / IMAGES if pictured else None,
                )
                lines.append(line)
            results.append(lines)
        barrier("results")
    return results.read()


def is_instructive(trajectory: Trajectory) -> bool:
    """Whether a scored conversation is wrong, or corrected a drawing: one that a reader looks for."""
    return trajectory.reward["accuracy"] < 1 or trajectory.corrected > 0


def _report(progress: Callable[[int], None], before: int, n: int) -> None:
    progress(before + n)


def _empty(questions: Questions, rows: Source[Row], number: int, sample: int) -> Trajectory:
    """The empty conversation of a row that can't be used."""
    try:
        row = rows.stored[number].words() if isinstance(rows, DecodedRows) else rows[number]
    except DataError:  # not even its words can be read
        kind = {"original_question_type": "unreadable"}
        row = Row(f"number {number}", "", "", "multiple choice", (), (), "vqa", kind)
    none = np.zeros(0)
    tokens, mask = none.astype(np.int32), none.astype(bool)
    record = questions.request(row).row
    return Trajectory(
        f"{row.id}/{sample}", tokens, mask, none.astype(np.float32), [], [], SKIPPED, 0, 0, record
    )


def _left_out(lines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The questions that could not be used, for the scores."""
    ids = list(dict.fromkeys(line["id"] for line in lines if line["stop_reason"] == SKIPPED))
    return {SKIPPED: {"count": len(ids), "first": ids[:LOGGED]}} if ids else {}


def _part(rows: Sequence[Row], lines: Sequence[dict[str, Any]], key: str, value: str) -> dict[str, Any]:
    """Scores of the rows whose `meta[key]` is this value."""
    scores = summarize([line for line in lines if line["meta"].get(key) == value])
    return {**scores, "chance": chance([row for row in rows if row.meta.get(key) == value])}


def blank(row: Row) -> Row:
    """The row with white images, which shows how many answers need no image."""
    return dataclasses.replace(row, images=tuple(Image.new("RGB", i.size, "white") for i in row.images))
