"""Memory that a rollout needs on each device, from the shapes of what it allocates."""

from __future__ import annotations

from typing import Any

from jax.sharding import Mesh

from vilasr_jax.config import EngineSection
from vilasr_jax.parallel.memory import Account, local_bytes

SAMPLING_WEIGHTS = "weights for sampling"
ADVICE = "Lower engine.slots or sampling.max_tokens, or split the model over more devices (mesh.model)"


def shard_slots(engine: EngineSection, mesh: Mesh) -> int:
    """Slots of a lane on one data shard, of the engine's slots over all lanes and the shards of all hosts."""
    return -(-engine.slots // (engine.lanes * mesh.shape["data"] * mesh.shape["fsdp"]))


def rollout_parts(params: Any, state: Any, lanes: int, slots: int, tokens: int) -> dict[str, int]:
    """Bytes on each device, by name.

    Args:
      params: the weights as they are laid out for sampling: arrays, or shapes with shardings.
      state: `RolloutState` of one lane, likewise.
      lanes: each has a state of its own.
      slots: live conversations of a device, over all lanes.
      tokens: of each, at most.
    """
    cache = local_bytes(state.cache)
    each = lanes * cache // (slots * tokens)
    return {
        f"{slots} conversations of {tokens} tokens x {each:,} bytes": lanes * cache,
        SAMPLING_WEIGHTS: local_bytes(params),
        "state of turns": lanes * (local_bytes(state) - cache),
    }


def rollout_account(parts: dict[str, int], limit: int) -> Account:
    """The account of a rollout alone."""
    return Account("rollout", parts, limit, ADVICE)
