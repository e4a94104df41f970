"""Writes a file for each family: what transformers says of the conversations in tests/parity/samples.py.

    python -m tests.models.golden.make_golden [MODEL_TYPE ...]

Needs the `parity` extra. The weights are a function of the tensors' names, so the file holds results only: of
each case every seventh position's logits, and one number for the gradient of each parameter.
"""

import pathlib
import sys
import zlib

import numpy as np
import torch

from tests.parity.hf_reference import hf_inputs, hf_model
from tests.parity.samples import CONFIGS, cases, our_inputs
from vilasr_jax.models import by_model_type

FILES = {"qwen2_5_vl": "model.npz", "qwen3_vl": "qwen3_vl.npz"}
GRADIENT_CASE = "two images of two sizes"


def probe(key, gradient):
    """The product of a gradient with fixed random signs, one number that any wrong entry moves."""
    signs = np.random.RandomState(zlib.crc32(key.encode()) ^ 1).randint(0, 2, gradient.shape) * 2 - 1
    return float((np.asarray(gradient, np.float64) * signs).sum())


def write(model_type: str) -> None:
    """Runs a family's reference and writes its file."""
    path = pathlib.Path(__file__).with_name(FILES[model_type])
    published_name = by_model_type(model_type).published_name
    model, out = hf_model(CONFIGS[model_type]), {}
    for name, samples in cases(model_type).items():
        real = our_inputs(samples)[2] > 0
        logits = model(**hf_inputs(samples)).logits
        out[f"logits/{name}"] = logits.detach().numpy()[real][::7]
        if name == GRADIENT_CASE:
            (logits.log_softmax(-1)[..., 0].mean()).backward()
            for key, parameter in model.named_parameters():
                key = published_name(key)
                out[f"gradient/{key}"] = np.float64(probe(key, parameter.grad.numpy()))
                out[f"norm/{key}"] = np.float64(torch.linalg.vector_norm(parameter.grad.double()))
    np.savez_compressed(path, **out)
    print(path.name, path.stat().st_size, "bytes")


if __name__ == "__main__":
    for family in sys.argv[1:] or FILES:
        write(family)
