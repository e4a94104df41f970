"""Products with matrices as a sampler holds them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vilasr_jax.models import products
from vilasr_jax.models.products import InferenceMatrix, gather_rows, matrix_form, multiply, pack, unpacked

SHAPES = ((37, 29), (64, 41), (2, 3))  # in, out


def matrix(shape, seed=0, dtype="bfloat16"):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def rows(width, count=3):
    return matrix((count, width), seed=1)


def test_forms_are_chosen_by_what_devices_can_do():
    assert matrix_form("", "float32", "cpu").plain and matrix_form("", "bfloat16", "tpu").plain
    assert matrix_form("", "bfloat16", "cpu").by_blocks and matrix_form("int8", "float32", "cpu").by_blocks
    assert not matrix_form("int8", "bfloat16", "tpu").by_blocks
    assert not matrix_form("int8", "bfloat16", "gpu").plain


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", (4, 1200, None))
def test_blocks_give_the_product_with_float32_sums(shape, size, monkeypatch):
    if size:  # blocks of one row, or of some, of which the last overlaps
        monkeypatch.setattr(products, "_BLOCK", size)
    x, w = rows(shape[0]), matrix(shape)
    packed = pack(w, matrix_form("", "bfloat16", "cpu"), per_row=False)
    assert isinstance(packed, InferenceMatrix) and packed.values.dtype == jnp.uint16
    want = jnp.dot(x, w, preferred_element_type=jnp.float32)
    np.testing.assert_allclose(multiply(x, packed, out_dtype=jnp.float32), want, rtol=2e-6, atol=2e-6)
    np.testing.assert_array_equal(unpacked(packed, jnp.float32), w.astype(jnp.float32))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("small", (True, False))
def test_a_table_is_looked_up_and_is_the_head(shape, small, monkeypatch):
    if small:
        monkeypatch.setattr(products, "_BLOCK", 40)  # blocks of some rows, of which the last overlaps
    table, x = matrix(shape), rows(shape[1])[None]
    packed = pack(table, matrix_form("", "bfloat16", "cpu"), per_row=True)
    want = jnp.dot(x, table.T, preferred_element_type=jnp.float32)
    np.testing.assert_allclose(multiply(x, packed, out_dtype=jnp.float32), want, rtol=2e-6, atol=2e-6)
    ids = jnp.array([[0, 1, shape[0] - 1, shape[0] + 5]])
    np.testing.assert_array_equal(
        gather_rows(packed, ids, "bfloat16"), jnp.take(table, ids, axis=0, mode="clip")
    )


@pytest.mark.parametrize("platform", ("cpu", "tpu"))
@pytest.mark.parametrize("per_row", (False, True))
def test_int8_is_within_half_a_step_of_each_weight(platform, per_row):
    w = matrix((48, 31), dtype="float32")
    w = w.at[:, 3].set(0).at[5].set(0)
    packed = pack(w, matrix_form("int8", "float32", platform), per_row=per_row)
    scales = np.abs(w).max(axis=-1 if per_row else -2, keepdims=True) / 127
    assert packed.values.dtype == jnp.int8 and packed.scales.shape == scales.shape
    error = np.abs(unpacked(packed, jnp.float32) - w)
    assert (error <= scales * 0.5001).all() and error.max() > 0
    assert not np.asarray(packed.values)[np.asarray(w) == 0].any()
    x = rows(31 if per_row else 48).astype(jnp.float32)
    exact = unpacked(packed, jnp.float32)
    want = x @ (exact.T if per_row else exact)
    np.testing.assert_allclose(multiply(x, packed), want, rtol=1e-5, atol=1e-5)


def test_a_stack_is_packed_layer_by_layer():
    w = matrix((3, 20, 9), dtype="float32")
    form = matrix_form("int8", "float32", "cpu")
    stack = pack(w, form, per_row=False)
    for i in range(3):
        one = pack(w[i], form, per_row=False)
        np.testing.assert_array_equal(stack.values[i], one.values)
        np.testing.assert_array_equal(stack.scales[i], one.scales)


@pytest.mark.parametrize("count", (1, 40))
@pytest.mark.parametrize("weights", ("", "int8"))
def test_a_loop_retains_no_float32_copy_of_a_matrix(weights, count):
    """XLA would convert a matrix that a loop does not change once, before the loop."""
    form = matrix_form(weights, "bfloat16", "cpu")
    shape = jax.ShapeDtypeStruct((2048, 2048), jnp.bfloat16)
    packed = jax.eval_shape(lambda w: pack(w, form, per_row=False), shape)

    def loop(w, x):
        return jax.lax.fori_loop(0, 3, lambda _, x: multiply(x, w), x)

    x = jax.ShapeDtypeStruct((count, 2048), jnp.bfloat16)
    compiled = jax.jit(loop).lower(packed, x).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 0.75 * 4 * 2048**2
