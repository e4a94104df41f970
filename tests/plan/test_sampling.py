"""What a sampler holds on the chips of one TPU host, counted by the code that `solve` and `serve` call."""

import dataclasses
import importlib.util

import jax
import pytest

from tests.slice_devices import slice_devices
from vilasr_jax.config import JobConfig, ModelSection
from vilasr_jax.parallel.memory import TEMPORARIES, local_bytes
from vilasr_jax.plan import plan
from vilasr_jax.plan.run import SAMPLING_STEPS, with_keys
from vilasr_jax.plan.sampling import SamplingSteps
from vilasr_jax.rollout.memory import SAMPLING_WEIGHTS
from vilasr_jax.slices import SLICES

GIB = 2**30
JOB = JobConfig(model=ModelSection(preset="7b", dtype="bfloat16"))


def on_one_host(name):
    return [dataclasses.replace(chip, process_index=0) for chip in slice_devices(SLICES[name])]


@pytest.mark.parametrize("form, gib", [("", 15.45), ("int8", 7.75)])
def test_7b_fits_a_host_of_four_and_eight_chips(form, gib):
    job, limit = with_keys(JOB, {"engine.weights": form}), SLICES["v5e-4"].chip.hbm_bytes
    accounts = {}
    for name, data in (("v5e-4", 1), ("v5e-8", 2)):
        steps = SamplingSteps(job, on_one_host(name), slots=8)
        assert dict(steps.mesh.shape) == {"data": data, "fsdp": 1, "model": 4}
        account = accounts[name] = steps.account(limit)
        account.check()
        assert account.parts[SAMPLING_WEIGHTS] * 4 / GIB == pytest.approx(gib, rel=0.1)  # some is not split
    caches = [
        next(size for part, size in one.parts.items() if "tokens x" in part) for one in accounts.values()
    ]
    assert caches[0] == 2 * caches[1]


def test_the_calls_hold_what_the_account_says():
    steps = SamplingSteps(JOB, on_one_host("v5e-4"), slots=8)
    account = steps.account(1 << 40)
    for name in SAMPLING_STEPS:
        arguments = dict(zip((step := steps.build(name)).parts, step.arguments, strict=True))
        assert local_bytes(arguments["params"]) == account.parts[SAMPLING_WEIGHTS]
        if "cache" in arguments:
            held = local_bytes(arguments["params"]) + local_bytes(arguments["cache"])
            more = account.parts["computed prompts"] + account.parts[TEMPORARIES]
            assert held == pytest.approx(account.total - more, rel=1e-3)
    tokens = steps.build("prefill").arguments[1].tokens
    assert tokens.shape == (8, steps.engine.engine.prompt_tokens[-1])


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
@pytest.mark.parametrize("form", ["", "int8"])
@pytest.mark.parametrize("topology", ["v5e-4", "v5e-8"])
def test_the_calls_compile_for_the_chips(topology, form):
    """Two layers of 7B; `vilasr plan --sampling=8` compiles them all."""
    job = with_keys(JOB, {"engine.weights": form})
    result = plan(job, topology, report=lambda line: None, layers=2, slots=8)
    assert [answer["step"] for answer in result["steps"]] == list(SAMPLING_STEPS)
    for answer in result["steps"]:
        assert answer.get("fits"), answer
    assert result["fits"] is True
    assert jax.default_backend() == "cpu"
