"""Products with a model's matrices, and the forms in which they are held.

A model that trains, or samples in float32, has plain arrays. For sampling there are two forms more, both an
`InferenceMatrix`, chosen by `matrix_form` from what the devices can do:

    values                            where
    uint16, the bits of bfloat16      on a CPU
    int8, and float32 scales          anywhere, with `weights="int8"`

XLA's CPU backend has no product of bfloat16 or int8. It would make a float32 copy of a matrix, and hold the
copies of all matrices, since a loop over tokens changes none of them. So there a product converts a block of
rows, multiplies, and forgets it. Its values are bits, as XLA would also convert a matrix before it slices it.

LoRA can train with frozen int8 matrices: an `AdaptedMatrix` is one with its factors. Gradients are those of
the factors and of the activations; packed values have none.
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Shaped

_FEW = 32  # rows of x, up to which reading the matrix is slower than multiplying
_BLOCK = 4 << 20  # bytes of a float32 block: it stays in the cache between conversion and product
_LARGE_BLOCK = 32 << 20  # for more rows, whose sums would be read and written again with each block
_LARGEST = 127  # of int8 values; -128 is left out, so that they are symmetric


class MatrixForm(NamedTuple):
    """How a sampler holds matrices: see `matrix_form`."""

    dtype: str  # of the values before they are packed
    int8: bool
    by_blocks: bool

    @property
    def plain(self) -> bool:
        """Whether matrices stay arrays."""
        return not (self.int8 or self.by_blocks)


@partial(
    jax.tree_util.register_dataclass, data_fields=("values", "scales"), meta_fields=("by_blocks", "per_row")
)
@dataclasses.dataclass(frozen=True)
class InferenceMatrix:
    """A matrix [..., in, out], or a token table [vocab, d], for inference alone.

    Attributes:
      values: the bits of bfloat16 as uint16, or int8.
      scales: of int8 values, float32 [..., 1, out], of a table [vocab, 1]; else None.
      by_blocks: whether a product converts a block of rows at a time.
      per_row: whether it is a table, whose rows are the outputs of a head.
    """

    values: Shaped[Array, "*layers rows columns"]
    scales: Float[Array, "*layers rows_or_1 columns_or_1"] | None
    by_blocks: bool
    per_row: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the values."""
        return self.values.shape


