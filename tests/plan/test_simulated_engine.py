"""Simulated engines: what no schedule may break, for any conversations."""

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vilasr_jax.plan.simulation.engine import EngineShape, pieces, simulate_rollout
from vilasr_jax.plan.simulation.host_costs import HostCosts
from vilasr_jax.plan.simulation.lengths import Lengths, Turn
from vilasr_jax.plan.simulation.rows import pipeline
from vilasr_jax.processing import Buckets

SHAPE = EngineShape(
    shards=1,
    slots=4,
    lanes=2,
    decode_steps=32,
    stop_fraction=0.9,
    draw_wait=5.0,
    threads=1,
    prompts=Buckets((64, 256), (1, 4), (64,)),
    inserts=Buckets((32, 64), (1,), (64,)),
    patches=64,
)
FREE = HostCosts(draw_ms=0, decode_ms=0, patch_ms=0, encode_ms=0, row_ms=0, call_ms=0)
COSTS = HostCosts(draw_ms=40, patch_ms=3, encode_ms=5, row_ms=1, call_ms=1)


@dataclasses.dataclass
class Calls:
    decode: float = 0.01
    start: float = 0.002
    entering: float = 0.05

    def prefill(self, rows, tokens, images):
        return self.entering * rows * tokens / 256

    def insert(self, rows, tokens, images):
        return self.entering * rows * (tokens + images) / 256


@st.composite
def conversations(draw):
    turns = draw(st.lists(st.integers(1, 70), min_size=1, max_size=4))
    replied = [Turn(tokens, 40, 1) for tokens in turns[:-1]]
    return Lengths(200, 1, (*replied, Turn(turns[-1])))


GROUPS = st.lists(st.lists(conversations(), min_size=1, max_size=5), min_size=1, max_size=8)


@settings(max_examples=60, deadline=None)
@given(GROUPS, st.integers(1, 3), st.integers(1, 2), st.booleans(), st.sampled_from([0.2, 0.9]))
def test_parts_sum_up_and_no_bound_is_beaten(groups, hosts, shards, shared, fraction):
    shape = dataclasses.replace(SHAPE, shards=shards, stop_fraction=fraction)
    times = simulate_rollout(groups, hosts, shape, Calls(), COSTS, shared)
    every = [one for group in groups for one in group]
    assert sum(time.conversations for time in times) == len(every)
    assert sum(time.sampled for time in times) == sum(one.sampled for one in every)
    for time in times:
        assert sum(time.parts.values()) == pytest.approx(time.seconds)
        assert min(time.parts.values()) >= 0
    slowest = max(time.seconds for time in times)
    # a call decodes a token of each slot of a lane; the first token of a turn is an insert's or a start's
    decoded = sum(turn.tokens - 1 for one in every for turn in one.turns)
    bounds = [decoded / (hosts * shards * SHAPE.slots) * Calls.decode]
    for one in every:
        alone = sum(turn.tokens - 1 for turn in one.turns) * Calls.decode + one.drawn * COSTS.draw_ms / 1000
        bounds.append(alone + Calls().prefill(1, 256, 1) + one.drawn * Calls().insert(1, 64, 1))
    assert slowest >= max(bounds) - 1e-9


@settings(max_examples=30, deadline=None)
@given(conversations(), st.integers(1, 4), st.integers(1, 6), st.integers(1, 3))
def test_equal_conversations_leave_no_host_waiting(one, hosts, samples, questions):
    groups = [[one] * samples] * (hosts * questions)
    times = simulate_rollout(groups, hosts, SHAPE, Calls(), COSTS)
    assert len({time.seconds for time in times}) == 1


@settings(max_examples=60, deadline=None)
@given(GROUPS, st.integers(0, 3), st.integers(1, 3))
def test_more_slots_are_not_slower_where_calls_cost_equal(groups, power, hosts):
    """Of one lane that decodes step by step, at no other cost: a slot is a machine of a list schedule."""
    calls, sizes = Calls(start=0.0, entering=0.0), (1 << power, 2 << power)
    one = dataclasses.replace(SHAPE, lanes=1, decode_steps=1)
    seconds = [
        max(
            t.seconds for t in simulate_rollout(groups, hosts, dataclasses.replace(one, slots=n), calls, FREE)
        )
        for n in sizes
    ]
    assert seconds[1] <= seconds[0] + 1e-9


