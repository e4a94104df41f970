"""Packed rows hold their conversations and pictures apart, and hold a lot."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests import tiny
from vilasr_jax.errors import ConfigError, DataError
from vilasr_jax.processing import Buckets, Budget, Encoded, collate, collate_packed, pack
from vilasr_jax.tasks.packed import PackedBatches
from vilasr_jax.tasks.pipeline import batches

BUDGET = Budget(tokens=61, vision_rows=3, patches=32)
SIZES = ((28, 28), (56, 28), (84, 56), (28, 84))


def example(seed: int, words: int, pictures: int) -> Encoded:
    """Random ids with pictures among them, and an extra that is different for every token."""
    rng, special = np.random.default_rng(seed), tiny.tokenizer().special
    ids, images = [], []
    for place in sorted(rng.integers(0, words + 1, pictures).tolist(), reverse=True):
        width, height = SIZES[rng.integers(len(SIZES))]
        images.append(Image.fromarray(rng.integers(0, 255, (height, width, 3), np.uint8)))
        ids.append(
            (
                place,
                [special.vision_start, *[special.image_pad] * (width * height // 784), special.vision_end],
            )
        )
    flat = rng.integers(0, 200, words).tolist()
    for place, tokens in ids:
        flat[place:place] = tokens
    images.reverse()
    mask = rng.random(len(flat)) < 0.4
    mask[0] = False
    extras = {"mark": 1000.0 * seed + np.arange(len(flat), dtype=np.float32)}
    return Encoded(np.array(flat, np.int32), mask, images, special, extras)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 20), st.integers(0, 3)), min_size=1, max_size=7), st.integers(0, 99))
def test_every_conversation_is_complete_in_some_row(sizes, seed):
    examples = [example(seed * 10 + i, words, pictures) for i, (words, pictures) in enumerate(sizes)]
    rows = pack(examples, BUDGET)
    batch = collate_packed(rows, BUDGET, rows=len(rows) + 1)
    alone = collate(examples, buckets=Buckets((61,), (3,), (24,)))
    found = []
    for i, row in enumerate(rows):
        at = 0
        for segment, packed in enumerate(row.examples, 1):
            k = next(n for n, e in enumerate(examples) if e is packed)
            found.append(k)
            span = slice(at, at + len(packed.ids))
            at = span.stop
            assert (batch.segment_ids[i, span] == segment).all()
            for name in ("tokens", "loss_mask"):
                np.testing.assert_array_equal(
                    getattr(batch, name)[i, span], getattr(alone, name)[k, : len(packed)]
                )
            np.testing.assert_array_equal(batch.positions[:, i, span], alone.positions[:, k, : len(packed)])
            np.testing.assert_array_equal(batch.extras["mark"][i, span], packed.extras["mark"])
            pads = np.flatnonzero(batch.image_index[i, span] >= 0)
            np.testing.assert_array_equal(pads, np.flatnonzero(alone.image_index[k] >= 0))
            for own, other in zip(batch.image_index[i, span][pads], alone.image_index[k][pads], strict=True):
                for field in ("patches", "pos_hw"):
                    mine = getattr(batch.vision, field)[i].reshape(
                        -1, 4, getattr(batch.vision, field).shape[-1]
                    )
                    theirs = getattr(alone.vision, field)[k].reshape(
                        -1, 4, getattr(alone.vision, field).shape[-1]
                    )
                    np.testing.assert_array_equal(mine[own], theirs[other])
        assert not batch.segment_ids[i, at:].any() and (batch.image_index[i, at:] == -1).all()
    assert sorted(found) == list(range(len(examples)))
    assert not batch.segment_ids[-1].any()
    for i, row in enumerate(
        rows
    ):  # pictures of one vision row never have a window in common or an image number
        patches = [r * c // 196 for e in row.examples for im in e.images for r, c in [im.size]]
        count = sum(len(np.unique(ids[ids > 0])) for ids in batch.vision.image_ids[i])
        assert count == len(patches)
        assert (batch.vision.image_ids[i] > 0).sum() == sum(patches)
        assert ((batch.vision.window_ids[i] > 0) == (batch.vision.image_ids[i] > 0)).all()


def test_what_does_not_fit_is_an_error():
    with pytest.raises(DataError, match="example 0 has 80 tokens and 0 pictures"):
        pack([example(0, 80, 0)], BUDGET)
    with pytest.raises(DataError, match="vision_rows=3 of packing"):
        pack([example(3, 5, 3)], Budget(61, 3, 8))
    with pytest.raises(ConfigError, match="a multiple of 4"):
        Budget(10, 1, 6)


class Stream:
    """An endless stream of short conversations."""

    def __init__(self):
        self.requested = []

    def __getitem__(self, index):
        self.requested.append(index)
        return example(index, 3 + index * 7 % 23, index % 3)


def drained(batches, count):
    return [next(batches) for _ in range(count)]


def same(a, b):
    assert len(a) == len(b)
    for one, other in zip(a, b, strict=True):
        for name in ("tokens", "segment_ids", "positions", "image_index", "loss_mask"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
        np.testing.assert_array_equal(one.vision.patches, other.vision.patches)


def test_the_stream_goes_on_where_it_was_on_any_number_of_hosts():
    options = dict(budget=BUDGET, rows=4, lookahead=5)
    stream = Stream()
    full = PackedBatches(stream, **options)
    first, state = drained(full, 3), full.get_state()
    rest = drained(full, 3)
    again = PackedBatches(Stream(), **options)
    again.set_state(state)
    same(drained(again, 3), rest)
    hosts = [PackedBatches(Stream(), **options, host=(i, 2)) for i in range(2)]
    halves = [drained(host, 3) for host in hosts]
    same([_joined(*pair) for pair in zip(*halves, strict=True)], first)
    lanes = {}
    for host in hosts:
        lanes |= host.get_state()["lanes"]
    assert lanes == state["lanes"]
    marks = np.concatenate([b.extras["mark"][b.segment_ids > 0] for b in [*first, *rest]])
    assert len(np.unique(marks)) == len(marks)  # no conversation comes twice


def _joined(one, other):
    joined = {
        f: np.concatenate([getattr(one, f), getattr(other, f)], 1 if f == "positions" else 0)
        for f in ("tokens", "positions", "segment_ids", "image_index", "loss_mask")
    }
    vision = type(one.vision)(*(np.concatenate(pair) for pair in zip(one.vision, other.vision, strict=True)))
    return one._replace(**joined, vision=vision)


def realistic_lengths(count: int) -> np.ndarray:
    """Tokens of conversations of 3 to 12 turns with a picture each, as published, divided by 16."""
    rng = np.random.default_rng(0)
    turns = 2 + np.minimum(rng.geometric(0.25, count), 10)
    return np.minimum(((300 + turns * (330 + rng.exponential(90, count))) / 16).astype(int), 1152)


def test_at_least_95_percent_of_a_packed_batch_is_useful():
    lengths, special = realistic_lengths(3000), tiny.tokenizer().special

    class Texts:
        def __getitem__(self, index):
            n = lengths[index]
            return Encoded(np.ones(n, np.int32), np.ones(n, bool), [], special)

    batches = PackedBatches(Texts(), Budget(1152, 1, 4), 4)
    packed = np.mean([(batch.segment_ids > 0).mean() for batch in drained(batches, 40)])
    buckets = (288, 576, 864, 1152)
    padded = [
        part.sum() / (32 * min(b for b in buckets if b >= part.max()))
        for part in lengths[:2976].reshape(-1, 32)
    ]
    print(f"useful tokens: packed {packed:.1%}, padded to buckets {np.mean(padded):.1%}")
    assert packed >= 0.95 > np.mean(padded)


def test_padded_batches_resume_on_any_number_of_hosts():
    class Texts:
        def __len__(self):
            return 7

        def __getitem__(self, index):
            return example(int(index), 5 + int(index), 0)

    def batched(host=(0, 1)):
        return batches([Texts()], [1], seed=1, batch=4, buckets=Buckets((16,), (0,), (4,)), host=host)

    full = batched()
    first, state = drained(full, 3), full.get_state()
    rest = drained(full, 2)
    assert state == {"taken": 3} and len(first) == 3
    halves = [batched((i, 2)) for i in range(2)]
    for half in halves:
        half.set_state(state)
    for expected, one, other in zip(rest, *(drained(half, 2) for half in halves), strict=True):
        both = np.concatenate([one.tokens, other.tokens])
        assert sorted(map(tuple, both.tolist())) == sorted(map(tuple, expected.tokens.tolist()))
    again = batched()
    again.set_state(state)
    for one, other in zip(drained(again, 2), rest, strict=True):
        np.testing.assert_array_equal(one.tokens, other.tokens)
