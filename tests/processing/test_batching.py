"""Batches: buckets, padding, and the places of vision tokens."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vilasr_jax.errors import ConfigError, DataError
from vilasr_jax.processing import Buckets, collate, encode_conversation, patch_layout, patchify

BUCKETS = Buckets(tokens=(64, 128, 256), images=(0, 1, 2, 4), patches=(16, 64))


def example(tokenizer, sizes, words="left on"):
    rng = np.random.default_rng(len(sizes))
    parts = [
        {"type": "image", "image": Image.fromarray(rng.integers(0, 256, (28 * h, 28 * w, 3), dtype=np.uint8))}
        for w, h in sizes
    ]
    user = {"role": "user", "content": [*parts, {"type": "text", "text": words}]}
    return encode_conversation(tokenizer, [user, {"role": "assistant", "content": "A"}])


sizes = st.lists(st.tuples(st.integers(1, 3), st.integers(1, 4)), max_size=3)


@settings(max_examples=25)
@given(st.lists(sizes, min_size=1, max_size=3), st.integers(0, 2))
def test_everything_is_where_it_belongs(tokenizer, all_sizes, more_rows):
    examples = [example(tokenizer, of_one) for of_one in all_sizes]
    batch = collate(examples, buckets=BUCKETS, rows=len(examples) + more_rows)
    b, t = batch.tokens.shape
    assert b == len(examples) + more_rows and t in BUCKETS.tokens
    assert not batch.segment_ids[len(examples) :].any() and not batch.loss_mask[len(examples) :].any()
    most = max(map(len, all_sizes))
    assert (batch.vision is None) == (most == 0)
    for i, one in enumerate(examples):
        length = len(one.ids)
        np.testing.assert_array_equal(batch.tokens[i, :length], one.ids)
        np.testing.assert_array_equal(batch.loss_mask[i, :length], one.loss_mask)
        np.testing.assert_array_equal(batch.segment_ids[i], np.arange(t) < length)
        assert not batch.loss_mask[i, length:].any() and (batch.image_index[i, length:] == -1).all()
        grids = [patchify(image)[1] for image in one.images]
        positions, _ = one.special.family.positions(one.ids, grids, one.special)
        np.testing.assert_array_equal(batch.positions[:, i, :length], positions)
        pads = one.ids == one.special.image_pad
        np.testing.assert_array_equal(batch.image_index[i, :length] >= 0, pads)
        if batch.vision is None:
            continue
        n, p = batch.vision.patches.shape[1:3]
        assert n in BUCKETS.images and p in BUCKETS.patches
        # What image_index points at, in order, is each picture's patches in order.
        own = batch.vision.patches[i].reshape(n * p // 4, 4, 1176)
        pointed = own[batch.image_index[i][batch.image_index[i] >= 0]].reshape(-1, 1176)
        expected = [patchify(image)[0] for image in one.images]
        np.testing.assert_array_equal(pointed, np.concatenate([np.zeros((0, 1176), np.float32), *expected]))
        for k in range(n):
            count = grids[k][1] * grids[k][2] if k < len(grids) else 0
            assert not batch.vision.patches[i, k, count:].any()
            np.testing.assert_array_equal(batch.vision.image_ids[i, k] > 0, np.arange(p) < count)
            if count:
                pos_hw, window_ids, _ = patch_layout(grids[k])
                np.testing.assert_array_equal(batch.vision.pos_hw[i, k, :count], pos_hw)
                np.testing.assert_array_equal(batch.vision.window_ids[i, k, :count], window_ids)


def test_extras_are_padded_like_the_tokens(tokenizer):
    short, long = example(tokenizer, []), example(tokenizer, [(1, 1)])
    with_extras = [
        dataclasses.replace(one, extras={"logprobs": np.arange(len(one), dtype=np.float32)})
        for one in (short, long)
    ]
    batch = collate(with_extras, buckets=BUCKETS)
    assert batch.extras["logprobs"].shape == batch.tokens.shape
    np.testing.assert_array_equal(batch.extras["logprobs"][0, : len(short)], np.arange(len(short)))
    assert not batch.extras["logprobs"][0, len(short) :].any()
    with pytest.raises(DataError, match="example 1 has extras"):
        collate([with_extras[0], long], buckets=BUCKETS)


def test_what_fits_no_bucket_is_refused_by_name(tokenizer):
    fine = example(tokenizer, [(1, 1)])
    for wrong, words in [
        (example(tokenizer, [(1, 1)], "x" * 300), "example 1: 3.. tokens .* buckets.tokens=256"),
        (example(tokenizer, [(1, 1)] * 5), "example 1: 5 images .* buckets.images=4"),
        (example(tokenizer, [(5, 4)]), "example 1: 80 patches .* buckets.patches=64"),
    ]:
        with pytest.raises(DataError, match=words):
            collate([fine, wrong], buckets=BUCKETS)
    with pytest.raises(DataError, match="example 0: "):
        collate([dataclasses.replace(fine, images=[])], buckets=BUCKETS)
    with pytest.raises(DataError, match="batch of 1"):
        collate([fine, fine], buckets=BUCKETS, rows=1)


def test_buckets_must_be_ascending():
    for wrong in [((), (1,), (4,)), ((8, 4), (1,), (4,)), ((8,), (1,), (6,))]:
        with pytest.raises(ConfigError, match=r"buckets\."):
            Buckets(*wrong)
    assert Buckets([8, 16], [1], [4]).fit("tokens", 9) == 16
