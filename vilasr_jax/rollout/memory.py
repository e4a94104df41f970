"""Memory that a rollout needs on each device, from the shapes of what it allocates."""

from __future__ import annotations

from typing import Any

from jax.sharding import Mesh

from vilasr_jax.config import EngineSection
from vilasr_jax.parallel.memory import Account, local_bytes
from vilasr_jax.rollout.compiled_steps import CompiledSteps
from vilasr_jax.rollout.sampling_weights import SamplingLayout

SAMPLING_WEIGHTS = "weights for sampling"
ADVICE = "Lower engine.slots or sampling.max_tokens, or split the model over more devices (mesh.model)"


def shard_slots(engine: EngineSection, mesh: Mesh) -> int:
    """Slots of a lane on one data shard, of the engine's slots over all lanes and the shards of all hosts."""
    return -(-engine.slots // (engine.lanes * mesh.shape["data"] * mesh.shape["fsdp"]))


def rollout_memory(
    steps: CompiledSteps, layout: SamplingLayout, engine: EngineSection, params: Any
) -> dict[str, int]:
    """Bytes on each device of all that conversations need, by name.

    Args:
      steps: create the state of each lane.
      layout: of the weights for sampling, held once for all lanes.
      engine: slots and lanes.
      params: the weights in any layout; shapes are enough.
    """
    slots, tokens = shard_slots(engine, layout.mesh), steps.sampling.max_tokens
    state = steps.abstract_state(slots * steps.shards, tokens)
    cache = engine.lanes * local_bytes(state.cache)
    each = cache // (engine.lanes * slots * tokens)
    return {
        f"{engine.lanes * slots} conversations of {tokens} tokens x {each:,} bytes": cache,
        SAMPLING_WEIGHTS: local_bytes(layout.abstract(params)),
        "state of turns": engine.lanes * local_bytes(state) - cache,
    }


def rollout_account(parts: dict[str, int], limit: int) -> Account:
    """The account of a rollout alone."""
    return Account("rollout", parts, limit, ADVICE)
