"""Conversations sampled during training, on this host or on all hosts."""

from __future__ import annotations

import pickle
import zlib
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from vilasr_jax.config import JobConfig, SamplingSection
from vilasr_jax.errors import Stopped
from vilasr_jax.model_bundle import ModelBundle, make_engine
from vilasr_jax.parallel import alone, gather_bytes, host_rows
from vilasr_jax.rollout import Engine, Request, Trajectory, redrawn, without_images
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

    def sample_here(
        self,
        sampling: SamplingSection,
        params: Any,
        requests: Sequence[Request],
        key: jax.Array,
        progress: Callable[[int], None] | None = None,
        stoppable: bool = True,
    ) -> list[Trajectory]:
        """Samples conversations about all `requests` on this host's devices.

        Args:
          sampling: temperature and limits.
          params: the parameters, in the training layout.
          requests: the questions.
          key: see `Engine.generate`.
          progress: called with the number of finished conversations.
          stoppable: whether a stop request to this host ends the sampling.

        Raises:
          Stopped: after such a request; the conversations are lost.
        """

        def stop_or_report(done: int) -> None:
            if stoppable and interrupt.stop_requested_here():
                raise Stopped("stopped while conversations were sampled")
            if progress:
                progress(done)

        return self.engine(sampling).generate(params, requests, key, stop_or_report)

    def sample_on_all_hosts(
        self,
        sampling: SamplingSection,
        params: Any,
        requests: Sequence[Request],
        key: jax.Array,
        progress: Callable[[int], None] | None = None,
    ) -> list[Trajectory]:
        """Samples conversations, each host a part; every host gets all of them, in order (see `sample_here`).

        Those of other hosts come without images, which are drawn again where they are looked at.

        Raises:
          Stopped: after a stop request, on a single host; these conversations are discarded.
        """
        number, count = host_rows(self.mesh)
        if count == 1:
            return self.sample_here(sampling, params, requests, key, progress)
        mine = requests[number::count]
        found = deque(self.sample_here(sampling, params, mine, key, progress, stoppable=False))
        places = [(i, k) for i, request in enumerate(requests) for k in range(request.samples)]
        own = {at: found.popleft() for at, (i, _) in enumerate(places) if i % count == number}
        everyones = gather_conversations(own, lambda at: requests[places[at][0]])
        return [everyones[at] for at in range(len(places))]


def gather_conversations(
    mine: Mapping[int, Trajectory], request_of: Callable[[int], Request]
) -> dict[int, Trajectory]:
    """The conversations of all hosts, by number; every process must call this.

    No image travels: those of another host's conversation are drawn again when they are looked at.

    Args:
      mine: this host's, by numbers that no other host uses.
      request_of: the question of a conversation, by its number.
    """
    if alone():
        return dict(mine)
    found = dict(mine)
    for part in gather_bytes(pickle.dumps({at: without_images(one) for at, one in mine.items()})):
        found |= {
            at: redrawn(data, request_of(at)) for at, data in pickle.loads(part).items() if at not in mine
        }
    return found
