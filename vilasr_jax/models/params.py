"""The tree of weights that every family's model has, and what its parts are called.

    visual                the vision tower; modules named merger... turn patches into tokens
    language_model
      embed_tokens        the token table
      layers              the decoder's layers, each weight stacked: [layer, ...]
    lm_head               the output head; absent where the token table is tied to it

Matrices are named `kernel`, [in, out] or [layer, in, out]; scales of norms `scale`, which compute in float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flax import nnx

from vilasr_jax.models.family import Model, ModelConfig
from vilasr_jax.models.registry import family_of

GROUPS = ("vision", "merger", "language")


def path_names(path: Sequence[Any]) -> list[str]:
    """The names along a path of `jax.tree_util`, or along a tuple of names."""
    return [str(getattr(key, "key", getattr(key, "name", key))) for key in path]


def group_of(path: Sequence[Any]) -> str:
    """The group of the weight at `path`: "vision" (the tower), "merger" or "language".

    >>> group_of(("visual", "merger", "fc1", "kernel"))
    'merger'
    """
    names = path_names(path)
    if "visual" not in names:
        return "language"
    return "merger" if any("merger" in name for name in names) else "vision"


def is_norm(path: Sequence[Any]) -> bool:
    """Whether the weight at `path` is a norm's scale, which is never cast: it is used in float32."""
    return "scale" in path_names(path)


def is_decoder_layer(path: Sequence[Any]) -> bool:
    """Whether the weight at `path` is a stack [layer, ...] of the decoder's layers."""
    names = path_names(path)
    return "layers" in names and "language_model" in names


def is_decoder_kernel(path: Sequence[Any]) -> bool:
    """Whether the weight at `path` is a matrix [layer, in, out] of the decoder's layers."""
    return is_matrix(path) and is_decoder_layer(path)


def is_layer_matrix(path: Sequence[Any]) -> bool:
    """Whether the weight at `path` is a matrix of either tower; not the token table or the output head."""
    return is_matrix(path) and "lm_head" not in path_names(path)


def is_matrix(path: Sequence[Any]) -> bool:
    """Whether the weight at `path` is a matrix that a token's activations are multiplied with."""
    return "kernel" in path_names(path)


def is_token_table(path: Sequence[Any]) -> bool:
    """Whether the weight at `path` is the token table [vocab, d], which may be the output head, too."""
    return "embed_tokens" in path_names(path)


def decoder_layers(params: Any) -> Any:
    """The part of a tree of weights that holds the decoder's stacked layers."""
    return params["language_model"]["layers"]


def with_decoder_layers(params: Any, layers: Any) -> Any:
    """`params`, its decoder layers replaced; the tree is changed in place, and returned."""
    params["language_model"]["layers"] = layers
    return params


def decoder_module(model: Model) -> nnx.Module:
    """The module of the decoder's stacked layers."""
    return model.language_model.layers


def output_head(params: Any, config: ModelConfig) -> Any:
    """The weights that turn hidden states into logits: the output head, or the token table tied to it."""
    return params["language_model"]["embed_tokens"] if config.tie_word_embeddings else params["lm_head"]


def build(config: ModelConfig, seed: int = 0) -> Model:
    """The model of a config with random weights."""
    return family_of(config).build(config, nnx.Rngs(seed))


def abstract(config: ModelConfig) -> tuple[nnx.GraphDef, Any]:
    """A model's structure, and the shapes and dtypes of its weights, without making them."""
    return nnx.split(nnx.eval_shape(lambda: build(config)))
