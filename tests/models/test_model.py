"""The full model: cached and uncached agree, images go where they belong, padding changes nothing."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.models.small import SMALL, SMALLS, image_rows, text_batch
from vilasr_jax.models.params import build
from vilasr_jax.models.qwen2_5_vl import Qwen2_5_VL, VisionInput, init_cache

TOLERANCE = 3e-5


@pytest.fixture(scope="module", params=SMALLS)
def model(request):
    return build(SMALLS[request.param])


@pytest.fixture(scope="module")
def split(model):
    return nnx.split(model)


@pytest.fixture(scope="module")
def read(split):
    """Compiled: hidden states of full rows."""
    graphdef, params = split
    run = jax.jit(lambda params, *inputs: nnx.merge(graphdef, params)(*inputs))
    return functools.partial(run, params)


@pytest.fixture(scope="module")
def look(split):
    """Compiled: vision tokens."""
    graphdef, params = split
    run = jax.jit(lambda params, vision: nnx.merge(graphdef, params).encode_vision(vision))
    return functools.partial(run, params)


@pytest.fixture(scope="module")
def extend(split):
    graphdef, _ = split

    @jax.jit
    def run(params, tokens, positions, valid, cache):
        m = nnx.merge(graphdef, params)
        hidden, cache = m.extend(m.embed(tokens), positions, valid, cache)
        return m.logits(hidden), cache

    return run


def read_in_pieces(extend, split, tokens, positions, pieces, slots):
    """Reads each row in pieces of the given lengths (one list a row); logits as one array."""
    b, t = tokens.shape
    config, params = nnx.merge(*split).config, split[1]
    cache, done = init_cache(config, b, slots), np.zeros(b, int)
    logits = np.zeros((b, t, SMALL.vocab_size), np.float32)
    for lengths in pieces:
        width = max(lengths)
        part, where = np.zeros((b, width), np.int32), np.zeros((3, b, width), np.int32)
        valid = np.arange(width) < np.array(lengths)[:, None]
        for row, count in enumerate(lengths):
            piece = slice(done[row], done[row] + count)
            part[row, :count], where[:, row, :count] = tokens[row, piece], positions[:, row, piece]
        out, cache = extend(params, part, where, valid, cache)
        for row, count in enumerate(lengths):
            logits[row, done[row] : done[row] + count] = out[row, :count]
        done += lengths
    return logits, cache


def test_reading_in_ragged_pieces_equals_reading_at_once(model, split, extend, read):
    tokens, positions, segments = text_batch(3, 17)
    uncached = model.logits(read(tokens, positions, segments))
    pieces = [(5, 2, 0), (1, 1, 1), (0, 7, 5), (11, 7, 11)]
    logits, cache = read_in_pieces(extend, split, tokens, positions, pieces, slots=19)
    np.testing.assert_array_equal(cache.length, [17, 17, 17])
    np.testing.assert_allclose(logits, uncached, atol=TOLERANCE)


def test_tokens_without_a_slot_are_dropped_and_overwrite_nothing(split, extend):
    tokens, positions, _ = text_batch(2, 8)
    _, cache = read_in_pieces(extend, split, tokens, positions, [(5, 3)], slots=5)
    valid = np.array([[True, True, True], [True, True, False]])
    _, full = extend(split[1], tokens[:, :3], positions[..., :3], valid, cache)
    np.testing.assert_array_equal(full.k[0][0], cache.k[0][0])
    np.testing.assert_array_equal(full.k[2][1, :, :3], cache.k[2][1, :, :3])
    assert np.abs(full.k[0][1, :, 3:5]).min() > 0


def test_what_is_not_valid_changes_no_other_token(split, extend):
    tokens, positions, _ = text_batch(1, 6)
    valid = np.array([[True] * 4 + [False] * 2])
    other = tokens.copy()
    other[0, 4:] = 7
    outs = [
        extend(split[1], t, positions, valid, init_cache(nnx.merge(*split).config, 1, 11))
        for t in (tokens, other)
    ]
    np.testing.assert_array_equal(outs[0][0][:, :4], outs[1][0][:, :4])
    np.testing.assert_array_equal(outs[0][1].k[1], outs[1][1].k[1])


def test_packed_segments_do_not_see_each_other(read):
    tokens, positions, _ = text_batch(1, 19)
    segments = np.array([[1] * 7 + [2] * 8 + [0] * 4], np.int32)
    positions = np.stack(
        [np.concatenate([np.arange(7), np.arange(8), np.zeros(4)])[None].astype(np.int32)] * 3
    )
    packed = read(tokens, positions, segments)
    for piece in (slice(0, 7), slice(7, 15)):
        count = piece.stop - piece.start
        alone = read(tokens[:, piece], positions[..., piece], np.ones((1, count), np.int32))
        np.testing.assert_allclose(packed[:, piece], alone, atol=TOLERANCE)


def test_long_sequences_are_the_same_in_blocks(read):
    tokens, positions, segments = text_batch(1, 151)
    long = read(tokens, positions, segments)
    np.testing.assert_allclose(
        long[:, :61], read(tokens[:, :61], positions[..., :61], segments[:, :61]), atol=TOLERANCE
    )


def test_an_image_is_the_same_alone_packed_and_padded(model, look):
    grids = [(1, 6, 10), (1, 14, 10)]
    rows = image_rows(grids, 140, config=model.config)
    apart = np.asarray(look(rows))[0].reshape(2, 35, -1)
    for row, (_, h, w) in enumerate(grids):
        p = h * w
        alone = look(VisionInput(*(a[:, row : row + 1, :p] for a in rows)))
        np.testing.assert_allclose(apart[row, : p // 4], alone[0], atol=TOLERANCE)
    packed = VisionInput(*(np.concatenate([a[:, 0, :60], a[:, 1]], 1)[:, None] for a in rows))
    packed.window_ids[0, 0, 60:] += 100
    packed.image_ids[0, 0, 60:] += 100
    both = look(packed)[0]
    np.testing.assert_allclose(both, np.concatenate([apart[0, :15], apart[1]]), atol=TOLERANCE)


def test_windows_hide_what_full_attention_shows():
    """With no full-attention block, a patch outside a window cannot change what is in it."""
    vision = dataclasses.replace(SMALL.vision, fullatt_block_indexes=())
    graphdef, params = nnx.split(Qwen2_5_VL(SMALL.replace(vision=vision), rngs=nnx.Rngs(1)))
    look = jax.jit(lambda rows: nnx.merge(graphdef, params).encode_vision(rows))
    rows = image_rows([(1, 10, 10)], 100)
    before = np.asarray(look(rows))  # read before its input changes
    rows.patches[0, 0, rows.window_ids[0, 0] != 1] += 1
    after = np.asarray(look(rows))
    inside = rows.window_ids[0, 0, ::4] == 1
    np.testing.assert_allclose(before[0, inside], after[0, inside], atol=1e-6)
    assert np.abs(before[0, ~inside] - after[0, ~inside]).min(axis=-1).max() > 0


def test_image_tokens_are_gathered_inside_their_own_row(model):
    tokens = np.full((2, 5), 3, np.int32)
    index = np.array([[-1, 1, 0, -1, 2], [2, -1, -1, 0, 1]], np.int32)
    vision_tokens = np.random.default_rng(0).normal(size=(2, 3, SMALL.hidden_size)).astype(np.float32)
    x = np.asarray(model.embed(tokens, index, vision_tokens))
    text = np.asarray(model.embed(tokens))
    for row in range(2):
        for t in range(5):
            i = index[row, t]
            np.testing.assert_array_equal(x[row, t], text[row, t] if i < 0 else vision_tokens[row, i])


def test_a_conversation_with_images_is_the_same_read_in_pieces(model, split):
    """A picture in the prompt and one in a later turn, which may add to the decoder's first layers."""
    config, t = model.config, 23
    tokens, positions, segments = text_batch(1, t)
    vision = image_rows([(1, 2, 4), (1, 4, 6)], 24, config=config)
    index = np.full((1, t), -1, np.int32)
    index[0, 3:5], index[0, 11:17] = range(2), range(6, 12)
    graphdef, params = split

    @jax.jit
    def uncached(params):
        m = nnx.merge(graphdef, params)
        return m.logits(m(tokens, positions, segments, index, vision))

    @jax.jit
    def read(params, tokens, positions, index, cache):
        m = nnx.merge(graphdef, params)
        x = m.embed(tokens) if index is None else m.embed(tokens, index, m.encode_vision(vision))
        hidden, cache = m.extend(x, positions, tokens >= 0, cache)
        return m.logits(hidden), cache

    cache, pieces = init_cache(config, 1, t), []
    for part, images in ((slice(0, 7), True), (slice(7, 8), False), (slice(8, 23), True)):
        out, cache = read(
            params, tokens[:, part], positions[..., part], index[:, part] if images else None, cache
        )
        pieces.append(out)
    np.testing.assert_allclose(np.concatenate(pieces, 1), uncached(params), atol=TOLERANCE)


