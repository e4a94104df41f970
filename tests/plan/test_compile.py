"""The real compiler for a slice that is not there; only where libtpu is installed."""

import importlib.util

import pytest

from tests.plan.test_steps import JOB
from vilasr_jax.plan import plan
from vilasr_jax.plan.run import with_keys

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed"),
]


def test_a_sharded_step_compiles_and_is_accounted_for():
    job = with_keys(
        JOB, {"mesh.fsdp": 2, "mesh.model": 2, "model.attention": "splash", "model.dtype": "bfloat16"}
    )
    result = plan(job, "v5e:2x2", ["sft", "decode"], report=lambda line: None)
    for answer in result["steps"]:
        assert answer["fits"], answer
        assert answer["cycles"] > 0 and answer["loops"]
        assert answer["asynchronous_bytes"] + answer["synchronous_bytes"] > 0
