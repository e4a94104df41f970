"""The model, its inputs and its devices."""

from __future__ import annotations

from dataclasses import dataclass

from vilasr_jax.config.fields import setting
from vilasr_jax.errors import ConfigError
from vilasr_jax.models import default_family, preset

_IMAGES = default_family().images


@dataclass(frozen=True)
class ModelSection:
    """Which backbone, and where its first weights come from."""

    preset: str = ""  # tiny, 7b, ..., or a module (my.size); with init_from it is that, or empty; else tiny
    init_from: str = ""  # any checkpoint (docs/serving.md); empty: random weights from the job's seed
    random_weights: bool = False  # accept a published size without init_from
    dtype: str = "float32"  # of activations, and of weights while they are used
    param_dtype: str = "float32"  # of stored weights
    remat: str = "none"  # what the backward pass recomputes: none, dots, attention, full
    attention: str = "xla"  # a backend of models/attention_backends: xla; splash on TPUs

    def check(self, path: str) -> None:
        """Raises ConfigError for a preset that does not exist."""
        try:
            preset(self.preset)
        except ConfigError as error:
            raise ConfigError(f"{path}.preset: {error}") from None


@dataclass(frozen=True)
class ImageSection:
    """Limits of an image's area in pixels, after both sides are rounded for the model."""

    min_pixels: int = _IMAGES.factor**2
    max_pixels: int = _IMAGES.max_pixels

    def check(self, path: str) -> None:
        """Raises ConfigError for limits that no image can meet."""
        if not 0 < self.min_pixels <= self.max_pixels:
            raise ConfigError(
                f"{path}: min_pixels={self.min_pixels} must be more than 0 and no more than "
                f"max_pixels={self.max_pixels}"
            )


@dataclass(frozen=True)
class BucketSection:
    """Static shapes: every length is rounded up to one of these."""

    tokens: tuple[int, ...] = (128, 256, 384, 512)  # tokens per conversation
    images: tuple[int, ...] = (1, 8)  # images per conversation
    patches: tuple[int, ...] = (100,)  # patches per image


@dataclass(frozen=True)
class PackingSection:
    """Several conversations in one training row. A stage's batch and micro_batch then count rows."""

    tokens: int = 0  # tokens per row; 0: off, one conversation per row
    vision_rows: int = 8  # vision rows (of patches) per row
    patches: int = 1024  # patches per vision row; the largest image must fit
    lookahead: int = 16  # conversations among which each row is packed
    token_buckets: tuple[int, ...] = ()  # smaller tokens; a batch has the smallest that holds all its rows
    vision_row_buckets: tuple[int, ...] = ()  # smaller vision_rows, likewise

    def check(self, path: str) -> None:
        """Raises ConfigError for smaller sizes that are not."""
        for name, sizes, most in (
            ("token_buckets", self.token_buckets, self.tokens),
            ("vision_row_buckets", self.vision_row_buckets, self.vision_rows),
        ):
            if self.tokens and [*sizes, most] != sorted({*sizes, most}):
                raise ConfigError(f"{path}.{name}={sizes} must be ascending numbers below {most}")


@dataclass(frozen=True)
class MeshSection:
    """Devices along each axis; -1: all that are left."""

    data: int = setting(-1, at_least=None)
    fsdp: int = setting(1, at_least=None)
    model: int = setting(1, at_least=None)
    context_parallel: bool = False  # training: the model axis splits the tokens of a row, not widths
    cpu_devices: int = setting(1, at_least=None)  # virtual devices on a machine without accelerators
