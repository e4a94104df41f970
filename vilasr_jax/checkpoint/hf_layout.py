"""Mapping between published tensors and our weights."""

from collections.abc import Callable, Iterator
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vilasr_jax.models import ModelConfig, family_of
from vilasr_jax.models.hf_tensors import HFTensor, transposed
from vilasr_jax.models.params import abstract, path_names


def hf_tensors(config: ModelConfig) -> list[HFTensor]:
    """Every tensor of a published model of these sizes, in the order of the network."""
    shapes = {name: leaf.shape for name, leaf in named_leaves(abstract_params(config)).items()}
    return list(family_of(config).hf_tensors(config, shapes))


def abstract_params(config: ModelConfig) -> nnx.State:
    """Shapes and dtypes of the model's weights, without making them."""
    return abstract(config)[1]


def named_leaves(params) -> dict[str, jax.Array]:
    """Weights by path ("lm_head/kernel") of an NNX state or of nested or flat dicts."""
    leaves = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = path_names(path)
        leaves["/".join(names[:-1] if names[-1] == "value" else names)] = leaf
    return leaves


@runtime_checkable
class Weights(Protocol):
    """Stored weights of a model, read a part at a time: any block of ours, or rows of a published tensor."""

    config: ModelConfig  # sizes; values have the dtype `param_dtype`

    def read(self, tensor: HFTensor, rows: slice | None) -> np.ndarray:
        """Rows of a published tensor (a slice of its first axis; None: all)."""

    def block(self, path: str, index: tuple[slice, ...], shape: tuple[int, ...]) -> np.ndarray:
        """The values of `weight[index]`, where the weight `path` ("lm_head/kernel") has `shape`."""

    def layers(self, path: str, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        """The values of a stack [layer, ...] of `shape`, layer after layer, each read once."""

    def cuts(self, path: str) -> tuple[int, ...]:
        """The axes of a weight along which parts of it are read, the cheapest first."""


class PublishedWeights:
    """The `Weights` in published tensors.

    Args:
      config: sizes, and the dtype of our weights.
      read: `read(tensor, rows)` gives rows of a published tensor (a slice of its first axis; None: all).
    """

    def __init__(self, config: ModelConfig, read: Callable[[HFTensor, slice | None], np.ndarray]):
        self.config, self.read = config, read
        self.tensors: dict[str, list[HFTensor]] = {}  # of each weight; of a stack one per layer
        for tensor in hf_tensors(config):
            self.tensors.setdefault(tensor.path, []).append(tensor)

    def cuts(self, path: str) -> tuple[int, ...]:
        """The axis along which the rows of the published tensor run; then the layers, if it is a stack."""
        first = self.tensors[path][0]
        return (int(first.is_kernel),) if first.layer is None else (1 + first.is_kernel, 0)

    def block(self, path: str, index: tuple[slice, ...], shape: tuple[int, ...]) -> np.ndarray:
        """The values of `weight[index]`; of the published tensors only the rows in it are read.

        Args:
          path: of the weight, "lm_head/kernel".
          index: a slice of each axis.
          shape: of the weight.
        """
        tensors, stacked = self.tensors[path], self.tensors[path][0].layer is not None
        index = tuple(slice(*part.indices(size)) for part, size in zip(index, shape, strict=True))
        out = np.empty([part.stop - part.start for part in index], jnp.dtype(self.config.param_dtype))
        layers, own = (tensors[index[0]], index[1:]) if stacked else (tensors, index)
        for number, tensor in enumerate(layers):
            target = out[number] if stacked else out
            if tensor.is_kernel:  # the transpose: our columns are the tensor's rows
                rows = self.read(tensor, own[1])
                transposed(rows.reshape(len(rows), -1)[:, own[0]].astype(out.dtype, copy=False), target)
            else:
                target[...] = self.read(tensor, own[0])[(slice(None), *own[1:])]
        return out

    def layers(self, path: str, shape: tuple[int, ...]) -> Iterator[np.ndarray]:
        """The values of a stack of `shape`, a tensor at a time."""
        others = (slice(None),) * (len(shape) - 1)
        for layer in range(shape[0]):
            (values,) = self.block(path, (slice(layer, layer + 1), *others), shape)
            yield values


def params_from_hf(config: ModelConfig, values: Callable[[HFTensor], np.ndarray]) -> nnx.State:
    """Our weights from published tensors, each read once, weight by weight, and dropped at once.

    Args:
      config: sizes, and the dtype of our weights.
      values: gives a tensor's values, of its published shape.

    Returns:
      The weights, as `nnx.split(model)[1]` of a model of that config.
    """
    return load_weights(PublishedWeights(config, lambda tensor, rows: values(tensor)[rows]))


def load_weights(weights: Weights) -> nnx.State:
    """All weights on one device, each read and placed before the next; see `load_sharded` for a mesh."""

    def load(path: str, leaf: jax.ShapeDtypeStruct) -> jax.Array:
        return jnp.asarray(weights.block(path, (slice(None),) * len(leaf.shape), leaf.shape))

    return map_named(load, abstract_params(weights.config))


def map_named(call: Callable[[str, Any], Any], params: Any) -> Any:
    """A tree like `params` with `call(path, leaf)` of each weight; paths as in `named_leaves`."""
    leaves = {path: call(path, leaf) for path, leaf in named_leaves(params).items()}
    return jax.tree.unflatten(jax.tree.structure(params), leaves.values())
