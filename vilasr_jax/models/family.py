"""The protocol of a model family.

A family is a subfolder of this one. It subclasses `ModelFamily`, and `registry.register` adds an instance.
Host processes use families without JAX: a family imports what needs JAX inside the methods that use it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

from vilasr_jax.models.chat import ChatFormat
from vilasr_jax.models.images import ImageSpec
from vilasr_jax.models.inputs import VisionInput

if TYPE_CHECKING:
    from flax import nnx
    from jaxtyping import Array, Bool, Float, Int, Int32

    from vilasr_jax.models.hf_tensors import HFTensor

Grid = tuple[int, int, int]  # frames, patch rows, patch columns


class ModelConfig(Protocol):
    """Fields of every family's config: a frozen dataclass, hashable, with dtypes as names."""

    model_type: ClassVar[str]  # the family's name in the registry
    vocab_size: int
    hidden_size: int  # d, width of the language model
    num_layers: int
    num_heads: int
    num_kv_heads: int  # heads of the KV cache
    head_dim: int
    bos_token_id: int  # ends a text
    eos_token_id: int  # ends a turn
    tie_word_embeddings: bool  # the token table is the output head
    dtype: str  # of activations and of weights while they are used
    param_dtype: str  # of stored weights
    remat: str  # what the backward pass recomputes: none, dots, attention, full
    attention: str  # attention backend
    context_parallel: bool  # in training, the mesh's model axis splits the tokens of a row
    scan_unroll: int

    def replace(self, **changes: Any) -> ModelConfig:
        """A copy with some fields changed; unknown names are errors."""


class Model(Protocol):
    """The Flax NNX module of a family: `nnx.split` once outside, `nnx.merge` inside `jax.jit`.

    Its weights form the tree that `models.params` describes. Letters in shapes: b batch, t tokens, d width,
    m vision tokens of a row.
    """

    config: ModelConfig
    language_model: Any  # a module that has `layers`, see `models.params`

    def encode_vision(self, vision: VisionInput) -> Any:
        """Pictures [b, n, p, ...] -> vision tokens [b, m, w] for `embed`; w is d, or more (see `embed`)."""

    def embed(
        self,
        tokens: Int[Array, "b t"],
        image_index: Int[Array, "b t"] | None = None,
        vision_tokens: Float[Array, "b m w"] | None = None,
    ) -> Float[Array, "b t w"]:
        """Token ids [b, t] -> embeddings [b, t, w]; vision tokens are placed where image_index >= 0.

        Without images w is d. With them it may be more, where the decoder's layers read what a vision tower
        gives at several depths.
        """

    def __call__(
        self,
        tokens: Int[Array, "b t"],
        positions: Int[Array, "3 b t"],
        segment_ids: Int[Array, "b t"],
        image_index: Int[Array, "b t"] | None = None,
        vision: VisionInput | None = None,
    ) -> Float[Array, "b t d"]:
        """Hidden states [b, t, d] of full sequences, for training; positions are [3, b, t]."""

    def apply_layers(
        self, x: Float[Array, "b t w"], positions: Int[Array, "3 b t"], attend: Callable
    ) -> Float[Array, "b t d"]:
        """The decoder's layers on x [b, t, w] with the caller's `attend(q, k, v)`, one call per layer."""

    def extend(
        self,
        x: Float[Array, "b t w"],
        positions: Int[Array, "3 b t"],
        valid: Bool[Array, "b t"],
        cache: Any,
        layers: Sequence[Any] | None = None,
    ) -> tuple[Float[Array, "b t d"], Any]:
        """Reads t more tokens per row into the cache: (hidden [b, t, d], the grown cache)."""

    def logits(self, hidden: Float[Array, "*rows d"]) -> Float[Array, "*rows v"]:
        """Hidden states [..., d] -> float32 logits [..., vocab]."""

    def gather_head(self) -> None:
        """Gathers the output head over fsdp, for a loop that calls `logits` again and again."""


