"""The key-value cache of generation: one array a layer, a length of its own for each row.

slot      0 1 2 3 4 5 6 7
row 0     p p p p g g . .     length 6     p: prompt, g: generated, . : free
row 1     p p g . . . . .     length 3
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Int32

from vilasr_jax.models.transformer.config import TransformerConfig


class KVCache(NamedTuple):
    """Keys and values of what has been read, layer by layer."""

    k: tuple[Float[Array, "b kv s h"], ...]  # a layer; in this order attention reads it without a transpose
    v: tuple[Float[Array, "b kv s h"], ...]
    length: Int32[Array, " b"]  # slots filled in each row

    @property
    def max_len(self) -> int:
        """Slots in each row."""
        return self.k[0].shape[2]

    def copy_rows(self, other: "KVCache", rows: Int[Array, " m"], source: Int[Array, " m"]) -> "KVCache":
        """This cache with rows `rows` [m] begun by rows `source` [m] of `other`, which may be shorter.

        A row past the last is dropped.
        """
        t = other.max_len

        def copy(ours: Array, new: Array) -> Array:
            return ours.at[rows, :, :t].set(new[source], mode="drop")

        return KVCache(
            k=tuple(map(copy, self.k, other.k)),
            v=tuple(map(copy, self.v, other.v)),
            length=self.length.at[rows].set(other.length[source], mode="drop"),
        )


def init_cache(config: TransformerConfig, batch: int, max_len: int, dtype: Any = None) -> KVCache:
    """An empty cache of `max_len` slots for each of `batch` rows; dtype is the config's unless given."""
    shape = (batch, config.num_kv_heads, max_len, config.head_dim)

    def zeros() -> tuple[Array, ...]:
        return tuple(jnp.zeros(shape, dtype or config.dtype) for _ in range(config.num_layers))

    return KVCache(zeros(), zeros(), jnp.zeros((batch,), jnp.int32))


def write_slots(length: Int[Array, " b"], valid: Bool[Array, "b t"], max_len: int) -> Int[Array, "b t"]:
    """The slot [b, t] of each new token: length, length + 1, ...; `max_len` (so: dropped) where not valid."""
    slots = length[:, None] + jnp.arange(valid.shape[1])
    return jnp.where(valid, slots, max_len)


def write(
    cached: Float[Array, "b kv s h"], new: Float[Array, "b t kv h"], slots: Int[Array, "b t"]
) -> Float[Array, "b kv s h"]:
    """cached [b, kv, s, h] with new [b, t, kv, h] at slots [b, t]; a slot past the end is dropped."""
    rows = jnp.arange(cached.shape[0])[:, None]
    return cached.at[rows, :, slots].set(new.astype(cached.dtype), mode="drop", unique_indices=True)
