"""Input throughput: rows per second of the data pipeline, compared with those of the training step.

The pipeline is timed alone, with one and with two encoding threads; the step is timed on ready batches;
then both run at once, and what the step waits for its next batch is measured. A row is a conversation,
or several of them where the config packs.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax

from vilasr_jax.config import JobConfig
from vilasr_jax.parallel import put_batch
from vilasr_jax.processing import Batch
from vilasr_jax.tasks.pipeline import batches
from vilasr_jax.training.optimizers import make_optimizer
from vilasr_jax.training.run import Run, open_run
from vilasr_jax.training.state import init_state
from vilasr_jax.training.steps import make_sft_step

WORKERS = (1, 2)
WARM = 2  # batches, before the clock starts
BATCHES = 12


def bench_input(job: JobConfig) -> dict[str, Any]:
    """Measures the config's cold start; prints and returns the figures."""
    with tempfile.TemporaryDirectory() as folder:
        run = open_run(job, Path(folder))
        figures: dict[str, Any] = {"rows_a_batch": job.cold_start.batch, "packed": job.packing.tokens > 0}
        for workers in WORKERS:
            figures[f"made_{workers}"] = _production_rate(_data(run, workers), job.cold_start.batch)
        figures |= _step(run, _data(run, WORKERS[-1]))
    for workers in WORKERS:
        print(f"produced, threads {workers}: {figures[f'made_{workers}']:,.1f} rows per second")
    print(
        f"consumed by the step: {figures['taken']:,.1f} rows a second, {figures['step_seconds']:.2f} s a step"
    )
    print(f"end to end: the step waits {figures['waiting']:.1%} of the time")
    return figures


def _data(run: Run, workers: int) -> Iterator[Batch]:
    sources, weights = run.examples.traces
    job = run.job
    return batches(
        sources,
        weights,
        seed=job.seed + 1,
        batch=job.cold_start.batch,
        buckets=run.batching.buckets,
        packing=run.batching.packing,
        lookahead=job.packing.lookahead,
        workers=workers,
    )


def _production_rate(data: Iterator[Batch], rows: int) -> float:
    """Rows per second of a pipeline with `rows` rows per batch, without the batches that were prefetched."""
    for _ in range(WARM + 4):
        next(data)
    began = time.perf_counter()
    for _ in range(BATCHES):
        next(data)
    return BATCHES * rows / (time.perf_counter() - began)


def _step(run: Run, data: Iterator[Batch]) -> dict[str, float]:
    """Times the step on ready batches, then with the pipeline running at the same time."""
    section = run.job.cold_start
    transform = make_optimizer(section.optimizer, 1000)
    state = init_state(run.model.initial_params(), transform, run.mesh, section.optimizer)
    step = make_sft_step(
        run.model.graphdef, transform, mesh=run.mesh, accumulate=section.accumulate, loss=section.loss
    )
    ready = [next(data) for _ in range(4)]

    def advance(state, batch):
        state, metrics = step(state, put_batch(run.mesh, batch))
        jax.block_until_ready(metrics)
        return state

    for batch in [*ready, *ready]:  # every shape is compiled
        state = advance(state, batch)
    began = time.perf_counter()
    for number in range(BATCHES):
        state = advance(state, ready[number % len(ready)])
    alone = (time.perf_counter() - began) / BATCHES
    waited, began = 0.0, time.perf_counter()
    for _ in range(BATCHES):
        before = time.perf_counter()
        batch = next(data)
        waited += time.perf_counter() - before
        state = advance(state, batch)
    elapsed = time.perf_counter() - began
    return {
        "step_seconds": alone,
        "taken": section.batch / alone,
        "waiting": waited / elapsed,
        "step_seconds_together": (elapsed - waited) / BATCHES,
    }
