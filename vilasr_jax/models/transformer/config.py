"""What the configs of families with this decoder have in common."""

import dataclasses
from typing import Any, ClassVar

from vilasr_jax.errors import ConfigError
from vilasr_jax.models.attention_backends import attention_backend

REMAT_POLICIES = ("none", "dots", "attention", "full")


class VisionSizes:
    """Figures computed from the sizes of a vision tower; the family's dataclass has the fields."""

    hidden_size: int
    num_heads: int
    in_channels: int
    patch_size: int
    temporal_patch_size: int
    spatial_merge_size: int

    @property
    def head_dim(self) -> int:
        """Width of a head."""
        return self.hidden_size // self.num_heads

    @property
    def patch_dim(self) -> int:
        """Values of one flattened patch: 1176 for every published Qwen2.5-VL, 1536 for Qwen3-VL."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    @property
    def merge_unit(self) -> int:
        """Patches that become one token."""
        return self.spatial_merge_size**2


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Sizes and choices of a decoder; a family's subclass gives its own defaults and its vision tower's.

    Dtypes are names, as in text configs.
    """

    model_type: ClassVar[str]
    vision_class: ClassVar[type]  # the dataclass of `vision`
    qkv_bias: ClassVar[bool] = False  # whether the projections to q, k and v have biases
    qk_norm: ClassVar[bool] = False  # whether each head's q and k are normed before rope
    vocab_size: int = 151936
    hidden_size: int = 4096
    intermediate_size: int = 12288
    num_layers: int = 36
    num_heads: int = 32
    num_kv_heads: int = 8
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
    vision: Any = None
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
            object.__setattr__(self, "vision", self.vision_class(**self.vision))
        object.__setattr__(self, "mrope_section", tuple(self.mrope_section))
        v = self.vision
        checks = (
            (self.num_heads % self.num_kv_heads == 0, "num_heads must be a multiple of num_kv_heads"),
            (self.head_dim % 2 == 0, "head_dim must be even"),
            (2 * sum(self.mrope_section) == self.head_dim, "mrope_section must add up to head_dim / 2"),
            (v.hidden_size % v.num_heads == 0, "vision.hidden_size must be a multiple of vision.num_heads"),
            (v.head_dim % 4 == 0, "vision.hidden_size / vision.num_heads must be a multiple of 4"),
            (v.out_hidden_size == self.hidden_size, "vision.out_hidden_size must equal hidden_size"),
            (self.remat in REMAT_POLICIES, f"remat must be one of {REMAT_POLICIES}"),
            *self.own_checks(),
        )
        for ok, message in checks:
            if not ok:
                raise ConfigError(f"model config: {message} (got {self})")
        attention_backend(self.attention)  # raises for an unknown name

    def own_checks(self) -> tuple[tuple[bool, str], ...]:
        """What a family demands besides: (whether it holds, what does not hold)."""
        return ()

    @property
    def axis_of_pair(self) -> tuple[int, ...]:
        """What each rotary pair of a head turns with: 0 time, 1 row, 2 column."""
        return tuple(axis for axis, count in enumerate(self.mrope_section) for _ in range(count))

    def replace(self, **changes):
        """A copy with some fields changed; unknown names are errors."""
        return replace_fields(self, changes, "model config")


def override(config: Any, **overrides: Any) -> Any:
    """`config` with fields changed.

    Args:
      config: sizes to start from.
      **overrides: fields of the config; `vision` may be a dict of fields of the vision config to change. When
        only hidden_size is changed, the tower's out_hidden_size is set to it.

    Raises:
      ConfigError: an unknown field, or inconsistent sizes.
    """
    vision = overrides.get("vision", {})
    if not isinstance(vision, config.vision_class):
        width = {"out_hidden_size": overrides.get("hidden_size", config.hidden_size)}
        vision = replace_fields(config.vision, {**width, **vision}, "model config, vision")
    return config.replace(**{**overrides, "vision": vision})


def replace_fields(config: Any, changes: dict[str, Any], where: str) -> Any:
    """A copy of a dataclass with some fields changed.

    Raises:
      ConfigError: an unknown field.
    """
    unknown = sorted(set(changes) - {field.name for field in dataclasses.fields(config)})
    if unknown:
        raise ConfigError(f"{where}: unknown field {unknown[0]!r}")
    return dataclasses.replace(config, **changes)
