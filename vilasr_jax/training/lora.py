r"""Low-rank adaptation (LoRA, arXiv 2106.09685): matrices are frozen and get a trained addition.

    W' = W + (alpha / rank) A B,   A [in, rank] random, B [rank, out] zero at first

W are the stacked kernels of the decoder's layers. W' is formed where the weights are used,
so that the model, the rollout engine and the export need no change: merging means storing W'. The
optimiser has state for A and B alone; the gradient still passes through all of W'.

With `lora_base="int8"` the frozen matrices, of all parts of the model, are int8 with a scale for each output.
W' is never formed: the products with W, A and B are summed (`products.AdaptedMatrix`).
"""

from __future__ import annotations

import zlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vilasr_jax.checkpoint.hf_layout import Weights, abstract_params, map_named
from vilasr_jax.models.params import is_decoder_kernel, is_matrix, is_token_table, path_names
from vilasr_jax.models.products import TRAINING_INT8, AdaptedMatrix, InferenceMatrix, pack
from vilasr_jax.models.sharding import param_shardings
from vilasr_jax.parallel import place

Factors = dict[str, dict[str, jax.Array]]  # kernel's path -> {"a": [l, in, rank], "b": [l, rank, out]}


class Base(NamedTuple):
    """What is not trained under LoRA."""

    params: Any
    scale: jax.Array  # [] float32, alpha / rank


def adapted(params: Any) -> dict[str, Any]:
    """The kernels that get an addition, by path: those of the decoder's stacked layers."""
    leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=_is_packed)
    return {_name(path): leaf for path, leaf in leaves if is_decoder_kernel(path)}


def int8_base(params: Any) -> Any:
    """The model's parameters, all matrices as int8; those that are stay as they are."""

    def packed(path, leaf):
        return leaf if _is_packed(leaf) or not _is_multiplied(path) else _packed(path, leaf)

    return jax.tree_util.tree_map_with_path(packed, params, is_leaf=_is_packed)


def has_int8(base: Base) -> bool:
    """Whether the frozen matrices are int8."""
    return any(map(_is_packed, jax.tree.leaves(base.params, is_leaf=_is_packed)))


def load_int8_base(source: Weights, mesh: Mesh) -> Any:
    """The `int8_base` of stored weights on `mesh`, read and packed a layer at a time.

    Raises:
      CheckpointError: a weight that can't be read or is not finite.
    """
    abstract = abstract_params(source.config)
    paths = {
        "/".join(name for name in path_names(path) if name != "value"): path
        for path, _ in jax.tree_util.tree_leaves_with_path(abstract)
    }
    places = param_shardings(jax.eval_shape(int8_base, abstract), mesh)
    targets = iter(jax.tree.leaves(places, is_leaf=_is_packed))
    packed = jax.jit(_packed, static_argnums=0)

    def on_host(path: tuple, values: np.ndarray) -> InferenceMatrix:
        return jax.device_get(packed(path, values))

    def load(name: str, leaf: jax.ShapeDtypeStruct) -> Any:
        path, target = paths[name], next(targets)
        if not _is_multiplied(path) or leaf.ndim == 2:
            values = source.block(name, (slice(None),) * leaf.ndim, leaf.shape)
            return place(on_host(path, values) if _is_multiplied(path) else values, target)
        stack = None
        for layer, values in enumerate(source.layers(name, leaf.shape)):
            one = on_host(path, values)
            if stack is None:
                stack = jax.tree.map(lambda x: np.empty((leaf.shape[0], *x.shape), x.dtype), one)
            for layers, values_of_one in zip(*map(jax.tree.leaves, (stack, one)), strict=True):
                layers[layer] = values_of_one
        return place(stack, target)

    return map_named(load, abstract)


def _packed(path: tuple, values: Any) -> InferenceMatrix:
    return pack(values, TRAINING_INT8, per_row=is_token_table(path))


def _is_multiplied(path: Any) -> bool:
    return is_matrix(path) or is_token_table(path)


def _is_packed(leaf: Any) -> bool:
    return isinstance(leaf, InferenceMatrix)


def new_factors(params: Any, rank: int) -> Factors:
    """Fresh factors: A from N(0, 1/in), by its kernel's name, and B zero."""

    def factors(name: str, kernel: Any) -> dict[str, jax.Array]:
        layers, d_in, d_out = kernel.shape
        key = jax.random.key(zlib.crc32(name.encode()) & 0x7FFFFFFF)
        a = jax.random.normal(key, (layers, d_in, rank), jnp.float32) * d_in**-0.5
        return {"a": a, "b": jnp.zeros((layers, rank, d_out), jnp.float32)}

    return {name: factors(name, kernel) for name, kernel in adapted(params).items()}


def merged(base: Base, factors: Factors) -> Any:
    """The model's parameters with the additions in them, or, where they are int8, next to them."""

    def add(path, leaf):
        pair = factors.get(_name(path))
        if pair is None:
            return leaf
        if isinstance(leaf, InferenceMatrix):
            return AdaptedMatrix(leaf, base.scale * pair["a"], pair["b"])
        addition = jnp.einsum("lir,lro->lio", pair["a"], pair["b"], precision="highest")
        return (leaf + base.scale * addition).astype(leaf.dtype)

    return jax.tree_util.tree_map_with_path(add, base.params, is_leaf=_is_packed)


def factor_shardings(params: Any, mesh: Mesh) -> dict[str, dict[str, NamedSharding]]:
    """Shardings of the factors: an axis of the kernel is split as there, the rank axis is replicated."""
    kernels = jax.tree.map(lambda leaf: leaf.values if _is_packed(leaf) else leaf, params, is_leaf=_is_packed)
    places = {
        _name(path): sharding
        for path, sharding in jax.tree_util.tree_leaves_with_path(param_shardings(kernels, mesh))
    }

    def both(name: str) -> dict[str, NamedSharding]:
        layer, d_in, d_out = (*places[name].spec, None, None, None)[:3]
        specs = {"a": PartitionSpec(layer, d_in, None), "b": PartitionSpec(layer, None, d_out)}
        return {key: NamedSharding(mesh, spec) for key, spec in specs.items()}

    return {name: both(name) for name in adapted(params)}


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