class ModelFamily:
    """Everything that is one model family's own: a subclass gives the attributes and all methods.

    Attributes:
      model_type: the name in Hugging Face's config.json.
      title: the published name, for people.
      config_class: the dataclass of sizes, a `ModelConfig`.
      presets: configs by name, "tiny" or "7b".
      images: how images are resized, cut and normalised.
      chat: special tokens and the text around messages.
      chat_template: the Jinja template that an exported tokenizer carries.
      kernels: kind of each kernel, a field of `sharding.Sharding`, by the name of its module.
      published_sizes: optional, names of the presets for which published weights exist.
      coordinates: optional; None where the model reads and writes pixels of the resized image, else the
        coordinate of an image's right and lower edge (1000).
      timestamp: optional, the text before a video's frame whose {seconds} are known; empty: frames have none.
      default_system: optional, the system message of a conversation that has none; None: no system message.
      head_key: optional, published name of the output head's weight.
      table_key: optional, published name of the token table, which is the head where the two are tied.
    """

    model_type: ClassVar[str]
    title: ClassVar[str]
    config_class: ClassVar[type]
    presets: ClassVar[Mapping[str, Any]]
    images: ClassVar[ImageSpec]
    chat: ClassVar[ChatFormat]
    chat_template: ClassVar[str]
    kernels: ClassVar[Mapping[str, str]]

    published_sizes: ClassVar[tuple[str, ...]] = ()
    coordinates: ClassVar[int | None] = None
    timestamp: ClassVar[str] = ""
    default_system: ClassVar[str | None] = None
    head_key: ClassVar[str] = "lm_head.weight"
    table_key: ClassVar[str] = "model.embed_tokens.weight"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other)  # nothing but the class differs

    def __hash__(self) -> int:
        return hash(type(self))

    def override(self, config: Any, **overrides: Any) -> Any:
        """`config` with fields changed; `vision` may be a dict of fields of its vision config.

        Raises:
          ConfigError: an unknown field, or inconsistent sizes.
        """
        raise NotImplementedError

    def build(self, config: Any, rngs: nnx.Rngs) -> Model:
        """A model with random weights."""
        raise NotImplementedError

    def init_cache(self, config: Any, batch: int, max_len: int, dtype: Any = None) -> Any:
        """An empty cache of `max_len` slots for each of `batch` rows.

        A pytree whose leaves all have the row as leading axis; those of rank 4 are [b, kv, s, h]. It has
        `max_len` and `copy_rows(other, rows, source)`.
        """
        raise NotImplementedError

    def positions(
        self,
        ids: Int[np.ndarray, " t"],
        grids: Sequence[Grid],
        special: Any,
        *,
        start: int = 0,
        second_per_grid_ts: Sequence[float] | None = None,
        tokens_per_second: float = 2,
    ) -> tuple[Int32[np.ndarray, "3 t"], int]:
        """Rotary positions [3, t] int32 of a conversation's ids [t], and that of the next token."""
        raise NotImplementedError

    def config_from_hf(self, config: Mapping[str, Any], *, where: str, **overrides: Any) -> Any:
        """A config from a parsed config.json.

        Raises:
          CheckpointError: a missing size, or a choice that this family does not implement.
        """
        raise NotImplementedError

    def config_to_hf(self, config: Any, *, layout: str, dtype: str | None = None) -> dict[str, Any]:
        """What config.json says of `config` ("flat" or "nested"); `dtype` is that of the stored weights."""
        raise NotImplementedError

    def preprocessor_config(self, config: Any, min_pixels: int, max_pixels: int) -> dict[str, Any]:
        """The preprocessor_config.json of an exported folder."""
        raise NotImplementedError

    def hf_tensors(self, config: Any, shapes: Mapping[str, tuple[int, ...]]) -> Iterator[HFTensor]:
        """Every published tensor, in the order of the network; `shapes` are our weights' by path."""
        raise NotImplementedError

    def published_name(self, key: str) -> str:
        """The published name of a key in any prefix style that tools write."""
        raise NotImplementedError

    def nested_name(self, key: str) -> str:
        """The name of a published key in the "nested" layout of transformers 5."""
        raise NotImplementedError

    def language_flops(self, config: Any, tokens: int, rows: int, *, head: bool = True) -> float:
        """Forward FLOPs of the decoder (and its head) on `rows` rows of `tokens` tokens each."""
        raise NotImplementedError

    def vision_flops(self, config: Any, patches: int, rows: int) -> float:
        """Forward FLOPs of the vision tower on `rows` vision rows of `patches` patches each."""
        raise NotImplementedError

    def decode_flops(self, config: Any, rows: int, cached: int) -> float:
        """FLOPs of one token for each of `rows` rows that attend to `cached` slots."""
        raise NotImplementedError
