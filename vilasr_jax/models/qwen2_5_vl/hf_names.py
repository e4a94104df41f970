"""Which tensor of a published Qwen2.5-VL is which of our weights."""

from collections.abc import Iterator, Mapping

from vilasr_jax.models.hf_tensors import HFTensor
from vilasr_jax.models.qwen2_5_vl.config import ModelConfig

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


def hf_tensors(config: ModelConfig, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[HFTensor]:
    """Every published tensor, in the order of the network; `shapes` are our weights' by path."""

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
