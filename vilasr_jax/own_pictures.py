"""How a run resizes a user's own pictures and draws their targets, before it has begun."""

from __future__ import annotations

from pathlib import Path

from vilasr_jax.config import JobConfig
from vilasr_jax.conversation_settings import drawing_settings
from vilasr_jax.open_checkpoint import check_preset, run_family
from vilasr_jax.tasks.importers import Canvas
from vilasr_jax.training.wording import job_prompts


def run_canvas(job: JobConfig, workdir: Path) -> Canvas:
    """How pictures are resized and drawn on, for the model of a job.

    Args:
      job: the configuration of the run that will train on them.
      workdir: of the run, or a new folder; where it has weights, they say which model family reads the
        pictures.
    """
    family = run_family(job, workdir)
    check_preset(job, family)
    settings = drawing_settings(job, "vqa", job_prompts(job, workdir), family)
    return Canvas(settings, job.image.min_pixels, job.data.traces_pixels or job.image.max_pixels, family)
