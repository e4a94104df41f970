"""Parity with transformers through a stored file, so that it is checked where torch is not installed."""

import pathlib
import zlib

import jax
import numpy as np
import pytest
from flax import nnx

from tests.parity.samples import CASES, CONFIGS, cases, our_inputs, random_tensor
from vilasr_jax.checkpoint.hf_layout import hf_tensors, named_leaves, params_from_hf
from vilasr_jax.models.params import build

FOLDER = pathlib.Path(__file__).parent / "golden"
PADDED = (179, 556)  # tokens, patches
FILES = {"qwen2_5_vl": "model.npz", "qwen3_vl": "qwen3_vl.npz"}


@pytest.fixture(scope="module", params=FILES)
def config(request):
    return CONFIGS[request.param]


@pytest.fixture(scope="module")
def golden(config):
    return np.load(FOLDER / FILES[config.model_type])


@pytest.fixture(scope="module")
def params(config):
    return params_from_hf(config, lambda tensor: random_tensor(tensor.key, tensor.shape))


@pytest.fixture(scope="module")
def forward(config, params):
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: build(config)))

    @jax.jit
    def run(params, *inputs):
        model = nnx.merge(graphdef, params)
        return model.logits(model(*inputs))

    return run


@pytest.mark.parametrize("name", CASES)
def test_logits_equal_transformers(config, golden, params, forward, name):
    """Conversations with images are padded to one size, which is compiled once."""
    samples = cases(config.model_type)[name]
    alone = len(samples) == 1 and samples[0].grids
    inputs = our_inputs(samples, least=PADDED if alone else (0, 0))
    assert not alone or inputs[0].shape == (1, PADDED[0])
    logits = np.asarray(forward(params, *inputs))[inputs[2] > 0][::7]
    np.testing.assert_allclose(logits, golden[f"logits/{name}"], atol=2e-4)


def test_gradients_equal_transformers(config, golden, params, forward):
    inputs = our_inputs(cases(config.model_type)["two images of two sizes"])
    gradients = jax.jit(jax.grad(lambda p: jax.nn.log_softmax(forward(p, *inputs))[..., 0].mean()))(params)
    leaves = {name: np.asarray(leaf) for name, leaf in named_leaves(gradients).items()}
    for tensor in hf_tensors(config):
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


def test_padding_on_either_side_changes_nothing(config, params, forward):
    samples = cases(config.model_type)["a mixed batch"]
    right, left = (our_inputs(samples, side=side, pack=side == "right") for side in ("right", "left"))
    a, b = (np.asarray(forward(params, *inputs))[inputs[2] > 0] for inputs in (right, left))
    np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("name", FILES.values())
def test_the_file_is_small(name):
    assert (FOLDER / name).stat().st_size < 1_000_000
