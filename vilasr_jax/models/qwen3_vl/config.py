"""Sizes and choices of one Qwen3-VL model, and the presets under which they are published."""

import dataclasses
from typing import ClassVar

from vilasr_jax.models.images import ImageSpec
from vilasr_jax.models.transformer.config import TransformerConfig, VisionSizes

IMAGES = ImageSpec(
    patch_size=16,
    merge_size=2,
    temporal_patch_size=2,
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    min_pixels=256 * 256,
    max_pixels=4096 * 4096,
)


@dataclasses.dataclass(frozen=True)
class VisionConfig(VisionSizes):
    """The vision tower: patches in, 1 + k language-model embeddings for each merged 2x2 block out."""

    depth: int = 27  # blocks
    hidden_size: int = 1152
    intermediate_size: int = 4304
    num_heads: int = 16
    in_channels: int = 3
    patch_size: int = IMAGES.patch_size  # pixels per side
    temporal_patch_size: int = IMAGES.temporal_patch_size  # frames a patch; a still image is repeated
    spatial_merge_size: int = IMAGES.merge_size  # patches per side that become one token
    position_side: int = 48  # rows and columns of the learned table of positions
    deepstack_block_indexes: tuple[int, ...] = (8, 16, 24)  # their outputs go to the decoder's first layers
    out_hidden_size: int = 4096  # width of the language model
    tokens_per_second: int = 2  # unused: the texts before a clip's frames state their time
    rope_theta: float = 10000.0
    layer_norm_eps: float = 1e-6

    def __post_init__(self):
        object.__setattr__(self, "deepstack_block_indexes", tuple(self.deepstack_block_indexes))


@dataclasses.dataclass(frozen=True)
class ModelConfig(TransformerConfig):
    """Sizes of the model, by default those of Qwen3-VL-8B."""

    model_type: ClassVar[str] = "qwen3_vl"
    vision_class: ClassVar[type] = VisionConfig
    qk_norm: ClassVar[bool] = True
    rope_theta: float = 5_000_000.0
    mrope_section: tuple[int, int, int] = (24, 20, 20)
    max_position_embeddings: int = 262_144
    vision: VisionConfig = VisionConfig()

    def own_checks(self) -> tuple[tuple[bool, str], ...]:
        blocks, (time, *others) = self.vision.deepstack_block_indexes, self.mrope_section
        return (
            (list(blocks) == sorted(set(blocks)), "vision.deepstack_block_indexes must increase"),
            (all(0 <= i < self.vision.depth for i in blocks), "vision.deepstack_block_indexes are blocks"),
            (len(blocks) <= self.num_layers, "vision.deepstack_block_indexes are more than num_layers"),
            (time >= max(others), "mrope_section must give time no fewer pairs than rows or columns"),
        )

    @property
    def axis_of_pair(self) -> tuple[int, ...]:
        """Interleaved: time, row, column, time, ... while there are rows and columns left, then time."""
        axes = [0] * sum(self.mrope_section)
        for axis in (1, 2):
            axes[axis : 3 * self.mrope_section[axis] : 3] = [axis] * self.mrope_section[axis]
        return tuple(axes)


_SMALL_TOWER = VisionConfig(
    depth=24, hidden_size=1024, intermediate_size=4096, deepstack_block_indexes=(5, 11, 17)
)

PRESETS = {
    "qwen3vl_tiny": ModelConfig(
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
            position_side=6,
            deepstack_block_indexes=(0,),
            out_hidden_size=96,
        ),
        init_std=None,
        dtype="float32",
        scan_unroll=3,
    ),
    "qwen3vl_2b": ModelConfig(
        hidden_size=2048,
        intermediate_size=6144,
        num_layers=28,
        num_heads=16,
        tie_word_embeddings=True,
        vision=dataclasses.replace(_SMALL_TOWER, out_hidden_size=2048),
    ),
    "qwen3vl_4b": ModelConfig(
        hidden_size=2560,
        intermediate_size=9728,
        tie_word_embeddings=True,
        vision=dataclasses.replace(_SMALL_TOWER, out_hidden_size=2560),
    ),
    "qwen3vl_8b": ModelConfig(),
    "qwen3vl_32b": ModelConfig(
        hidden_size=5120,
        intermediate_size=25600,
        num_layers=64,
        num_heads=64,
        vision=VisionConfig(out_hidden_size=5120),
    ),
}

PUBLISHED_SIZES = ("qwen3vl_2b", "qwen3vl_4b", "qwen3vl_8b", "qwen3vl_32b")
