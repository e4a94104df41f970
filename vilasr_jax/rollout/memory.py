"""Memory that a rollout needs on each device, from the shapes of what it allocates."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

from jax.sharding import Mesh

from vilasr_jax.config import WEIGHTS, EngineSection
from vilasr_jax.parallel.memory import GIB, TEMPORARIES, Account, local_bytes
from vilasr_jax.rollout.compiled_steps import CompiledSteps
from vilasr_jax.rollout.sampling_weights import SamplingLayout

SAMPLING_WEIGHTS = "weights for sampling"
ADVICE = "Lower engine.slots or sampling.max_tokens, or split the model over more devices (mesh.model)"


def shard_slots(engine: EngineSection, mesh: Mesh) -> int:
    """Slots of a lane on one data shard, of the engine's slots over all lanes and the shards of all hosts."""
    return -(-engine.slots // (engine.lanes * mesh.shape["data"] * mesh.shape["fsdp"]))


def rollout_memory(
    steps: CompiledSteps, layout: SamplingLayout, engine: EngineSection, params: Any
) -> dict[str, int]:
    """Bytes on each device of all that conversations hold for good, by name.

    Args:
      steps: create the state of each lane.
      layout: of the weights for sampling, held once for all lanes.
      engine: slots and lanes.
      params: the weights in any layout; shapes are enough.
    """
    slots, tokens = shard_slots(engine, layout.mesh), steps.sampling.max_tokens
    state = steps.abstract_state(slots * steps.shards, tokens)
    cache, count = engine.lanes * local_bytes(state.cache), engine.lanes * slots
    each = cache // (count * tokens)
    return {
        f"{count} conversation{'s' if count > 1 else ''} of {tokens} tokens x {each:,} bytes": cache,
        SAMPLING_WEIGHTS: local_bytes(layout.abstract(params)),
        "state of turns": engine.lanes * local_bytes(state) - cache,
    }


def _most_for_calls(steps: CompiledSteps, layout: SamplingLayout, engine: EngineSection) -> dict[str, int]:
    """The most that calls hold besides, where every slot has a prompt of its own and all are written at once.

    Compiled steps may need less, and samples of one question have one prompt: a stage of training, whose
    steps `vilasr plan` compiles, is not refused for it.
    """
    slots = shard_slots(engine, layout.mesh)
    cache = local_bytes(steps.abstract_state(steps.shards, steps.sampling.max_tokens).cache)
    return {
        "computed prompts": slots * _prompt_bytes(steps, engine),
        TEMPORARIES: _inserting(engine, slots, cache),
    }


def _prompt_bytes(steps: CompiledSteps, engine: EngineSection) -> int:
    """Bytes of a slot's computed prompts: one in each lane, and one whose samples have not all begun."""
    prompt = local_bytes(steps.abstract_state(steps.shards, engine.prompt_tokens[-1]).cache)
    return (engine.lanes + 1) * prompt


def _inserting(engine: EngineSection, slots: int, cache: int) -> int:
    """Bytes that inserting gathers, of `slots` slots of `cache` bytes; the only slot is written in place."""
    return min(slots, engine.call_rows or slots) * cache if slots > 1 else 0


def rollout_account(
    steps: CompiledSteps, layout: SamplingLayout, engine: EngineSection, params: Any, limit: int
) -> Account:
    """The account of a rollout alone, with the most that its calls hold; its advice names what would fit."""
    parts = {**rollout_memory(steps, layout, engine, params), **_most_for_calls(steps, layout, engine)}
    account = Account("rollout", parts, limit, ADVICE)
    if account.total <= limit:
        return account
    ways = " or ".join(_smaller(steps, layout, engine, params, limit))
    advice = f"It fits with {ways}" if ways else "No smaller setting fits: it needs more or larger devices"
    return dataclasses.replace(account, advice=advice)


def _smaller(
    steps: CompiledSteps, layout: SamplingLayout, engine: EngineSection, params: Any, limit: int
) -> list[str]:
    """Settings that fit into `limit` bytes: each a change of one, or, where none is enough, of several."""
    given = steps.sampling.max_tokens
    least = min(given, engine.prompt_tokens[-1] + steps.sampling.max_turn_tokens)
    weights = {"": local_bytes(layout.abstract(params))}
    for form, dtype in WEIGHTS.items():
        config = layout.config.replace(dtype=dtype or layout.config.dtype)
        other = SamplingLayout(config, layout.host, weights="int8" if form == "int8" else "")
        if (size := local_bytes(other.abstract(params))) < weights[""]:
            weights[form] = size
    slots = _halves(shard_slots(engine, layout.mesh), 1)  # of a lane on a device
    tokens = {n: steps.abstract_state(steps.shards, n) for n in _halves(given, least)}
    prompts = _prompt_bytes(steps, engine)
    found: dict[tuple[bool, ...], str] = {}  # by what is changed, the largest first
    for form, count, length in itertools.product(weights, slots, tokens):
        state = tokens[length]
        held = engine.lanes * local_bytes(state) + prompts
        size = weights[form] + count * held + _inserting(engine, count, local_bytes(state.cache))
        if size <= limit:
            changes = {
                f"weights={form}": form != "",
                f"slots={count * engine.lanes * steps.shards}": count != slots[0],
                f"max_tokens={length}": length != given,
            }
            names = ", ".join(name for name, changed in changes.items() if changed)
            found.setdefault(tuple(changes.values()), f"{names} ({size / GIB:.3g} GiB)")
    fewest = min(map(sum, found), default=0)
    return [text for changed, text in found.items() if sum(changed) == fewest]


def _halves(most: int, least: int) -> list[int]:
    """`most`, its half, its quarter, ... down to `least`."""
    return [size for shift in range(most.bit_length()) if (size := most >> shift) >= least]
