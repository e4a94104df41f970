"""Which tensor of a published Qwen3-VL is which of our weights."""

from collections.abc import Iterator, Mapping

from vilasr_jax.models.hf_tensors import HFTensor
from vilasr_jax.models.qwen3_vl.config import ModelConfig
from vilasr_jax.models.transformer.hf_names import BLOCK_ATTENTION, DECODER, flat_name, nested_name, tensors

_PARTS = {"kernel": "weight", "bias": "bias"}
_NORM = {"scale": "weight", "bias": "bias"}


def _mlp(ours: tuple[str, str], ours_at: str, theirs_at: str) -> dict[str, str]:
    """Names of a pair of linear maps."""
    return {
        f"{ours_at}{mine}/{part}": f"{theirs_at}linear_fc{number}.{published}"
        for number, mine in enumerate(ours, 1)
        for part, published in _PARTS.items()
    }


_BLOCK = {
    **{f"{n}/{part}": f"{n}.{published}" for n in ("norm1", "norm2") for part, published in _NORM.items()},
    **BLOCK_ATTENTION,
    **_mlp(("up_proj", "down_proj"), "mlp/", "mlp."),
}
_DEEPSTACK = {
    **{f"norm/{part}": f"norm.{published}" for part, published in _NORM.items()},
    **_mlp(("up_proj", "down_proj"), "", ""),
}
_SINGLE = {
    "visual/patch_embed/kernel": "visual.patch_embed.proj.weight",
    "visual/patch_embed/bias": "visual.patch_embed.proj.bias",
    "visual/pos_embed/embedding": "visual.pos_embed.weight",
    **{f"visual/merger/norm/{part}": f"visual.merger.norm.{published}" for part, published in _NORM.items()},
    **_mlp(("fc1", "fc2"), "visual/merger/", "visual.merger."),
    "language_model/embed_tokens/embedding": "model.embed_tokens.weight",
    "language_model/norm/scale": "model.norm.weight",
    "lm_head/kernel": "lm_head.weight",
}


def published_name(key: str) -> str:
    """The published name of a key in any prefix style ("model.x" is "model.language_model.x")."""
    return nested_name(flat_name(key))


def hf_tensors(config: ModelConfig, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[HFTensor]:
    """Every published tensor, in the order of the network; `shapes` are our weights' by path."""
    v = config.vision
    patch_shape = (v.hidden_size, v.in_channels, v.temporal_patch_size, v.patch_size, v.patch_size)
    depths = len(v.deepstack_block_indexes)
    stacks = (
        ("visual/blocks/", "visual.blocks.", _BLOCK, v.depth),
        ("visual/deepstack_mergers/", "visual.deepstack_merger_list.", _DEEPSTACK, depths),
        ("language_model/layers/", "model.layers.", DECODER, config.num_layers),
    )
    return tensors(shapes, patch_shape, _SINGLE, stacks, nested_name)
