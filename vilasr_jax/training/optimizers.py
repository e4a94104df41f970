"""Optax optimisers by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import optax
from optax import contrib

from vilasr_jax.config import OptimizerSection
from vilasr_jax.errors import ConfigError
from vilasr_jax.models.params import group_of, is_layer_matrix


def make_schedule(section: OptimizerSection, steps: int) -> optax.Schedule:
    """Learning rate by optimiser step: linear warm-up, then constant or a cosine to `final_fraction`."""
    warmup = int(section.warmup_fraction * steps)
    peak = section.learning_rate
    if section.schedule == "constant":
        return optax.schedules.warmup_constant_schedule(0.0 if warmup else peak, peak, warmup)
    if section.schedule == "cosine":
        return optax.schedules.warmup_cosine_decay_schedule(
            0.0 if warmup else peak, peak, warmup, max(steps, warmup + 1), section.final_fraction * peak
        )
    raise ConfigError(f"optimizer.schedule={section.schedule!r}: choose constant or cosine")


def make_optimizer(section: OptimizerSection, steps: int) -> optax.GradientTransformation:
    """AdamW (Loshchilov and Hutter, 2019), or Muon (Jordan, 2024) for the matrices of the layers.

    Under Muon, embeddings, the output head, biases and norms are left to (Nesterov) Adam. Weights of stacked
    layers [layer, in, out] are orthogonalised layer by layer.
    """
    schedule = make_schedule(section, steps)
    if section.name == "adamw":
        core = optax.adamw(schedule, section.b1, section.b2, weight_decay=section.weight_decay)
    elif section.name == "muon":
        core = contrib.muon(
            schedule,
            weight_decay=section.weight_decay,
            adam_b1=section.b1,
            adam_b2=section.b2,
            consistent_rms=0.2,
            muon_weight_dimension_numbers=_matrices,
        )
    else:
        raise ConfigError(f"optimizer.name={section.name!r}: choose adamw or muon")
    parts = [optax.clip_by_global_norm(section.clip_norm)] if section.clip_norm else []
    parts.append(core)
    rates = {"vision": section.vision_rate, "merger": section.merger_rate}
    if set(rates.values()) != {1.0}:
        parts.append(_scale_groups(rates))
    return optax.chain(*parts) if len(parts) > 1 else core


def _scale_groups(rates: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiplies each update by its group's rate: a learning rate of its own for every group."""

    def scale(updates, params=None):
        return jax.tree_util.tree_map_with_path(
            lambda path, update: update * rates.get(group_of(path), 1.0), updates
        )

    return optax.stateless(scale)


def _matrices(params: Any) -> Any:
    """The dimensions of each kernel that Muon orthogonalises; None where Adam is used."""

    def dims(path, leaf):
        if not is_layer_matrix(path):
            return None
        return contrib.MuonDimensionNumbers(leaf.ndim - 2, leaf.ndim - 1)

    return jax.tree_util.tree_map_with_path(dims, params)
