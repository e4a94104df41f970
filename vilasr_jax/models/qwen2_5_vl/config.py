"""Sizes and choices of one Qwen2.5-VL model, and the presets under which they are published."""

import dataclasses
from typing import ClassVar

from vilasr_jax.errors import ConfigError
from vilasr_jax.models.attention_backends import attention_backend
from vilasr_jax.models.images import ImageSpec

REMAT_POLICIES = ("none", "dots", "attention", "full")
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
class VisionConfig:
    """The vision tower: patches in, one language-model embedding for each merged 2x2 block out."""

    depth: int = 32  # blocks
    hidden_size: int = 1280
    intermediate_size: int = 3420
    num_heads: int = 16
    in_channels: int = 3
    patch_size: int = IMAGES.patch_size  # pixels a side
    temporal_patch_size: int = IMAGES.temporal_patch_size  # frames a patch; a still image is repeated
    spatial_merge_size: int = IMAGES.merge_size  # patches a side that become one token
    window_size: int = WINDOW_SIZE  # pixels a side of an attention window
    fullatt_block_indexes: tuple[int, ...] = (7, 15, 23, 31)  # the other blocks attend inside windows
    out_hidden_size: int = 3584  # width of the language model
    tokens_per_second: int = 2  # temporal M-RoPE steps a second of video
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_heads

    @property
    def patch_dim(self) -> int:
        """Values of one flattened patch, 1176 for every published size."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    @property
    def window_patches(self) -> int:
        """Patches of a full attention window."""
        return (self.window_size // self.patch_size) ** 2

    @property
    def merge_unit(self) -> int:
        """Patches that become one token."""
        return self.spatial_merge_size**2


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Sizes of the model, by default those of Qwen2.5-VL-7B. Dtypes are names, as in text configs."""

    model_type: ClassVar[str] = "qwen2_5_vl"
    vocab_size: int = 152064
    hidden_size: int = 3584
    intermediate_size: int = 18944
    num_layers: int = 28
    num_heads: int = 28
    num_kv_heads: int = 4
    head_dim: int = 128
    rope_theta: float = 1_000_000.0
    mrope_section: tuple[int, int, int] = (16, 24, 24)  # rotary pairs turned by time, row, column
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    max_position_embeddings: int = 128_000  # written to exports; not a limit here
    image_token_id: int = 151655
    video_token_id: int = 151656
    vision_start_token_id: int = 151652
    vision_end_token_id: int = 151653
    bos_token_id: int = 151643
    eos_token_id: int = 151645
    vision: VisionConfig = VisionConfig()
    init_std: float | None = 0.02  # None: 1/sqrt(fan in), for small models trained from scratch
    dtype: str = "bfloat16"  # of activations and of weights while they are used
    param_dtype: str = "float32"  # of stored weights
    # What the backward pass of the language model computes again: none, dots (all but matmuls and attention),
    # attention (all but attention and what it reads), full.
    remat: str = "none"
    attention: str = "xla"  # name of an attention backend
    context_parallel: bool = False  # training: the mesh's model axis splits the tokens of a row, not widths
    scan_unroll: int = 1  # layers unrolled in each scan step; small models on CPU like them all

    def __post_init__(self):
        if isinstance(self.vision, dict):
            object.__setattr__(self, "vision", VisionConfig(**self.vision))
        for owner, name in ((self, "mrope_section"), (self.vision, "fullatt_block_indexes")):
            object.__setattr__(owner, name, tuple(getattr(owner, name)))
        v = self.vision
        checks = (
            (self.num_heads % self.num_kv_heads == 0, "num_heads must be a multiple of num_kv_heads"),
            (self.head_dim % 2 == 0, "head_dim must be even"),
            (2 * sum(self.mrope_section) == self.head_dim, "mrope_section must add up to head_dim / 2"),
            (v.hidden_size % v.num_heads == 0, "vision.hidden_size must be a multiple of vision.num_heads"),
            (v.head_dim % 4 == 0, "vision.hidden_size / vision.num_heads must be a multiple of 4"),
            (v.out_hidden_size == self.hidden_size, "vision.out_hidden_size must equal hidden_size"),
            (self.remat in REMAT_POLICIES, f"remat must be one of {REMAT_POLICIES}"),
        )
        for ok, message in checks:
            if not ok:
                raise ConfigError(f"model config: {message} (got {self})")
        attention_backend(self.attention)  # raises for an unknown name

    def replace(self, **changes) -> "ModelConfig":
        """A copy with some fields changed; unknown names are errors."""
        return _replace(self, changes, "model config")


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


def override(config: ModelConfig, **overrides) -> ModelConfig:
    """`config` with fields changed.

    Args:
      config: sizes to start from.
      **overrides: fields of `ModelConfig`; `vision` may be a dict of `VisionConfig` fields to change. When
        only hidden_size is changed, the tower's out_hidden_size is set to it.

    Raises:
      ConfigError: an unknown field, or inconsistent sizes.
    """
    vision = overrides.get("vision", {})
    if not isinstance(vision, VisionConfig):
        width = {"out_hidden_size": overrides.get("hidden_size", config.hidden_size)}
        vision = _replace(config.vision, {**width, **vision}, "model config, vision")
    return config.replace(**{**overrides, "vision": vision})


def _replace(config, changes, where):
    unknown = sorted(set(changes) - {field.name for field in dataclasses.fields(config)})
    if unknown:
        raise ConfigError(f"{where}: unknown field {unknown[0]!r}")
    return dataclasses.replace(config, **changes)
