"""An invented second model family, unlike Qwen2.5-VL wherever the protocol lets a family choose.

Patches of 7 pixels and single frames, no windows, other pixel statistics; a vision tower of other modules;
positions that count tokens alone; coordinates from 0 to 1000; no default system message; weight names and a
config.json of its own; other special tokens and text around messages.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
from flax import nnx

from vilasr_jax.errors import CheckpointError
from vilasr_jax.models import ChatFormat, ImageSpec, ModelFamily
from vilasr_jax.models.hf_tensors import HFTensor
from vilasr_jax.models.qwen2_5_vl.config import ModelConfig, VisionConfig
from vilasr_jax.models.qwen2_5_vl.model import Qwen2_5_VL
from vilasr_jax.models.transformer.cache import init_cache
from vilasr_jax.models.transformer.config import override
from vilasr_jax.models.transformer.layers import Linear, RMSNorm

IMAGES = ImageSpec(
    patch_size=7,
    merge_size=2,
    temporal_patch_size=1,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    min_pixels=14 * 14,
    max_pixels=140 * 140,
)

CHAT = ChatFormat(
    marks={
        "im_start": "[BEGIN]",
        "im_end": "[END]",
        "endoftext": "[EOT]",
        "vision_start": "[IMAGE]",
        "vision_end": "[/IMAGE]",
        "image_pad": "[PATCH]",
        "video_pad": "[FRAME]",
    },
    special_tokens=("[EOT]", "[BEGIN]", "[END]", "[IMAGE]", "[/IMAGE]", "[PATCH]", "[FRAME]"),
    text_tokens=(),
    split=r"\s+|\S+",
    special_prefix="[",
    after_role=":\n",
    after_message="",
)


@dataclasses.dataclass(frozen=True)
class OtherConfig(ModelConfig):
    """Sizes; the language model is that of Qwen2.5-VL."""

    model_type = "other_vl"


TINY = OtherConfig(
    vocab_size=512,
    hidden_size=42,
    intermediate_size=37,
    num_layers=2,
    num_heads=3,
    num_kv_heads=1,
    head_dim=14,
    mrope_section=(2, 2, 3),
    tie_word_embeddings=True,
    vision=VisionConfig(
        depth=1,
        hidden_size=24,
        num_heads=1,
        patch_size=IMAGES.patch_size,
        temporal_patch_size=IMAGES.temporal_patch_size,
        spatial_merge_size=IMAGES.merge_size,
        out_hidden_size=42,
    ),
    init_std=0.3,
    dtype="float32",
    scan_unroll=2,
)


class OtherTower(nnx.Module):
    """Each patch by itself with its row and column, then four of them to a token."""

    def __init__(self, config, *, rngs):
        v = config.vision
        self.stem = Linear(v.patch_dim, v.hidden_size, config, bias=True, rngs=rngs)
        self.place = Linear(2, v.hidden_size, config, bias=False, rngs=rngs)
        self.merger_norm = RMSNorm(v.hidden_size, config, eps=v.rms_norm_eps)
        width = v.hidden_size * v.merge_unit
        self.merger_out = Linear(width, v.out_hidden_size, config, bias=True, rngs=rngs)

    def __call__(self, vision):
        """Pictures [b, n, p, ...] -> tokens [b, n * p / 4, d]."""
        b = vision.patches.shape[0]
        x = self.stem(vision.patches) + self.place(jnp.asarray(vision.pos_hw, jnp.float32) / 10)
        x = self.merger_norm(jnp.tanh(x))
        return self.merger_out(x.reshape(b, -1, IMAGES.merge_unit * x.shape[-1]))


class OtherVL(Qwen2_5_VL):
    """The language model of Qwen2.5-VL behind another vision tower."""

    def __init__(self, config, *, rngs):
        super().__init__(config, rngs=rngs)
        self.visual = OtherTower(config, rngs=rngs)


class OtherFamily(ModelFamily):
    """The family as the rest of the program knows it."""

    model_type = OtherConfig.model_type
    title = "Other-VL"
    config_class = OtherConfig
    presets = {"other_tiny": TINY}  # noqa: RUF012
    images = IMAGES
    coordinates = 1000
    chat = CHAT
    chat_template = "{{ messages }}"
    head_key = table_key = "words"
    kernels = {  # noqa: RUF012
        "embed_tokens": "embed_vd",
        "q_proj": "q_weight_ldq",
        "k_proj": "kv_weight_ldk",
        "v_proj": "kv_weight_ldk",
        "o_proj": "o_weight_lqd",
        "gate_proj": "mlp_in_ldf",
        "up_proj": "mlp_in_ldf",
        "down_proj": "mlp_out_lfd",
        "stem": "patch_embed_pd",
        "place": "patch_embed_pd",
        "merger_out": "merger_out_wd",
    }

    def override(self, config, **overrides):
        return override(config, **overrides)

    def build(self, config, rngs):
        return OtherVL(config, rngs=rngs)

    def init_cache(self, config, batch, max_len, dtype=None):
        return init_cache(config, batch, max_len, dtype)

    def positions(self, ids, grids, special, *, start=0, second_per_grid_ts=None, tokens_per_second=2):
        end = start + len(ids)
        return np.broadcast_to(np.arange(start, end, dtype=np.int32), (3, len(ids))), end

    def config_from_hf(self, config, *, where, **overrides):
        if "sizes" not in config:
            raise CheckpointError(f"{where}: sizes are missing")
        return OtherConfig(**{**config["sizes"], **overrides})

    def config_to_hf(self, config, *, layout, dtype=None):
        return {"model_type": self.model_type, "dtype": dtype, "sizes": dataclasses.asdict(config)}

    def preprocessor_config(self, config, min_pixels, max_pixels):
        return {"min_pixels": min_pixels, "max_pixels": max_pixels}

    def hf_tensors(self, config, shapes):
        for path, shape in shapes.items():
            layers = range(shape[0]) if "/layers/" in path else (None,)
            for layer in layers:
                own = shape if layer is None else shape[1:]
                key = "words" if "embed_tokens" in path else path.replace("/", ".")
                key = key if layer is None else f"layer{layer}.{key}"
                yield HFTensor(key, own[::-1] if path.endswith("/kernel") else own, path, layer)

    def published_name(self, key):
        return key

    def nested_name(self, key):
        return key

    def language_flops(self, config, tokens, rows, *, head=True):
        return 2.0 * rows * tokens * config.num_layers * config.hidden_size**2

    def vision_flops(self, config, patches, rows):
        return 2.0 * rows * patches * config.vision.patch_dim * config.vision.hidden_size

    def decode_flops(self, config, rows, cached):
        return self.language_flops(config, 1, rows)


OTHER = OtherFamily()
