"""Slots stay busy, and nothing piles up, whatever the lengths."""

import gc
import random
import resource

import jax
import pytest

from tests import tiny
from vilasr_jax.config import EngineSection, SamplingSection
from vilasr_jax.rollout import Engine


class TenfoldEngine(Engine):
    """Turns of 6 to 60 tokens, spread evenly in their logarithm."""

    def turn_limit(self, conversation):
        spread = random.Random(f"{conversation.seed} {len(conversation.said)}").random()
        return round(6 * 10**spread)


def engine():
    special = tiny.tokenizer().special
    never = tiny.suppressed().copy()
    never[[special.im_end, special.endoftext]] = True
    section = EngineSection(
        slots=16, lanes=2, decode_steps=16, stop_fraction=0.13, prompt_tokens=(40,), insert_tokens=(32,)
    )
    sampling = SamplingSection(max_turn_tokens=60, max_tokens=250)
    return TenfoldEngine(
        tiny.config(),
        tiny.graphdef(),
        tiny.tokenizer(),
        never,
        engine=section,
        sampling=sampling,
        patches=tiny.PATCHES,
        mesh=tiny.mesh(),
    )


@pytest.mark.slow
def test_slots_stay_occupied_with_lengths_that_vary_tenfold():
    runner = engine()
    trajectories = tiny.generate(
        runner, tiny.requests(24, samples=8, session=lambda seed: tiny.ScriptedSession(seed, turns=3))
    )
    assert len(trajectories) == 192
    occupied = runner.counters["row_steps"] / runner.counters["slot_steps"]
    print(f"occupied {occupied:.1%}")
    assert occupied >= 0.85


@pytest.mark.slow
def test_memory_does_not_grow():
    """2,000 conversations in 10 runs: no array stays, and the process grows by little."""
    runner = tiny.engine()
    params = tiny.place(tiny.params(), runner.steps.mesh)
    sizes, arrays = [], []
    for number in range(11):
        done = runner.generate(
            params, tiny.requests(50, samples=4, first=1000 * number), jax.random.key(number)
        )
        assert len(done) == 200
        del done
        gc.collect()
        sizes.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        arrays.append(len(jax.live_arrays()))
    print("MiB", sizes, "arrays", arrays)
    assert arrays[-1] == arrays[0]
    assert sizes[-1] - sizes[1] < 25
