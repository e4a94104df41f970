"""Trace synthesis: a teacher answers questions by drawing, and a published rule filters its traces.

The teacher is the run's last finished stage, or `config.model.init_from` where nothing is trained. Its traces
have the layout of imported conversations, so that `config.data.traces` of another run can name the folder.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from rich.progress import Progress

from vilasr_jax.drawing import joined
from vilasr_jax.drawing.prompts import FILE
from vilasr_jax.errors import DataError
from vilasr_jax.files import write_json
from vilasr_jax.model_bundle import ModelBundle
from vilasr_jax.parallel import barrier, from_writer, is_writer
from vilasr_jax.rollout import Trajectory, messages_of
from vilasr_jax.tasks.stored import IMAGE_MARK, INDEX, StoredRow, png_bytes
from vilasr_jax.training.run import Run
from vilasr_jax.training.trajectory_dataset import sample_shards, write_funnel


def run_synthesis(run: Run, params: Any, progress: Progress) -> Path:
    """Samples the traces of the teacher `params` into `<workdir>/traces`; returns that folder.

    Raises:
      DataError: no trace passed the rule.
    """
    section, folder = run.job.synthesis, run.workdir / "traces"
    if from_writer((folder / INDEX).exists):
        return folder
    paths, funnel = sample_shards(
        run,
        params,
        progress,
        stage="synthesis",
        section=section,
        rule=section.rule,
        path=lambda number, _: folder / f"rows-{number:05d}.array_record",
        record=lambda trajectory: stored_row(trajectory, run.model).to_bytes(),
    )
    write_funnel(folder, funnel)
    if not paths:
        raise DataError(
            f"synthesis: none of {funnel['sampled']} sampled conversations passed the rule "
            f"config.synthesis.rule={section.rule}; {folder / 'funnel.json'} says where they were lost"
        )
    shards = [path.name for path in paths]
    if is_writer():
        index = {"format": "traces", "rows": funnel["kept"], "shards": shards, **funnel}
        write_json(folder / FILE, dataclasses.asdict(run.model.prompts))
        write_json(folder / INDEX, index)
    barrier("traces")
    return folder


def stored_row(trajectory: Trajectory, model: ModelBundle) -> StoredRow:
    """A sampled conversation in the layout of an imported one, its images as PNG."""
    row = trajectory.row
    messages = [
        {"role": message["role"], "content": joined(message, IMAGE_MARK)}
        for message in messages_of(trajectory, model.tokenizer)
    ]
    return StoredRow(
        id=trajectory.id,
        question=row["question"],
        answer=row["answer"],
        question_type=row["question_type"],
        options=tuple(row["options"]),
        images=tuple(map(png_bytes, trajectory.images_in_tokens)),
        data_type=row["data_type"],
        meta=row["meta"],
        messages=tuple(messages),
        coordinates=model.family.coordinates,
        actions=model.job.drawing.actions,
        seconds=tuple(row.get("seconds", ())),
    )
