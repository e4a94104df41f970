"""The engine against the training forward, from-scratch positions, and itself in other shapes."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from tests import tiny
from vilasr_jax.config import SamplingSection
from vilasr_jax.models import default_family
from vilasr_jax.processing import Encoded, collate, image_grid
from vilasr_jax.training.steps import make_logprobs

WARM = SamplingSection(temperature=0.7, top_p=0.9, max_turn_tokens=7, max_tokens=150)


@functools.cache
def uncached_logprobs(temperature):
    """Compiled: log-probabilities of a batch by the training forward."""
    return make_logprobs(tiny.graphdef(), tiny.suppressed(), temperature)


def as_batch(trajectories):
    special = tiny.tokenizer().special
    examples = [Encoded(t.tokens, t.loss_mask, t.images_in_tokens, special) for t in trajectories]
    return collate(examples, buckets=tiny.BUCKETS)


def same_tokens(one, other):
    assert [t.id for t in one] == [t.id for t in other]
    for a, b in zip(one, other, strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens, a.id)
        np.testing.assert_array_equal(a.loss_mask, b.loss_mask)
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)
        assert a.stop_reason == b.stop_reason and a.turns == b.turns


@pytest.fixture(scope="module")
def plain():
    """32 conversations of 1 to 5 turns, with pictures of four sizes put in at ragged offsets."""
    return tiny.generate(tiny.engine(), tiny.requests(32))


def test_the_sample_is_mixed(plain):
    assert {len(t.turns) for t in plain} == {1, 2, 3, 4, 5}
    assert len({len(t.tokens) for t in plain}) > 15
    assert max(t.images_read for t in plain) >= 4
    im_end = tiny.tokenizer().special.im_end
    ended = [t.tokens[np.flatnonzero(t.loss_mask)[-1]] == im_end for t in plain]
    assert any(ended) and not all(ended)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("sampling", [tiny.SAMPLING, WARM], ids=["plain", "nucleus"])
def test_cached_logprobs_equal_the_training_forward(sampling, seed):
    runner = tiny.engine(2, 2, sampling=sampling) if sampling is WARM else tiny.engine()
    trajectories = tiny.generate(runner, tiny.requests(16, first=100 * seed), seed=seed, key=seed)
    batch = as_batch(trajectories)
    logprobs = np.asarray(uncached_logprobs(sampling.temperature)(tiny.params(seed), batch))
    worst = 0.0
    for row, t in enumerate(trajectories):
        mine = logprobs[row, : len(t.tokens)][t.loss_mask]
        worst = max(worst, np.abs(mine - t.logprobs[t.loss_mask]).max())
        assert not t.logprobs[~t.loss_mask].any()
    assert worst < 1e-4, worst


def test_mask_is_exactly_what_was_sampled(plain):
    """Sampled runs and inserted turns alternate; only a sampled <|im_end|> counts."""
    special, text = tiny.tokenizer().special, tiny.tokenizer()
    for t in plain:
        edges = np.flatnonzero(np.diff(np.r_[False, t.loss_mask, False].astype(int))).reshape(-1, 2)
        assert len(edges) == len(t.turns)
        for number, ((begin, end), turn) in enumerate(zip(edges, t.turns, strict=True)):
            assert t.tokens[begin - 3] == special.im_start or t.tokens[begin - 2] == special.im_start
            ids = t.tokens[begin:end]
            closed = ids[-1] == special.im_end
            assert len(ids) <= 7 and not np.isin(ids[:-1], [special.im_end, special.endoftext]).any()
            assert text.decode(ids[ids < special.endoftext]) == turn["text"]
            if number + 1 == len(t.turns):
                assert end == len(t.tokens)
            else:  # what was cut off is closed by us, without loss
                assert closed or t.tokens[end] == special.im_end
                assert t.tokens[end + (not closed)] != special.im_end
        assert not tiny.suppressed()[t.tokens[t.loss_mask]].any()


def test_positions_equal_those_from_scratch(monkeypatch):
    runner, seen = tiny.engine(), {}
    real_start, real_insert, real_prefill = runner.steps.start, runner.steps.insert, runner.steps.prefill
    read = {}

    def note(turn, rows, sources):
        for slot, source, position, seed in zip(rows.slots, sources, rows.position, rows.seed, strict=True):
            if slot < runner.shard_slots:
                piece = turn.positions[:, source, : turn.length[source]]
                seen.setdefault(int(seed), []).append((piece, int(position)))

    def prefill(params, turn):
        prefix = real_prefill(params, turn)
        read[id(prefix)] = (prefix, turn)
        return prefix

    def start(params, state, key, prefix, rows):
        note(read[id(prefix)][1], rows, rows.source)
        return real_start(params, state, key, prefix, rows)

    def insert(params, state, key, turn, rows):
        note(turn, rows, range(len(rows.slots)))
        return real_insert(params, state, key, turn, rows)

    for name, call in (("prefill", prefill), ("start", start), ("insert", insert)):
        monkeypatch.setattr(runner.steps, name, call)
    trajectories = tiny.generate(runner, tiny.requests(12, first=40))
    for number, t in enumerate(trajectories):
        grids = [image_grid(image) for image in t.images_in_tokens]
        positions, _ = default_family().positions(t.tokens, grids, tiny.tokenizer().special)
        runs = np.flatnonzero(np.diff(np.r_[False, t.loss_mask, False].astype(int))).reshape(-1, 2)
        calls = seen[40 + number]
        assert len(calls) == len(runs)
        before = 0
        for (begin, end), (piece, start) in zip(runs, calls, strict=True):
            np.testing.assert_array_equal(piece, positions[:, before:begin])
            sampled = np.broadcast_to(start + np.arange(end - begin), (3, end - begin))
            np.testing.assert_array_equal(positions[:, begin:end], sampled)
            before = end - 1  # the last sampled token enters the cache with the next turn


@pytest.mark.parametrize(
    ("slots", "lanes", "devices"),
    [
        (2, 1, 2),
        pytest.param(8, 1, 8, marks=pytest.mark.slow),
        pytest.param(1, 1, 1, marks=pytest.mark.slow),
        pytest.param(5, 1, 1, marks=pytest.mark.slow),
        pytest.param(24, 3, 4, marks=pytest.mark.slow),
    ],
)
def test_same_tokens_in_any_slots_lanes_and_devices(plain, slots, lanes, devices):
    same_tokens(plain, tiny.generate(tiny.engine(slots, lanes, devices), tiny.requests(32)))


def test_same_tokens_in_groups_and_alone():
    """Sample n of a question equals the same question sampled alone with its seed."""
    grouped = tiny.generate(tiny.engine(), tiny.requests(5, samples=4))
    alone = [
        dataclasses.replace(request, seed=request.seed + n, samples=1)
        for request in tiny.requests(5, samples=4)
        for n in range(4)
    ]
    separate = tiny.generate(tiny.engine(), alone)  # five times the same row id, four times
    assert [t.id for t in grouped[:4]] == [f"row-0/{n}" for n in range(4)]
    for a, b in zip(grouped, separate, strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens)
    assert len({t.tokens.tobytes() for t in grouped[:4]}) == 4


def test_other_keys_and_orders(plain):
    again = tiny.generate(tiny.engine(), tiny.requests(32)[::-1])[::-1]
    same_tokens(plain, again)
    other = tiny.generate(tiny.engine(), tiny.requests(32), key=1)
    assert sum(a.tokens.tobytes() != b.tokens.tobytes() for a, b in zip(plain, other, strict=True)) > 25


def test_nothing_compiles_after_the_warm_up():
    runner = tiny.engine()
    runner.warm_up(tiny.place(tiny.params(), runner.steps.mesh))
    compiled = []

    def listen(event, duration, **_):
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        trajectories = tiny.generate(runner, tiny.requests(160, samples=3, first=500), key=3)
        trajectories += tiny.generate(runner, tiny.requests(20, first=5000), key=4)
        assert len(trajectories) == 500 and not compiled
        jax.jit(lambda x: x * 7)(np.ones(3))
        assert compiled  # the listener is called for one
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)


def test_token_limits(plain):
    """A conversation that has no room for the next turn stops; none grows past `max_tokens`."""
    runner = tiny.engine(2, 2, sampling=tiny.GREEDY)
    trajectories = tiny.generate(runner, tiny.requests(16))
    assert {t.stop_reason for t in trajectories} == {"answer", "token_limit"}
    assert max(len(t.tokens) for t in trajectories) <= tiny.GREEDY.max_tokens
    for t in trajectories:  # greedy: the recorded log-probability is that of the likeliest token
        logits = np.asarray(t.logprobs[t.loss_mask])
        assert (logits <= 0).all() and len(t.tokens) == len(t.loss_mask) == len(t.logprobs)
    np.testing.assert_array_equal(
        trajectories[0].tokens, tiny.generate(runner, tiny.requests(1), key=9)[0].tokens
    )