@pytest.mark.slow
def test_remat_and_unrolling_change_no_gradient(split):
    config, tokens, positions, segments = nnx.merge(*split).config, *text_batch(2, 11)
    vision = VisionInput(*(np.concatenate([a, a]) for a in image_rows([(1, 2, 4)], 8, config=config)))
    index = np.where(np.arange(11) < 2, np.arange(11), -1)[None].repeat(2, 0).astype(np.int32)
    grads = []
    for changes in ({}, {"remat": "full", "scan_unroll": 3}, {"remat": "dots"}, {"remat": "attention"}):
        graphdef = nnx.graphdef(nnx.eval_shape(lambda c=changes: build(config.replace(**c))))

        def loss(params, graphdef=graphdef):
            m = nnx.merge(graphdef, params)
            return jnp.square(m.logits(m(tokens, positions, segments, index, vision))).mean()

        grads.append(jax.tree.leaves(jax.jit(jax.grad(loss))(split[1])))
    for other in grads[1:]:
        for a, b in zip(grads[0], other, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)


def test_remat_of_all_but_attention_runs_its_kernel_once():
    tokens, positions, segments = text_batch(1, 128)

    def kernels(remat):
        """How often a gradient calls them."""
        config = SMALL.replace(remat=remat, attention="splash_interpret", scan_unroll=1)
        graphdef, params = nnx.split(nnx.eval_shape(lambda: Qwen2_5_VL(config, rngs=nnx.Rngs(0))))

        def loss(params):
            return nnx.merge(graphdef, params)(tokens, positions, segments).sum()

        return jax.jit(jax.grad(loss)).lower(params).as_text().count("call @_splash_attention")

    assert kernels("dots") == kernels("attention") == kernels("full") - 1


def test_tied_embeddings_have_no_head_of_their_own():
    model = Qwen2_5_VL(SMALL.replace(tie_word_embeddings=True), rngs=nnx.Rngs(0))
    assert model.lm_head is None
    hidden = np.eye(3, SMALL.hidden_size, dtype=np.float32)
    np.testing.assert_allclose(
        model.logits(hidden), model.language_model.embed_tokens.embedding[...].T[:3], rtol=1e-6
    )


def test_gradients_are_finite_with_padding_everywhere(split):
    tokens, positions, _ = text_batch(2, 9)
    segments = np.array([[1] * 5 + [0] * 4, [0] * 9], np.int32)
    vision = image_rows([(1, 2, 4)], 20, config=nnx.merge(*split).config)
    vision = VisionInput(*(np.concatenate([a, 0 * a]) for a in vision))
    index = np.where(np.arange(9) < 2, np.arange(9), -1)[None].repeat(2, 0).astype(np.int32)

    def loss(params):
        m = nnx.merge(split[0], params)
        return (m.logits(m(tokens, positions, segments, index, vision)) * (segments > 0)[..., None]).sum()

    assert all(np.isfinite(g).all() for g in jax.tree.leaves(jax.jit(jax.grad(loss))(split[1])))
