"""How weights and activations lie on a mesh with the axes data, fsdp and model.

Letters: l layer, d width of the model, f width of an MLP, q query heads x head_dim, k key-value heads x
head_dim, v vocabulary, p values of a patch, w merged patch width, b batch, t tokens, s cache slots, h
head_dim.
"""

import dataclasses

import jax
from jax.sharding import PartitionSpec as P


@dataclasses.dataclass(frozen=True)
class Sharding:
    """One partition spec for each kind of array; None or a missing axis is not split."""

    embed_vd: P
    head_dv: P
    q_weight_ldq: P
    kv_weight_ldk: P
    o_weight_lqd: P
    mlp_in_ldf: P
    mlp_out_lfd: P
    vision_qkv_ldq: P  # q, k and v lie side by side: not split by heads
    vision_proj_lqd: P
    patch_embed_pd: P
    merger_in_ww: P
    merger_out_wd: P
    vector_ld: P  # norms and biases: whole on every device
    tokens_bt: P
    act_btd: P
    logits_btv: P
    cache_bksh: P


TRAINING = Sharding(
    embed_vd=P("model", "fsdp"),
    head_dv=P("fsdp", "model"),
    q_weight_ldq=P(None, "fsdp", "model"),
    kv_weight_ldk=P(None, "fsdp", "model"),
    o_weight_lqd=P(None, "model", "fsdp"),
    mlp_in_ldf=P(None, "fsdp", "model"),
    mlp_out_lfd=P(None, "model", "fsdp"),
    vision_qkv_ldq=P(None, "fsdp", None),
    vision_proj_lqd=P(None, None, "fsdp"),
    patch_embed_pd=P(None, "fsdp"),
    merger_in_ww=P("fsdp", "model"),
    merger_out_wd=P("model", "fsdp"),
    vector_ld=P(),
    tokens_bt=P(("data", "fsdp")),
    act_btd=P(("data", "fsdp")),
    logits_btv=P(("data", "fsdp"), None, "model"),
    cache_bksh=P(("data", "fsdp"), "model"),
)
# Sampling reads every weight at each token: no gathering over fsdp there, only tensor parallelism.
SAMPLING = Sharding(
    **{name: P(*(None if axis == "fsdp" else axis for axis in spec)) for name, spec in vars(TRAINING).items()}
)

_KERNELS = {
    "embed_tokens": "embed_vd",
    "lm_head": "head_dv",
    "q_proj": "q_weight_ldq",
    "k_proj": "kv_weight_ldk",
    "v_proj": "kv_weight_ldk",
    "o_proj": "o_weight_lqd",
    "gate_proj": "mlp_in_ldf",
    "up_proj": "mlp_in_ldf",
    "down_proj": "mlp_out_lfd",
    "qkv": "vision_qkv_ldq",
    "proj": "vision_proj_lqd",
    "patch_embed": "patch_embed_pd",
    "fc1": "merger_in_ww",
    "fc2": "merger_out_wd",
}


def partition_specs(params, sharding: Sharding = TRAINING):
    """A tree like `params` (or its `jax.eval_shape`) with the partition spec of each weight."""

    def spec(path, _):
        names = [str(getattr(key, "key", getattr(key, "name", key))) for key in path]
        kind = "vector_ld"
        if "kernel" in names or "embedding" in names:
            kind = next(_KERNELS[name] for name in reversed(names) if name in _KERNELS)
        return getattr(sharding, kind)

    return jax.tree_util.tree_map_with_path(spec, params)
