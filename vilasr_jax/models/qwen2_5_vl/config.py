"""Sizes and choices of one Qwen2.5-VL model, and the presets under which they are published."""

import dataclasses
from typing import ClassVar

from vilasr_jax.models.images import ImageSpec
from vilasr_jax.models.transformer.config import TransformerConfig, VisionSizes

WINDOW_SIZE = 112
IMAGES = ImageSpec(
    patch_size=14,
    merge_size=2,
    temporal_patch_size=2,
    mean=(0.48145466, 0.4578275, 0.40821073),  # CLIP's
    std=(0.26862954, 0.26130258, 0.27577711),
    min_pixels=56 * 56,
    max_pixels=28 * 28 * 1280,
    window_size=WINDOW_SIZE,
)


@dataclasses.dataclass(frozen=True)
class VisionConfig(VisionSizes):
    """The vision tower: patches in, one language-model embedding for each merged 2x2 block out."""

    depth: int = 32  # blocks
    hidden_size: int = 1280
    intermediate_size: int = 3420
    num_heads: int = 16
    in_channels: int = 3
    patch_size: int = IMAGES.patch_size  # pixels per side
    temporal_patch_size: int = IMAGES.temporal_patch_size  # frames a patch; a still image is repeated
    spatial_merge_size: int = IMAGES.merge_size  # patches per side that become one token
    window_size: int = WINDOW_SIZE  # pixels per side of an attention window
    fullatt_block_indexes: tuple[int, ...] = (7, 15, 23, 31)  # the other blocks attend inside windows
    out_hidden_size: int = 3584  # width of the language model
    tokens_per_second: int = 2  # temporal M-RoPE steps per second of video
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6

    def __post_init__(self):
        object.__setattr__(self, "fullatt_block_indexes", tuple(self.fullatt_block_indexes))

    @property
    def window_patches(self) -> int:
        """Patches of a full attention window."""
        return (self.window_size // self.patch_size) ** 2


@dataclasses.dataclass(frozen=True)
class ModelConfig(TransformerConfig):
    """Sizes of the model, by default those of Qwen2.5-VL-7B."""

    model_type: ClassVar[str] = "qwen2_5_vl"
    vision_class: ClassVar[type] = VisionConfig
    qkv_bias: ClassVar[bool] = True
    vocab_size: int = 152064
    hidden_size: int = 3584
    intermediate_size: int = 18944
    num_layers: int = 28
    num_heads: int = 28
    num_kv_heads: int = 4
    vision: VisionConfig = VisionConfig()


PRESETS = {
    "tiny": ModelConfig(
        vocab_size=512,
        hidden_size=96,
        intermediate_size=256,
        num_layers=3,
        num_heads=4,
        num_kv_heads=2,
        head_dim=24,
        mrope_section=(4, 4, 4),
        max_position_embeddings=32768,
        vision=VisionConfig(
            depth=2,
            hidden_size=48,
            intermediate_size=128,
            num_heads=2,
            fullatt_block_indexes=(1,),
            out_hidden_size=96,
        ),
        init_std=None,
        dtype="float32",
        scan_unroll=3,
    ),
    "3b": ModelConfig(
        vocab_size=151936,
        hidden_size=2048,
        intermediate_size=11008,
        num_layers=36,
        num_heads=16,
        num_kv_heads=2,
        tie_word_embeddings=True,
        vision=VisionConfig(out_hidden_size=2048),
    ),
    "7b": ModelConfig(),
    "32b": ModelConfig(
        hidden_size=5120,
        intermediate_size=27648,
        num_layers=64,
        num_heads=40,
        num_kv_heads=8,
        vision=VisionConfig(intermediate_size=3456, out_hidden_size=5120),
    ),
    "72b": ModelConfig(
        hidden_size=8192,
        intermediate_size=29568,
        num_layers=80,
        num_heads=64,
        num_kv_heads=8,
        vision=VisionConfig(intermediate_size=3456, out_hidden_size=8192),
    ),
}


PUBLISHED_SIZES = ("3b", "7b", "32b", "72b")
