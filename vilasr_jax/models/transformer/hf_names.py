"""Published names of a decoder's tensors, and the walk through all tensors of a model."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from vilasr_jax.models.hf_tensors import HFTensor

# How a key begins in a folder of transformers 5, and in the older folders.
NESTED_PREFIXES = (("model.language_model.", "model."), ("model.visual.", "visual."))
# What other versions and tools write.
OLDER_PREFIXES = (
    ("language_model.model.", "model."),
    ("language_model.lm_head.", "lm_head."),
    ("language_model.", "model."),
)
WRAPPERS = ("base_model.model.", "module.", "_orig_mod.")  # PEFT, data parallel training, torch.compile

# Our path below a stack of layers, the published name below "layers.{i}.".
DECODER = {
    "input_layernorm/scale": "input_layernorm.weight",
    "post_attention_layernorm/scale": "post_attention_layernorm.weight",
    **{f"{p}_proj/kernel": f"self_attn.{p}_proj.weight" for p in "qkvo"},
    **{f"{p}_proj/bias": f"self_attn.{p}_proj.bias" for p in "qkv"},
    **{f"{p}_norm/scale": f"self_attn.{p}_norm.weight" for p in "qk"},
    **{f"mlp/{p}_proj/kernel": f"mlp.{p}_proj.weight" for p in ("gate", "up", "down")},
}
BLOCK_ATTENTION = {
    "qkv/kernel": "attn.qkv.weight",
    "qkv/bias": "attn.qkv.bias",
    "proj/kernel": "attn.proj.weight",
    "proj/bias": "attn.proj.bias",
}


def flat_name(key: str) -> str:
    """A key in any prefix style, in the older one ("model.language_model.x" is "model.x")."""
    while wrapper := next((w for w in WRAPPERS if key.startswith(w)), ""):
        key = key[len(wrapper) :]
    for nested, flat in (*NESTED_PREFIXES, *OLDER_PREFIXES):
        if key.startswith(nested):
            return flat + key[len(nested) :]
    return key


def nested_name(key: str) -> str:
    """The opposite of `flat_name`: "model.x" is "model.language_model.x"."""
    for nested, flat in NESTED_PREFIXES:
        if key.startswith(flat):
            return nested + key[len(flat) :]
    return key


def tensors(
    shapes: Mapping[str, tuple[int, ...]],
    patch_shape: tuple[int, ...],
    single: Mapping[str, str],
    stacks: Sequence[tuple[str, str, Mapping[str, str], int]],
    name: Callable[[str], str] = lambda key: key,
) -> Iterator[HFTensor]:
    """Every published tensor, in the order of the network; weights that `shapes` lacks are left out.

    Args:
      shapes: our weights' by path.
      patch_shape: of the patch embedding's published kernel, [out, channels, frames, rows, columns].
      single: published keys of weights without layers, by path.
      stacks: (prefix of our paths, prefix of the published keys, names below them, number of layers).
      name: from keys in the older prefix style to published ones.
    """

    def tensor(path: str, key: str, layer: int | None = None) -> HFTensor:
        shape = shapes[path] if layer is None else shapes[path][1:]
        if path.endswith("/kernel"):
            shape = shape[::-1]
        if path == "visual/patch_embed/kernel":
            shape = patch_shape
        return HFTensor(name(key), tuple(shape), path, layer)

    for path, key in single.items():
        if path in shapes:
            yield tensor(path, key)
    for path, key, names, count in stacks:
        for layer in range(count):
            for ours, theirs in names.items():
                if path + ours in shapes:
                    yield tensor(path + ours, f"{key}{layer}.{theirs}", layer)
