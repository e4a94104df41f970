"""Mapping between published tensors and our weights."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vilasr_jax.models import ModelConfig, family_of
from vilasr_jax.models.hf_tensors import HFTensor
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


def params_from_hf(config: ModelConfig, values: Callable[[HFTensor], np.ndarray]) -> nnx.State:
    """Our weights from published tensors, each read once, in the network's order, and dropped at once.

    Args:
      config: sizes, and the dtype of our weights.
      values: gives a tensor's values, of its published shape.

    Returns:
      The weights, as `nnx.split(model)[1]` of a model of that config.
    """
    abstract = abstract_params(config)
    arrays = {name: np.empty(leaf.shape, leaf.dtype) for name, leaf in named_leaves(abstract).items()}
    for tensor in hf_tensors(config):
        ours = tensor.to_ours(values(tensor))
        if tensor.layer is None:
            arrays[tensor.path][...] = ours
        else:
            arrays[tensor.path][tensor.layer] = ours
    leaves = nnx.to_flat_state(abstract)
    return nnx.from_flat_state(
        {
            path: variable.replace(jnp.asarray(arrays.pop("/".join(map(str, path)))))
            for path, variable in leaves
        }
    )
