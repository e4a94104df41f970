"""The account of a rollout, compared with what the compiler allocates for its largest calls."""

import jax

from tests import tiny
from vilasr_jax.config import EngineSection, SamplingSection
from vilasr_jax.parallel.memory import TEMPORARIES, local_bytes
from vilasr_jax.rollout import Engine
from vilasr_jax.rollout.batch import empty_tokens, shapes
from vilasr_jax.rollout.lane import Lane
from vilasr_jax.rollout.memory import rollout_account

TOKENS = 8192


def make(slots):
    section = EngineSection(
        slots=slots, lanes=1, decode_steps=5, prompt_tokens=(512,), insert_tokens=(32,), insert_images=(1,)
    )
    sampling = SamplingSection(max_turn_tokens=7, max_tokens=TOKENS)
    return Engine(
        tiny.config(),
        tiny.graphdef(),
        tiny.tokenizer(),
        tiny.suppressed(),
        engine=section,
        sampling=sampling,
        patches=tiny.PATCHES,
        mesh=tiny.mesh(),
    )


def parts(engine):
    return rollout_account(engine.steps, engine.layout, engine.engine, tiny.params(), 1 << 40).parts


def test_the_account_covers_what_the_compiler_allocates():
    """Of a model whose caches are much larger than its weights, where all slots are written at once."""
    engine = make(slots=8)
    account = parts(engine)
    params = engine.layout.abstract(tiny.params())
    state = engine.steps.abstract_state(engine.lane_slots, TOKENS)
    key = jax.eval_shape(lambda: jax.random.key(0))
    shape = max(shapes(engine.row_buckets, engine.insert_buckets), key=lambda one: one.rows)
    starts = engine.writer.turn_starts(Lane(state), [[]], shape.rows, [[]])
    new = empty_tokens(shape, 1, engine.insert_buckets.spec)
    compiled = engine.steps.insert.lower(params, state, key, new, starts).compile().memory_analysis()
    needed = compiled.argument_size_in_bytes + compiled.temp_size_in_bytes
    assert needed <= sum(account.values()) <= 1.5 * needed
    assert account["computed prompts"] == 2 * local_bytes(engine.steps.abstract_state(8, 512).cache)


def test_the_only_slot_is_written_in_place():
    assert parts(make(slots=1))[TEMPORARIES] == 0
