"""Conversations sampled during training, on this host or on all hosts."""

from __future__ import annotations

import pickle
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from vilasr_jax.config import JobConfig, SamplingSection
from vilasr_jax.errors import Stopped
from vilasr_jax.model_bundle import ModelBundle, make_engine
from vilasr_jax.parallel import gather_bytes, host_rows
from vilasr_jax.rollout import Engine, Request, Trajectory
from vilasr_jax.training import interrupt


class Rollouts:
    """Samples a job's conversations, with one engine a sampling setting.

    Args:
      job: the configuration.
      model: whose conversations are sampled.
      mesh: where the parameters are; each host samples on its own devices.
    """

    def __init__(self, job: JobConfig, model: ModelBundle, mesh: Mesh):
        self.job, self.model, self.mesh = job, model, mesh
        self.engines: dict[SamplingSection, Engine] = {}

    def engine(self, sampling: SamplingSection) -> Engine:
        """The rollout engine of a sampling setting; compiled once."""
        if sampling not in self.engines:
            section, patches = self.job.engine, self.job.buckets.patches
            self.engines[sampling] = make_engine(self.model, section, sampling, patches, self.mesh)
        return self.engines[sampling]

    def key(self, purpose: str, step: int = 0) -> jax.Array:
        """The random key of a purpose's step, from the job's seed."""
        key = jax.random.fold_in(jax.random.key(self.job.seed), zlib.crc32(purpose.encode()) & 0x7FFFFFFF)
        return jax.random.fold_in(key, step)

    def sample(
        self,
        sampling: SamplingSection,
        params: Any,
        requests: Sequence[Request],
        key: jax.Array,
        progress: Callable[[int], None] | None = None,
    ) -> list[Trajectory]:
        """Samples conversations about all `requests` on this host's devices.

        Args:
          sampling: temperature and limits.
          params: the parameters, in the training layout.
          requests: the questions.
          key: see `Engine.generate`.
          progress: called with the number of finished conversations.
        """
        return self.engine(sampling).generate(params, requests, key, progress)

    def generate(
        self,
        sampling: SamplingSection,
        params: Any,
        requests: Sequence[Request],
        key: jax.Array,
        progress: Callable[[int], None] | None = None,
    ) -> list[Trajectory]:
        """Samples conversations, each host a part; every host gets all of them, in order (see `sample`).

        Raises:
          Stopped: after a stop request, on a single host; these conversations are discarded.
        """
        number, count = host_rows(self.mesh)
        if count == 1:

            def stop_or_report(done: int) -> None:
                if interrupt.stop_requested_here():
                    raise Stopped("stopped while conversations were sampled")
                if progress:
                    progress(done)

            return self.sample(sampling, params, requests, key, stop_or_report)
        mine = self.sample(sampling, params, requests[number::count], key, progress)
        everyones = gather_bytes(pickle.dumps([t.to_bytes() for t in mine]))
        parts = [deque(pickle.loads(data)) for data in everyones]
        found: list[Trajectory] = []
        for i, request in enumerate(requests):
            part = parts[i % count]
            found += [Trajectory.from_bytes(part.popleft()) for _ in range(request.samples)]
        return found
