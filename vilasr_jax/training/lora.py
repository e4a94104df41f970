r"""Low-rank adaptation (LoRA, arXiv 2106.09685): matrices are frozen and get a trained addition.

    W' = W + (alpha / rank) A B,   A [in, rank] random, B [rank, out] zero at first

W are the stacked kernels of the decoder's layers. W' is formed where the weights are used,
so that the model, the rollout engine and the export need no change: merging means storing W'. The
optimiser has state for A and B alone; the gradient still passes through all of W'.
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vilasr_jax.models.params import is_decoder_kernel
from vilasr_jax.models.sharding import param_shardings

Factors = dict[str, dict[str, jax.Array]]  # kernel's path -> {"a": [l, in, rank], "b": [l, rank, out]}


class Base(NamedTuple):
    """What is not trained under LoRA."""

    params: Any
    scale: jax.Array  # [] float32, alpha / rank


def adapted(params: Any) -> dict[str, Any]:
    """The kernels that get an addition, by path: those of the decoder's stacked layers."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    return {_name(path): leaf for path, leaf in leaves if is_decoder_kernel(path)}


def new_factors(params: Any, rank: int) -> Factors:
    """Fresh factors: A from N(0, 1/in), by its kernel's name, and B zero."""

    def factors(name: str, kernel: Any) -> dict[str, jax.Array]:
        layers, d_in, d_out = kernel.shape
        key = jax.random.key(zlib.crc32(name.encode()) & 0x7FFFFFFF)
        a = jax.random.normal(key, (layers, d_in, rank), jnp.float32) * d_in**-0.5
        return {"a": a, "b": jnp.zeros((layers, rank, d_out), jnp.float32)}

    return {name: factors(name, kernel) for name, kernel in adapted(params).items()}


def merged(base: Base, factors: Factors) -> Any:
    """The model's parameters with the additions in them."""

    def add(path, leaf):
        pair = factors.get(_name(path))
        if pair is None:
            return leaf
        addition = jnp.einsum("lir,lro->lio", pair["a"], pair["b"], precision="highest")
        return (leaf + base.scale * addition).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(add, base.params)


def factor_shardings(params: Any, mesh: Mesh) -> dict[str, dict[str, NamedSharding]]:
    """Shardings of the factors: an axis of the kernel is split as there, the rank axis is replicated."""
    places = {
        _name(path): place
        for path, place in jax.tree_util.tree_leaves_with_path(param_shardings(params, mesh))
    }

    def both(name: str) -> dict[str, NamedSharding]:
        layer, d_in, d_out = (*places[name].spec, None, None, None)[:3]
        specs = {"a": PartitionSpec(layer, d_in, None), "b": PartitionSpec(layer, None, d_out)}
        return {key: NamedSharding(mesh, spec) for key, spec in specs.items()}

    return {name: both(name) for name in adapted(params)}


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
