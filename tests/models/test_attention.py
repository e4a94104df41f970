"""Every attention backend against a few lines of NumPy, in values and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models.small import SMALL, image_rows
from vilasr_jax.models.qwen2_5_vl import Qwen2_5_VL, VisionInput, cached_attention, self_attention
from vilasr_jax.models.transformer import attention
from vilasr_jax.models.transformer.attention import banded_attention

SEGMENTS = {
    "one": lambda t: np.ones(t),
    "packed, padded": lambda t: np.repeat([1, 2, 3, 0], [t // 3, t // 4, t - t // 3 - t // 4 - 5, 5]),
    "interleaved": lambda t: np.arange(t) % 3 + 1,
}


def inputs(b, t, n, kv, h, dtype=np.float32):
    rng = np.random.default_rng(0)
    return [rng.normal(size=(b, t, heads, h)).astype(dtype) for heads in (n, kv, kv)]


def plain(q, k, v, segments, causal):
    b, t, n, h = q.shape
    out = np.zeros(q.shape)
    for i in range(b):
        for head in range(n):
            kv = head * k.shape[2] // n
            scores = q[i, :, head].astype(np.float64) @ k[i, :, kv].T / np.sqrt(h)
            mask = segments[i][:, None] == segments[i]
            if causal:
                mask &= np.tri(t, dtype=bool)
            weights = np.where(mask, np.exp(scores), 0)
            out[i, :, head] = weights / weights.sum(-1, keepdims=True) @ v[i, :, kv]
    return out


@pytest.mark.parametrize("backend", ["xla", "splash_interpret"])
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("name", SEGMENTS)
def test_backends_equal_plain_attention(backend, causal, name):
    q, k, v = inputs(2, 139, 6, 2, 26)
    segments = np.stack([SEGMENTS[name](139), np.ones(139)]).astype(np.int32)
    out = self_attention(q, k, v, segments, causal=causal, backend=backend)
    real = segments > 0
    np.testing.assert_allclose(np.asarray(out)[real], plain(q, k, v, segments, causal)[real], atol=1e-5)
    assert np.isfinite(out).all()


def test_blocks_of_queries_save_memory(monkeypatch):
    def memory(most, gradient):
        monkeypatch.setattr(attention, "_MAX_SCORES", most)

        def loss(q, k, v):
            return self_attention(q, k, v, jnp.ones((2, 509), jnp.int32), causal=False).sum()

        function = jax.grad(loss, argnums=(0, 1, 2)) if gradient else loss
        q, k, v = inputs(2, 509, 4, 4, 26)
        got = jax.jit(function).lower(q, k, v).compile()
        return got(q, k, v), got.memory_analysis().temp_size_in_bytes

    for gradient in (False, True):
        (want, all_at_once), (got, blocks) = memory(1 << 23, gradient), memory(1 << 18, gradient)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-3, rtol=1e-4), got, want)
        assert blocks < 0.5 * all_at_once


@pytest.mark.parametrize("causal", [True, False])
def test_gradients_of_splash_equal_plain(causal):
    q, k, v = inputs(1, 131, 4, 2, 26)
    segments = SEGMENTS["packed, padded"](131)[None].astype(np.int32)
    weight = np.random.default_rng(1).normal(size=q.shape) * (segments > 0)[..., None, None]

    def gradients(backend):
        def loss(*qkv):
            return (self_attention(*qkv, segments, causal=causal, backend=backend) * weight).sum()

        return jax.jit(jax.grad(loss, (0, 1, 2)))(q, k, v)

    for a, b in zip(gradients("xla"), gradients("splash_interpret"), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@jax.jit
def banded_and_full(q, k, v, segments):
    return banded_attention(q, k, v, segments, 7), self_attention(q, k, v, segments, causal=False)


@settings(deadline=None, max_examples=60)
@given(st.sampled_from((3, 28, 61)), st.lists(st.integers(1, 7), min_size=1, max_size=20))
def test_banded_attention_is_attention_inside_short_segments(t, lengths):
    """Rows of fewer tokens than a band, of a multiple of it, and of neither; segments fill them or not."""
    segments = np.repeat(np.arange(1, len(lengths) + 1), lengths)[:t]
    real = len(segments)
    segments = np.pad(segments, (0, t - real))[None].astype(np.int32)
    out, want = banded_and_full(*inputs(1, t, 2, 1, 6), segments)
    np.testing.assert_allclose(out[0, :real], want[0, :real], atol=1e-6)


def test_vision_tower_is_the_same_with_windows_one_by_one():
    vision = image_rows([(1, 12, 12), (2, 10, 6), (1, 4, 4)], 220)  # its windows are attended to one by one
    short = VisionInput(*(array[:, :, :160] for array in vision))  # all at once
    graphdef, params = nnx.split(Qwen2_5_VL(SMALL, rngs=nnx.Rngs(0)).visual)

    def look(params, vision):
        out = nnx.merge(graphdef, params)(vision).reshape(3, -1, SMALL.hidden_size)
        out = [out[i, :tokens] for i, tokens in enumerate((36, 30, 4))]
        return sum((x**2).mean() for x in out), out

    gradients = jax.jit(jax.grad(look, has_aux=True))
    (grads, out), (want_grads, want) = (gradients(params, rows) for rows in (vision, short))
    for a, b in zip(jax.tree.leaves((grads, out)), jax.tree.leaves((want_grads, want)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * max(1, np.abs(b).max()))


def test_cached_attention_sees_its_slots_only():
    q, k, v = inputs(2, 5, 6, 2, 26)
    k, v = k.swapaxes(1, 2), v.swapaxes(1, 2)  # as the cache keeps them
    visible = np.array([[1, 2, 3, 4, 5], [2, 2, 3, 5, 1]])
    out = cached_attention(q, k, v, visible)
    for row in range(2):
        for j in range(5):
            piece = slice(0, visible[row, j])
            keys, values = k[row : row + 1, :, piece], v[row : row + 1, :, piece]
            alone = cached_attention(
                q[row : row + 1, j : j + 1], keys, values, visible[row : row + 1, j : j + 1]
            )
            np.testing.assert_allclose(out[row, j], alone[0, 0], atol=1e-6)


def test_bfloat16_stays_bfloat16():
    q, k, v = (jnp.asarray(a, jnp.bfloat16) for a in inputs(1, 7, 4, 2, 26))
    for backend in ("xla", "splash_interpret"):
        out = self_attention(q, k, v, np.ones((1, 7), np.int32), causal=True, backend=backend)
        assert out.dtype == jnp.bfloat16
