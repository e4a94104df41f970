"""Parity with transformers through a stored file, so that it is checked where torch is not installed."""

import pathlib
import zlib

import jax
import numpy as np
import pytest
from flax import nnx

from tests.parity.samples import CASES, CONFIG, our_inputs, random_tensor
from vilasr_jax.checkpoint.hf_layout import hf_tensors, named_leaves, params_from_hf
from vilasr_jax.models.qwen2_5_vl import Qwen2_5_VL

GOLDEN = pathlib.Path(__file__).parent / "golden" / "model.npz"


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN)


@pytest.fixture(scope="module")
def params():
    return params_from_hf(CONFIG, lambda tensor: random_tensor(tensor.key, tensor.shape))


@pytest.fixture(scope="module")
def forward(params):
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: Qwen2_5_VL(CONFIG, rngs=nnx.Rngs(0))))

    @jax.jit
    def run(params, *inputs):
        model = nnx.merge(graphdef, params)
        return model.logits(model(*inputs))

    return run


@pytest.mark.parametrize("name", CASES)
def test_logits_equal_transformers(golden, params, forward, name):
    inputs = our_inputs(CASES[name])
    logits = np.asarray(forward(params, *inputs))[inputs[2] > 0][::7]
    np.testing.assert_allclose(logits, golden[f"logits/{name}"], atol=2e-4)


def test_gradients_equal_transformers(golden, params, forward):
    inputs = our_inputs(CASES["two images of two sizes"])
    gradients = jax.jit(jax.grad(lambda p: jax.nn.log_softmax(forward(p, *inputs))[..., 0].mean()))(params)
    leaves = {name: np.asarray(leaf) for name, leaf in named_leaves(gradients).items()}
    for tensor in hf_tensors(CONFIG):
        leaf = leaves[tensor.path]
        gradient = tensor.to_hf(leaf if tensor.layer is None else leaf[tensor.layer]).astype(np.float64)
        signs = (
            np.random.RandomState(zlib.crc32(tensor.key.encode()) ^ 1).randint(0, 2, gradient.shape) * 2 - 1
        )
        norm = golden[f"norm/{tensor.key}"]
        assert abs((gradient * signs).sum() - golden[f"gradient/{tensor.key}"]) <= 1e-3 * norm + 1e-9, (
            tensor.key
        )
        assert abs(np.linalg.norm(gradient) - norm) <= 1e-3 * norm + 1e-9, tensor.key


def test_padding_on_either_side_changes_nothing(params, forward):
    samples = CASES["a mixed batch"]
    right, left = (our_inputs(samples, side=side, pack=side == "right") for side in ("right", "left"))
    a, b = (np.asarray(forward(params, *inputs))[inputs[2] > 0] for inputs in (right, left))
    np.testing.assert_allclose(a, b, atol=2e-5)


def test_the_file_is_small():
    assert GOLDEN.stat().st_size < 1_000_000