def test_a_host_with_longer_conversations_is_waited_for():
    short, long = Lengths(100, 1, (Turn(9),)), Lengths(100, 1, (Turn(65),))
    times = simulate_rollout([[short], [long]], 2, SHAPE, Calls(), FREE)
    assert [time.decode_steps for time in times] == [8, 64]
    assert times[1].seconds - times[0].seconds == pytest.approx(56 * Calls.decode)
    # a queue gives the free host the next conversation, where parts would be unequal
    groups = [[long], [short], [long], [short]]
    equal, shared = (
        max(t.seconds for t in simulate_rollout(groups, 2, shape, Calls(), FREE, queue))
        for queue, shape in ((q, dataclasses.replace(SHAPE, slots=1, lanes=1)) for q in (False, True))
    )
    assert shared < equal


def test_one_lane_draws_while_the_other_decodes():
    turns = (*[Turn(33, 40, 1)] * 3, Turn(33))
    groups = [[Lengths(100, 1, turns)] * 8]
    costs = dataclasses.replace(FREE, draw_ms=20, threads=4)
    two, one = (
        simulate_rollout(
            groups, 1, dataclasses.replace(SHAPE, lanes=lanes, slots=8 // lanes, threads=4), Calls(), costs
        )[0]
        for lanes in (2, 1)
    )
    assert one.parts["drawing"] == pytest.approx(3 * 2 * 0.02)  # 8 drawings on 4 threads, in 3 turns
    assert two.parts["drawing"] == 0


def test_a_prompt_is_computed_once_for_its_samples():
    groups = [[Lengths(200, 1, (Turn(5),))] * 12]
    time = simulate_rollout(groups, 1, SHAPE, Calls(decode=0.0, start=0.0), FREE)[0]
    assert time.prefills == 1 and time.seconds == pytest.approx(Calls().prefill(1, 256, 1))
    # 4 rows of a call where 3 questions begin at once
    time = simulate_rollout(
        [group[:1] for group in groups * 3], 1, SHAPE, Calls(decode=0.0, start=0.0), FREE
    )[0]
    assert time.seconds == pytest.approx(Calls().prefill(4, 256, 4))


def test_a_prompt_starts_as_many_slots_a_call_as_it_may_write():
    groups = [[Lengths(200, 1, (Turn(1),))] * 4]
    for call_rows, calls in ((0, 1), (1, 4)):
        shape = dataclasses.replace(SHAPE, lanes=1, call_rows=call_rows)
        (time,) = simulate_rollout(groups, 1, shape, Calls(decode=0.0, start=1.0, entering=0.0), FREE)
        assert time.seconds == calls


def test_a_decode_call_ends_when_enough_rows_have_stopped():
    groups = [[Lengths(100, 1, (Turn(tokens),))] for tokens in (3, 3, 3, 31)]
    one = dataclasses.replace(SHAPE, lanes=1, stop_fraction=0.5)
    time = simulate_rollout(
        groups, 1, one, Calls(entering=0.0, start=0.0), HostCosts(0, 0, 0, 0, 0, call_ms=1)
    )[0]
    # 2 steps, a call in which the row that is left decodes 28 more; starts and prefill are calls, too
    assert time.decode_steps == 30 and time.parts["host"] == pytest.approx(0.001 * 4)


def test_large_replies_enter_in_pieces_that_fit():
    found = pieces(Turn(7, 150, 2), SHAPE.inserts)
    assert sum(tokens for tokens, _ in found) == 151 and sum(images for _, images in found) == 2
    assert all(tokens <= 64 and images <= 1 for tokens, images in found)
    assert pieces(Turn(7, 40, 1), SHAPE.inserts) == [(41, 1)]


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0, 9)), min_size=1, max_size=9))
def test_building_overlaps_computing(calls):
    builds, runs = [build for build, _ in calls], [run for _, run in calls]
    found = pipeline(builds, runs)
    assert found.seconds == pytest.approx(sum(runs) + found.idle)
    assert found.seconds >= max(sum(runs) + builds[0], sum(builds) + runs[-1]) - 1e-6
    assert pipeline([0.0] * len(runs), runs).idle == 0
