"""The live cache against reading everything at once; the pieces of a call."""

import jax
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests import tiny
from vilasr_jax.models import default_family
from vilasr_jax.models.qwen2_5_vl import init_cache
from vilasr_jax.processing import Buckets, Encoded, encode_turn, image_grid
from vilasr_jax.rollout.batch import Incoming, new_tokens, shapes, split, vision_rows

BUCKETS = Buckets((11, 29), (2,), (8, 24))
LONGEST = 130


def piece(rng: np.random.Generator, start: int, images: int, words: int) -> Incoming:
    """Text and pictures of random sizes, from M-RoPE position `start` on."""
    tokenizer = tiny.tokenizer()
    content = [{"type": "text", "text": "".join(rng.choice(list("abc 12"), words))}]
    for _ in range(images):
        width, height = (28 * int(n) for n in rng.integers(1, 3, 2))
        pixels = rng.integers(0, 255, (height, width, 3), np.uint8)
        content.insert(
            int(rng.integers(0, len(content) + 1)), {"type": "image", "image": Image.fromarray(pixels)}
        )
    turn = encode_turn(tokenizer, {"role": "user", "content": content}, closed=True)
    part = slice(0, None) if images else slice(0, max(1, words))
    return Incoming(Encoded(turn.ids[part], turn.loss_mask[part], turn.images, turn.special), start)


@pytest.fixture(scope="module")
def read():
    """Compiled: new tokens into a cache; logits at each row's last."""
    graphdef, params = tiny.graphdef(), tiny.params()

    @jax.jit
    def call(cache, new):
        model = nnx.merge(graphdef, params)
        m, t = new.tokens.shape
        vision = None if new.vision is None else model.encode_vision(new.vision)
        index = None if vision is None else new.image_index.reshape(1, -1)
        x = model.embed(new.tokens.reshape(1, -1), index, vision).reshape(m, t, -1)
        valid = np.arange(t) < new.length[:, None]
        hidden, cache = model.extend(x, new.positions, valid, cache)
        at = jax.numpy.maximum(new.length - 1, 0)[:, None, None]
        last = jax.numpy.take_along_axis(hidden, at, axis=1)[:, 0]
        return cache, model.logits(last)

    return call


@given(
    st.integers(0, 2**32 - 1),
    st.lists(st.tuples(st.integers(0, 2), st.integers(1, 9)), min_size=2, max_size=4),
)
@settings(max_examples=8, deadline=None, derandomize=True)
def test_cached_equals_uncached(read, seed, turns):
    """Three ragged rows, any mix of turns and pictures: next-token logits as from a prefill of everything."""
    rng = np.random.default_rng(seed)
    cache = init_cache(tiny.config(), 3, LONGEST)
    said: list[list[Incoming]] = [[], [], []]
    for images, words in turns:
        news = []
        for own in said:
            start = own[-1].next_position if own else 0
            new = piece(rng, start, int(rng.integers(0, images + 1)), int(rng.integers(1, words + 1)))
            news.append(new if len(new.encoded.ids) <= BUCKETS.tokens[-1] else piece(rng, start, 0, 3))
        for own, new in zip(said, news, strict=True):
            own.append(new)
        cache, logits = read(cache, new_tokens([news], 3, BUCKETS))
    large = Buckets((LONGEST,), (8,), (24,))
    everything = []
    for own in said:
        ids = np.concatenate([new.encoded.ids for new in own])
        images = [image for new in own for image in new.encoded.images]
        everything.append(Incoming(Encoded(ids, np.zeros(len(ids), bool), images, own[0].encoded.special), 0))
        joined = np.concatenate([new.positions for new in own], axis=1)
        scratch, _ = default_family().positions(
            ids, [image_grid(image) for image in images], own[0].encoded.special
        )
        np.testing.assert_array_equal(joined, scratch)
    _, want = read(init_cache(tiny.config(), 3, LONGEST), new_tokens([everything], 3, large))
    np.testing.assert_array_equal(cache.length, [len(own.encoded.ids) for own in everything])
    np.testing.assert_allclose(logits, want, atol=1e-4)


def test_images_of_several_turns_are_in_one_vision_row():
    rng = np.random.default_rng(0)
    small = [Image.fromarray(rng.integers(0, 255, (28, 28, 3), np.uint8)) for _ in range(3)]
    special = tiny.tokenizer().special
    ids = np.array([special.vision_start, special.image_pad, special.vision_end], np.int32)
    news = [Incoming(Encoded(ids, np.zeros(3, bool), [image], special), 0) for image in small]
    new = new_tokens([news], 4, Buckets((8,), (1,), (8, 24)))
    assert new.vision.patches.shape[:3] == (1, 2, 8)  # two images of 4 patches in one row of 8, one alone
    np.testing.assert_array_equal(new.image_index[:3, 1], [0, 1, 2])
    np.testing.assert_array_equal(new.vision.image_ids[0], [[1] * 4 + [2] * 4, [1] * 4 + [0] * 4])
    assert new.length.tolist() == [3, 3, 3, 0]


@given(st.lists(st.integers(0, 40), min_size=1, max_size=4), st.integers(1, 40))
def test_rows_are_divided_over_calls(counts, most):
    buckets = sorted({max(1, most // 8), most})
    calls = list(split(counts, buckets))
    for shard, count in enumerate(counts):
        rows = [list(range(count))[parts[shard]] for _, parts in calls]
        assert [row for own in rows for row in own] == list(range(count))
        assert all(len(own) <= size for own, (size, _) in zip(rows, calls, strict=True))
    padded = sum(size for size, _ in calls) - max(counts)
    assert padded < buckets[0] or padded <= most // 2


def test_shapes_are_all_that_calls_use():
    buckets = Buckets((11, 29), (0, 3), (8, 24))
    assert vision_rows(2, buckets) == [0, 1, 3, 6]
    assert len(list(shapes((1, 2), buckets))) == 2 * (1 + 2 * 2) + 2 * (1 + 3 * 2)
