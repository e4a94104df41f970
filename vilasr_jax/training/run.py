"""A run: one job in its workdir on a mesh of devices, and the parts that its stages need."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

from jax.sharding import Mesh

from vilasr_jax.config import JobConfig
from vilasr_jax.parallel import make_mesh
from vilasr_jax.rewards import JobReward
from vilasr_jax.rollout import Trajectory
from vilasr_jax.training.batching import Batching
from vilasr_jax.training.examples import Examples
from vilasr_jax.training.imported_rows import Imported
from vilasr_jax.training.job_model import JobModel
from vilasr_jax.training.questions import Questions, Tasks
from vilasr_jax.training.rollouts import Rollouts
from vilasr_jax.training.stages import Stages


@dataclasses.dataclass
class Run:
    """The parts of a run; each reads files and compiles only when it is used.

    Attributes:
      job, workdir, mesh: what is run, in which folder, on which devices.
      model: description, tokenizer, and parameters before training.
      tasks: the task families; generate rows.
      questions: of each stage, and the requests about them.
      batching: shapes of training batches, and the batches.
      examples: of the supervised stages.
      rollouts: sampled conversations.
      reward: the parts of a finished conversation's reward.
      stages: folders and checkpoints of the trained stages.
    """

    job: JobConfig
    workdir: Path
    mesh: Mesh
    model: JobModel
    tasks: Tasks
    questions: Questions
    batching: Batching
    examples: Examples
    rollouts: Rollouts
    reward: Callable[[Trajectory], dict[str, float]]
    stages: Stages


def open_run(job: JobConfig, workdir: Path, mesh: Mesh | None = None, profile: int = 0) -> Run:
    """The parts of a job in `workdir`, which need not exist yet.

    Args:
      job: the configuration.
      workdir: the run's folder.
      mesh: by default over all devices, as `job.mesh` says.
      profile: steps of each stage that the JAX profiler traces.
    """
    mesh = make_mesh(job.mesh) if mesh is None else mesh
    tasks = Tasks(job, Imported(job, lambda: model.family), lambda: model.family)
    model = JobModel(job, workdir, mesh, tasks)
    rollouts = Rollouts(job, model, mesh)
    batching, stages = Batching(job, model, mesh), Stages(job, workdir, model, profile)
    return Run(
        job=job,
        workdir=workdir,
        mesh=mesh,
        model=model,
        tasks=tasks,
        # the engine is looked up at each call: tests replace it
        questions=Questions(job, workdir, tasks, model, lambda sampling: rollouts.engine(sampling)),
        batching=batching,
        examples=Examples(job, workdir, tasks, model, batching, stages),
        rollouts=rollouts,
        reward=JobReward.from_config(job),
        stages=stages,
    )
