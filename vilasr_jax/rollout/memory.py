"""Memory that a rollout needs on each device, computed before it is allocated."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from vilasr_jax.errors import ConfigError
from vilasr_jax.models import ModelConfig

GIB = 2**30


@dataclass(frozen=True)
class Memory:
    """Bytes a device; `str` of it is a sentence for a person."""

    slots: int  # live conversations a device
    tokens: int  # of each
    token_bytes: int  # keys and values of a token on a device
    cache: int
    parameters: int
    limit: int

    def __str__(self) -> str:
        return (
            f"{self.slots} conversations of {self.tokens} tokens x {self.token_bytes:,} bytes = "
            f"{self.cache / GIB:.3g} GiB of cache, and {self.parameters / GIB:.3g} GiB of parameters, "
            f"on each device (limit {self.limit / GIB:.3g} GiB)"
        )

    def check(self) -> None:
        """Raises ConfigError when cache and parameters are more than the limit."""
        if self.cache + self.parameters > self.limit:
            raise ConfigError(
                f"the rollout does not fit: {self}; together {(self.cache + self.parameters) / GIB:.3g} GiB. "
                "Lower engine.slots or sampling.max_tokens, or split the model over more devices (mesh.model)"
            )


def plan_memory(
    config: ModelConfig, slots: int, tokens: int, mesh: Mesh, params: Any, limit_gib: float = 0.0
) -> Memory:
    """The memory of `slots` conversations of `tokens` tokens on each data shard of the mesh.

    Args:
      config: the model's.
      slots: of one data shard, over all lanes.
      tokens: the longest conversation.
      mesh: this process's.
      params: as they are laid out for sampling.
      limit_gib: of a device; 0: the device's own, or an equal part of this machine's memory.
    """
    split = mesh.shape["model"] if config.num_kv_heads % mesh.shape["model"] == 0 else 1
    itemsize = jax.numpy.dtype(config.dtype).itemsize
    token = 2 * config.num_layers * config.num_kv_heads * config.head_dim * itemsize // split
    used = sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(params)
        if isinstance(leaf.sharding, NamedSharding) or leaf.is_fully_addressable
    )
    limit = int(limit_gib * GIB) or _device_limit(mesh)
    return Memory(slots, tokens, token, slots * tokens * token, used, limit)


def _device_limit(mesh: Mesh) -> int:
    stats = mesh.local_devices[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return machine // len(mesh.local_devices)
