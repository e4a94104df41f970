"""Which published tensor is which of our weights, and how one is turned into the other."""

import dataclasses
import functools
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vilasr_jax.models.qwen2_5_vl import ModelConfig, Qwen2_5_VL

_BLOCK = 256  # rows transposed in one go: they stay in a core's cache
_NESTED_PREFIXES = (("model.language_model.", "model."), ("model.visual.", "visual."))
# What other versions and tools write.
_OLDER_PREFIXES = (
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("language_model.", "model."),
)
_WRAPPERS = ("base_model.model.", "module.", "_orig_mod.")  # PEFT, data parallel training, torch.compile

# Our path below a stack of layers, the published name below "layers.{i}.".
_DECODER = {
    "input_layernorm/scale": "input_layernorm.weight",
    "post_attention_layernorm/scale": "post_attention_layernorm.weight",
    **{f"{p}_proj/kernel": f"self_attn.{p}_proj.weight" for p in "qkvo"},
    **{f"{p}_proj/bias": f"self_attn.{p}_proj.bias" for p in "qkv"},
    **{f"mlp/{p}_proj/kernel": f"mlp.{p}_proj.weight" for p in ("gate", "up", "down")},
}
_VISION = {
    "norm1/scale": "norm1.weight",
    "norm2/scale": "norm2.weight",
    "qkv/kernel": "attn.qkv.weight",
    "qkv/bias": "attn.qkv.bias",
    "proj/kernel": "attn.proj.weight",
    "proj/bias": "attn.proj.bias",
    **{f"mlp/{p}_proj/kernel": f"mlp.{p}_proj.weight" for p in ("gate", "up", "down")},
    **{f"mlp/{p}_proj/bias": f"mlp.{p}_proj.bias" for p in ("gate", "up", "down")},
}
_SINGLE = {
    "visual/patch_embed/kernel": "visual.patch_embed.proj.weight",
    "visual/merger/ln_q/scale": "visual.merger.ln_q.weight",
    "visual/merger/fc1/kernel": "visual.merger.mlp.0.weight",
    "visual/merger/fc1/bias": "visual.merger.mlp.0.bias",
    "visual/merger/fc2/kernel": "visual.merger.mlp.2.weight",
    "visual/merger/fc2/bias": "visual.merger.mlp.2.bias",
    "language_model/embed_tokens/embedding": "model.embed_tokens.weight",
    "language_model/norm/scale": "model.norm.weight",
    "lm_head/kernel": "lm_head.weight",
}


@dataclasses.dataclass(frozen=True)
class HFTensor:
    """One published tensor and the place of its values in our weights."""

    key: str  # published name, "model.layers.3.mlp.up_proj.weight"
    shape: tuple[int, ...]  # as published
    path: str  # our weight, "language_model/layers/mlp/up_proj/kernel"
    layer: int | None  # index on the weight's leading axis, None when the weight is the tensor

    @property
    def is_kernel(self) -> bool:
        """Whether ours is the transpose: torch's [out, in] becomes [in, out]."""
        return self.path.endswith("/kernel")

    def to_ours(self, array: np.ndarray) -> np.ndarray:
        """Published values, or those of some rows, as our (one layer's) weight, or its columns."""
        return transposed(array.reshape(len(array), -1)) if self.is_kernel else array

    def to_hf(self, array: np.ndarray) -> np.ndarray:
        """Our (one layer's) weight, or some columns of it, as published, or its rows."""
        return transposed(array).reshape(-1, *self.shape[1:]) if self.is_kernel else array


def transposed(array: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """The transpose of a matrix, in memory of its own or in `out`; by blocks, on several cores."""
    out = np.empty(array.shape[::-1], array.dtype) if out is None else out
    bits = f"u{array.dtype.itemsize}"  # NumPy copies these faster than bfloat16
    source, target = array.view(bits), out.view(bits)

    def block(start: int) -> None:
        target[:, start : start + _BLOCK] = source[start : start + _BLOCK].T

    starts = range(0, len(array), _BLOCK)
    list(_threads().map(block, starts) if array.size > _BLOCK**2 else map(block, starts))
    return out


@functools.cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(8, os.cpu_count() or 1), "transpose")


def hf_tensors(config: ModelConfig) -> list[HFTensor]:
    """Every tensor of a published model of these sizes, in the order of the network."""
    shapes = {name: leaf.shape for name, leaf in named_leaves(abstract_params(config)).items()}
    return list(_tensors(config, shapes))


def published_name(key: str) -> str:
    """The published name of a key in any prefix style ("model.language_model.x" is "model.x")."""
    while wrapper := next((w for w in _WRAPPERS if key.startswith(w)), ""):
        key = key[len(wrapper) :]
    for nested, flat in (*_NESTED_PREFIXES, *_OLDER_PREFIXES):
        if key.startswith(nested):
            return flat + key[len(nested) :]
    return key


def nested_name(key: str) -> str:
    """The opposite of `published_name`."""
    for nested, flat in _NESTED_PREFIXES:
        if key.startswith(flat):
            return nested + key[len(flat) :]
    return key


def abstract_params(config: ModelConfig) -> nnx.State:
    """Shapes and dtypes of the model's weights, without making them."""
    return nnx.state(nnx.eval_shape(lambda: Qwen2_5_VL(config, rngs=nnx.Rngs(0))), nnx.Param)


def named_leaves(params) -> dict[str, jax.Array]:
    """Weights by path ("lm_head/kernel") of an NNX state or of nested or flat dicts."""
    leaves = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        names = [str(getattr(key, "key", getattr(key, "name", key))) for key in path]
        leaves["/".join(names[:-1] if names[-1] == "value" else names)] = leaf
    return leaves


def params_from_hf(config: ModelConfig, values: Callable[[HFTensor], np.ndarray]) -> nnx.State:
    """Our weights from published tensors, each asked for once, in the network's order, and dropped at once.

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
        {path: variable.replace(jnp.asarray(arrays.pop("/".join(path)))) for path, variable in leaves}
    )


def _tensors(config, shapes) -> Iterator[HFTensor]:
    def tensor(path, key, layer=None):
        shape = shapes[path] if layer is None else shapes[path][1:]
        if path.endswith("/kernel"):
            shape = shape[::-1]
        if path.startswith("visual/patch_embed/"):
            v = config.vision
            shape = (v.hidden_size, v.in_channels, v.temporal_patch_size, v.patch_size, v.patch_size)
        return HFTensor(key, tuple(shape), path, layer)

    stacks = (
        ("visual/blocks/", "visual.blocks.", _VISION, config.vision.depth),
        ("language_model/layers/", "model.layers.", _DECODER, config.num_layers),
    )
    for path, key in _SINGLE.items():
        if path in shapes:
            yield tensor(path, key)
    for path, key, names, count in stacks:
        for layer in range(count):
            for ours, theirs in names.items():
                yield tensor(path + ours, f"{key}{layer}.{theirs}", layer)
