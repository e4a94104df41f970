"""A vision tower, a decoder and its output head as one Flax NNX module."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Bool, Float, Int

from vilasr_jax.models.inputs import VisionInput
from vilasr_jax.models.products import InferenceMatrix, multiply
from vilasr_jax.models.sharding import constrain, layout
from vilasr_jax.models.transformer.cache import KVCache
from vilasr_jax.models.transformer.config import TransformerConfig
from vilasr_jax.models.transformer.context_parallel import Split, token_shards
from vilasr_jax.models.transformer.language import DecoderLayer, LanguageModel
from vilasr_jax.models.transformer.layers import Linear


class VisionLanguageModel(nnx.Module):
    """Vision tower, language model and output head.

    With plain JAX transforms: `graphdef, params = nnx.split(model)` once outside, `nnx.merge`
    inside `jax.jit`.
    Letters in shapes: b batch, t tokens, s cache slots, d width, m vision tokens of a sample, w = (1 + k) d
    width of a vision token and of what the decoder reads, with k features for its first layers (see
    `language`).
    """

    def __init__(self, config: TransformerConfig, visual: nnx.Module, *, rngs: nnx.Rngs):
        self.visual = visual
        self.language_model = LanguageModel(config, rngs=rngs)
        if config.tie_word_embeddings:
            self.lm_head = None  # the token table serves
        else:
            self.lm_head = Linear(config.hidden_size, config.vocab_size, config, bias=False, rngs=rngs)
        self.config = config

    def encode_vision(self, vision: VisionInput) -> Float[Array, "b m w"]:
        """Images -> tokens [b, m, w] with m = n * p / u; token i of a row comes from u patches from u i on.

        u is `ImageSpec.merge_unit`, patches that become one token.
        """
        return self.visual(vision)

    def embed(
        self,
        tokens: Int[Array, "b t"],
        image_index: Int[Array, "b t"] | None = None,
        vision_tokens: Float[Array, "b m w"] | None = None,
    ) -> Float[Array, "b t w"]:
        """Embeddings [b, t, w], image and video pads replaced by vision tokens; without images, w is d.

        Args:
          tokens: int [b, t].
          image_index: int [b, t], index of the row's vision token at this position, -1 for text; or None.
          vision_tokens: [b, m, w] from `encode_vision`; or None.
        """
        act_btd = layout("training").act_btd
        x = constrain(self.language_model.embed_tokens(tokens), act_btd)
        if image_index is None or vision_tokens is None:
            return x
        picked = jnp.take_along_axis(
            vision_tokens, jnp.maximum(image_index, 0)[..., None], axis=1, mode="clip"
        )
        x = jnp.pad(x, ((0, 0), (0, 0), (0, picked.shape[-1] - x.shape[-1])))
        return jnp.where(image_index[..., None] >= 0, constrain(picked, act_btd).astype(x.dtype), x)

    def gather_head(self) -> None:
        """Gathers the output head over fsdp, for a loop that calls `logits` again and again.

        Without this each call gathers it again. Its gradient is summed in the stored precision, and scattered
        once.
        """
        if self.lm_head is None:
            weight, spec = self.language_model.embed_tokens.embedding, P("model")
        else:
            weight, spec = self.lm_head.kernel, P(None, "model")
        weight.set_value(jax.tree.map(lambda x: constrain(x, spec), weight.get_value()))

    def logits(self, hidden: Float[Array, "*rows d"]) -> Float[Array, "*rows v"]:
        """Hidden states [..., d] -> float32 logits [..., vocab]."""
        dtype = self.config.dtype
        if self.lm_head is not None:
            head = self.lm_head.kernel.get_value()
        else:
            head = self.language_model.embed_tokens.embedding.get_value()
            if not isinstance(head, InferenceMatrix):
                head = constrain(head.astype(dtype).T, layout("training").tied_head_dv)
        return multiply(hidden.astype(dtype), head, out_dtype=jnp.float32)

    def __call__(
        self,
        tokens: Int[Array, "b t"],
        positions: Int[Array, "3 b t"],
        segment_ids: Int[Array, "b t"],
        image_index: Int[Array, "b t"] | None = None,
        vision: VisionInput | None = None,
    ) -> Float[Array, "b t d"]:
        """Hidden states [b, t, d] of full sequences, for training.

        Args:
          tokens: int [b, t].
          positions: int [3, b, t], M-RoPE time, row and column.
          segment_ids: int [b, t]; causal attention inside each segment, 0 is padding.
          image_index: as in `embed`.
          vision: the rows' images; or None.
        """
        vision_tokens = None if vision is None else self.encode_vision(vision)
        shards = token_shards(self.config)
        if shards == 1:
            return self.language_model(self.embed(tokens, image_index, vision_tokens), positions, segment_ids)
        split = Split(tokens.shape[1], shards, self.config.attention)
        tokens, positions, segment_ids = map(split.divide, (tokens, positions, segment_ids))
        image_index = None if image_index is None else split.divide(image_index, -1)
        x = constrain(self.embed(tokens, image_index, vision_tokens), layout("training").own_btd)
        return split.unite(self.language_model(x, positions, segment_ids))

    def apply_layers(
        self, x: Float[Array, "b t w"], positions: Int[Array, "3 b t"], attend: Callable
    ) -> Float[Array, "b t d"]:
        """The decoder's layers one after another, with the caller's attention.

        Args:
          x: [b, t, w] from `embed`.
          positions: int [3, b, t].
          attend: (q [b, t, n, h], k [b, t, kv, h], v) -> [b, t, n, h], q and k rotated.

        Returns:
          [b, t, d] after the last layer, before the final norm.
        """
        return self.language_model.apply_layers(x, positions, attend)

    def extend(
        self,
        x: Float[Array, "b t w"],
        positions: Int[Array, "3 b t"],
        valid: Bool[Array, "b t"],
        cache: KVCache,
        layers: Sequence[DecoderLayer] | None = None,
    ) -> tuple[Float[Array, "b t d"], KVCache]:
        """Reads t more tokens per row into the cache: a prefill, an inserted turn, or (t = 1) a decode step.

        Row i's valid tokens are written to the slots length[i], length[i] + 1, ...; each attends to
        itself and all before it. Tokens that are not valid, or have no slot left, are dropped and overwrite
        nothing.

        Args:
          x: [b, t, w] from `embed`.
          positions: int [3, b, t].
          valid: bool [b, t], True for the first tokens of a row and False for the padding after them.
          cache: from `init_cache` or an earlier call.
          layers: the decoder layers, each with weights of its own; by default slices of the stacked ones,
            which a loop over tokens would copy at each step.

        Returns:
          (hidden [b, t, d], meaningless where not valid; the cache, `length` grown by the valid tokens).
        """
        return self.language_model.extend(x, positions, valid, cache, layers)
