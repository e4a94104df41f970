"""M-RoPE positions: values by hand, and piece by piece against all at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vilasr_jax.errors import DataError
from vilasr_jax.models.transformer.positions import mrope_positions

side = st.integers(1, 4).map(lambda n: 2 * n)
grid = st.tuples(st.integers(1, 3), side, side)
piece = st.tuples(st.integers(0, 4), st.one_of(st.none(), grid), st.booleans())


def ids_of(special, pieces):
    """Text, then vision_start, pads, vision_end for each piece; and grids and clips in order."""
    ids, grids, clips = [], [], 0
    for words, grid, is_clip in pieces:
        ids += [1] * words
        if grid:
            frames = grid[0] if is_clip else 1
            grids.append((frames, *grid[1:]))
            clips += is_clip
            pad = special.video_pad if is_clip else special.image_pad
            ids += [special.vision_start, *[pad] * (frames * grid[1] * grid[2] // 4), special.vision_end]
    return np.array(ids, np.int32), grids, clips


def test_a_picture_by_hand(tokenizer):
    special = tokenizer.special
    ids, grids, _ = ids_of(special, [(2, (1, 4, 6), False), (1, None, False)])
    positions, following = mrope_positions(ids, grids, special)
    np.testing.assert_array_equal(positions[0], [0, 1, 2, 3, 3, 3, 3, 3, 3, 6, 7])
    np.testing.assert_array_equal(positions[1], [0, 1, 2, 3, 3, 3, 4, 4, 4, 6, 7])
    np.testing.assert_array_equal(positions[2], [0, 1, 2, 3, 4, 5, 3, 4, 5, 6, 7])
    assert following == 8 and positions.dtype == np.int32


def test_a_clip_counts_seconds(tokenizer):
    special = tokenizer.special
    ids, grids, _ = ids_of(special, [(0, (3, 2, 2), True)])
    positions, _ = mrope_positions(ids, grids, special, second_per_grid_ts=[0.75], tokens_per_second=2)
    np.testing.assert_array_equal(positions[0], [0, 1, 2, 4, 2])


@given(st.lists(piece, min_size=1, max_size=6), st.integers(0, 50), st.data())
def test_piece_by_piece_equals_all_at_once(tokenizer, pieces, start, data):
    special = tokenizer.special
    ids, grids, clips = ids_of(special, pieces)
    seconds = data.draw(st.lists(st.floats(0.1, 3), min_size=clips, max_size=clips))
    full, following = mrope_positions(ids, grids, special, start=start, second_per_grid_ts=seconds)
    assert full.shape == (3, len(ids))
    parts, position, done, clip = [], start, 0, 0
    for one in pieces:
        ids_one, grids_one, clips_one = ids_of(special, [one])
        part, position = mrope_positions(
            ids_one, grids_one, special, start=position, second_per_grid_ts=seconds[clip : clip + clips_one]
        )
        parts.append(part)
        done += len(ids_one)
        clip += clips_one
    np.testing.assert_array_equal(np.concatenate(parts, 1), full)
    assert position == following and done == len(ids)
    text = ids == 1
    assert (full[:, text] == full[:1, text]).all()


def test_pictures_that_do_not_fit_the_tokens_are_refused(tokenizer):
    special = tokenizer.special
    ids, grids, _ = ids_of(special, [(1, (1, 4, 4), False)])
    for wrong, words in [([], "only 0"), ([*grids, (1, 2, 2)], "2 pictures"), ([(1, 4, 6)], "has 4 tokens")]:
        with pytest.raises(DataError, match=words):
            mrope_positions(ids, wrong, special)
    empty, following = mrope_positions(np.zeros(0, np.int32), [], special, start=5)
    assert empty.shape == (3, 0) and following == 5