@partial(jax.tree_util.register_dataclass, data_fields=("base", "a", "b"), meta_fields=())
@dataclasses.dataclass(frozen=True)
class AdaptedMatrix:
    """A frozen matrix and its low-rank addition: x -> x base + (x a) b.

    Attributes:
      base: int8 [..., in, out], not by blocks.
      a: [..., in, rank], times alpha / rank.
      b: [..., rank, out].
    """

    base: InferenceMatrix
    a: Float[Array, "*layers rows rank"]
    b: Float[Array, "*layers rank columns"]

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the matrix."""
        return self.base.shape


Matrix = Shaped[Array, "rows columns"] | InferenceMatrix | AdaptedMatrix
TRAINING_INT8 = MatrixForm("float32", int8=True, by_blocks=False)  # of frozen weights under LoRA


def matmul_precision(dtype: Any) -> jax.lax.Precision:
    """Full precision for float32 (TPUs would round the factors to bfloat16), the default for the rest."""
    return jax.lax.Precision.HIGHEST if jnp.dtype(dtype) == jnp.float32 else jax.lax.Precision.DEFAULT


def matrix_form(weights: str, dtype: str, platform: str) -> MatrixForm:
    """The form of matrices for sampling on devices of `platform` ("cpu", "gpu", "tpu").

    Args:
      weights: "int8", or "" for the compute dtype.
      dtype: the compute dtype.
      platform: `jax.Device.platform`.
    """
    int8 = weights == "int8"
    return MatrixForm(dtype, int8, platform == "cpu" and (int8 or dtype == "bfloat16"))


def pack(matrix: Shaped[Array, "*layers rows columns"], form: MatrixForm, *, per_row: bool) -> Any:
    """A matrix, or a stack of them, in `form`.

    int8: q = round(w / s) with s = max |w| / 127 over the inputs of each output; symmetric, so 0 stays 0.

    Args:
      matrix: of any dtype.
      form: from `matrix_form`.
      per_row: for a table [vocab, d]; else it is [..., in, out].
    """
    if form.plain:
        return matrix.astype(form.dtype)
    if not form.int8:
        bits = matrix.astype(form.dtype, copy=False).view(jnp.uint16)
        return InferenceMatrix(bits, None, True, per_row)
    matrix = matrix.astype(jnp.float32)
    largest = jnp.abs(matrix).max(axis=-1 if per_row else -2, keepdims=True)
    scales = jnp.where(largest > 0, largest, 1) / _LARGEST
    return InferenceMatrix(jnp.round(matrix / scales).astype(jnp.int8), scales, form.by_blocks, per_row)


def unpacked(matrix: Matrix, dtype: Any) -> Float[Array, "rows columns"]:
    """The values of a matrix as an array of `dtype`, all at once."""
    if isinstance(matrix, AdaptedMatrix):
        addition = jnp.matmul(matrix.a, matrix.b, precision=jax.lax.Precision.HIGHEST)
        return (unpacked(matrix.base, jnp.float32) + addition).astype(dtype)
    if not isinstance(matrix, InferenceMatrix):
        return matrix.astype(dtype)
    values = _float32(matrix.values)
    return (values if matrix.scales is None else values * matrix.scales).astype(dtype)


def multiply(
    x: Float[Array, "*rows d_in"], matrix: Matrix, *, out_dtype: Any = None
) -> Float[Array, "*rows d_out"]:
    """x [..., d_in] times a matrix [d_in, d_out], or times the transpose of a table [d_out, d_in].

    Args:
      x: in the compute dtype, to which an array is cast.
      matrix: an array [d_in, d_out]; or an `InferenceMatrix`, for which sums are float32; or adapted.
      out_dtype: of the result; by default x's.
    """
    if isinstance(matrix, AdaptedMatrix):
        return multiply(x, matrix.base, out_dtype=out_dtype) + multiply(
            multiply(x, matrix.a), matrix.b, out_dtype=out_dtype
        )
    if not isinstance(matrix, InferenceMatrix):
        kernel, precision = matrix.astype(x.dtype), matmul_precision(x.dtype)
        return jnp.dot(x, kernel, precision=precision, preferred_element_type=out_dtype)
    rows = x.reshape(-1, x.shape[-1])
    if matrix.by_blocks:
        block = _outputs_by_blocks if matrix.per_row else _inputs_by_blocks
        y = block(rows.astype(jnp.float32), matrix.values)
        y = y if matrix.scales is None else y * matrix.scales.reshape(1, -1)
    else:
        y = _int8_product(rows, matrix)
    return y.astype(out_dtype or x.dtype).reshape(*x.shape[:-1], -1)


@jax.custom_vjp
def _int8_product(x: Float[Array, "rows d_in"], matrix: InferenceMatrix) -> Float[Array, "rows d_out"]:
    """x times an int8 matrix, in float32. Its gradient keeps nothing but the matrix, which has none."""
    return _contract(x, matrix, 1 if matrix.per_row else 0) * _scales(matrix)


def _int8_product_forward(x, matrix):
    # An empty array says the dtype of the gradient.
    return _int8_product(x, matrix), (matrix, jnp.zeros((0,), x.dtype))


def _int8_product_backward(kept, gradient):
    matrix, like = kept
    gradient = (gradient * _scales(matrix)).astype(like.dtype)
    return _contract(gradient, matrix, 0 if matrix.per_row else 1).astype(like.dtype), None


_int8_product.defvjp(_int8_product_forward, _int8_product_backward)


def _contract(x: Float[Array, "rows n"], matrix: InferenceMatrix, axis: int) -> Float[Array, "rows m"]:
    """x times the values along their `axis`, summed in float32."""
    return jax.lax.dot_general(
        x,
        matrix.values.astype(x.dtype),
        (((1,), (axis,)), ((), ())),
        precision=matmul_precision(x.dtype),
        preferred_element_type=jnp.float32,
    )


def _scales(matrix: InferenceMatrix) -> Float[Array, "1 d_out"]:
    assert matrix.scales is not None, "bits of bfloat16 are multiplied by blocks"
    return matrix.scales.reshape(1, -1)


def gather_rows(table: Matrix, ids: Int[Array, "b t"], dtype: Any) -> Float[Array, "b t d"]:
    """The rows `ids` [b, t] of a table [vocab, d]; ids past its ends give the first or the last."""
    rows_of = partial(jnp.take, indices=ids, axis=0, mode="clip")
    if not isinstance(table, InferenceMatrix):
        assert not isinstance(table, AdaptedMatrix), "token tables are not adapted"
        return rows_of(table).astype(dtype)
    rows = _float32(rows_of(table.values))
    return (rows if table.scales is None else rows * rows_of(table.scales)).astype(dtype)


def _float32(values: Shaped[Array, "*shape"]) -> Float[Array, "*shape"]:
    """Bits of bfloat16, or int8, as the float32 numbers that they are."""
    if values.dtype == jnp.uint16:
        return (values.astype(jnp.uint32) << 16).view(jnp.float32)
    return values.astype(jnp.float32)


def _blocks(values: Shaped[Array, "rows columns"], rows: int) -> int:
    """Blocks of a matrix for the product with `rows` rows; two at least, else a block were the matrix."""
    return max(2, -(-4 * values.size // (_BLOCK if rows <= _FEW else _LARGE_BLOCK)))


def _inputs_by_blocks(
    x: Float[Array, "rows d_in"], values: Shaped[Array, "d_in d_out"]
) -> Float[Array, "rows d_out"]:
    """x times values, summed over blocks of inputs; the last may overlap, and then counts its own alone."""
    d_in, d_out = values.shape
    size = -(-d_in // min(_blocks(values, len(x)), d_in))

    def add(i, total):
        start = jnp.minimum(i * size, d_in - size)
        block = _float32(jax.lax.dynamic_slice_in_dim(values, start, size, 0))
        part = jax.lax.dynamic_slice_in_dim(x, start, size, 1)
        if d_in % size:
            part = jnp.where(start + jnp.arange(size) >= i * size, part, 0)
        return total + jnp.dot(part, block, precision=jax.lax.Precision.HIGHEST)

    return jax.lax.fori_loop(0, -(-d_in // size), add, _zeros(x, d_out))


def _outputs_by_blocks(
    x: Float[Array, "rows d_in"], values: Shaped[Array, "d_out d_in"]
) -> Float[Array, "rows d_out"]:
    """x times the transpose of values, a block of outputs after the other; the last may overlap."""
    d_out = len(values)
    size = -(-d_out // min(_blocks(values, len(x)), d_out))

    def write(i, y):
        start = jnp.minimum(i * size, d_out - size)
        block = _float32(jax.lax.dynamic_slice_in_dim(values, start, size, 0))
        part = jnp.dot(x, block.T, precision=jax.lax.Precision.HIGHEST)
        return jax.lax.dynamic_update_slice_in_dim(y, part, start, 1)

    return jax.lax.fori_loop(0, -(-d_out // size), write, _zeros(x, d_out))


def _zeros(x: Float[Array, "rows d_in"], d_out: int) -> Float[Array, "rows d_out"]:
    """What a sum begins with (NaN where x isn't finite). It depends on x: XLA would create constants for all
    layers in advance."""
    return jnp.broadcast_to(0 * x[:, :1], (len(x), d_out))
