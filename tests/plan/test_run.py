"""`vilasr plan` around the compiler: tables, refusals, the nearest that fits, sweeps. The compiler is a
substitute here; tests/plan/test_compile.py runs the real one, where libtpu is installed."""

import importlib.util

import pytest
from rich.console import Console

from vilasr_jax.config import JobConfig, read_config
from vilasr_jax.errors import ConfigError
from vilasr_jax.parallel.memory import Account
from vilasr_jax.plan import plan, print_plan, print_sweep, refuse, run, sweep

GIB = 2**30


@pytest.fixture
def compiler(monkeypatch):
    """It needs 1 GiB a row of the micro-batch, and 8 GiB more unless everything is computed again."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    calls = []

    def compile(self, job, step, topology=None):
        topology = topology or self.topology
        calls.append((step, topology.name))
        need = job.rl.micro_batch + (0 if job.model.remat == "full" else 8)
        answer = {
            "step": step,
            "fits": need * GIB <= topology.chip.hbm_bytes,
            "peak_bytes": need * GIB,
            "limit_bytes": topology.chip.hbm_bytes,
            "arguments": {"params": 2 * GIB, "batch": 17},
            "largest": [{"name": "params/lm_head/kernel", "shape": "float32[8,9]", "bytes": 2 * GIB}],
            "samples": job.rl.micro_batch,
            "executions": 1,
            "flops": 1e15,
            "temporary_bytes": {"decode": 1, "sft": 9}.get(step, 0) * GIB,
        }
        if not answer["fits"]:
            return answer
        return answer | {
            "compile_seconds": 61.0,
            "host_bytes": 2 * GIB,
            "synchronous_bytes": 5e9,
            "asynchronous_bytes": 7e9,
            "collectives": [],
            "seconds": {"best": 2.0 * topology.size**-0.5, "worst": 4.0, "memory": 0.0},
            "utilisation": (0.3, 0.6),
        }

    def accounts(self, job):
        parts = {"weights": 2 * GIB, "cache": job.engine.slots * GIB // 64}
        limit = self.topology.chip.hbm_bytes
        return [Account("rl, sampling", parts, limit, "Lower engine.slots", ("prefill", "decode"))]

    monkeypatch.setattr(run.Planner, "compile", compile)
    monkeypatch.setattr(run.Planner, "accounts", accounts)
    return calls


def printed(show, *args):
    console = Console(width=250, record=True, quiet=False)
    show(*args, console=console)
    return console.export_text()


def small(**keys):
    return run.with_keys(JobConfig(name="small"), {"rl.micro_batch": 4, **keys})


def test_every_step_of_the_jobs_stages_is_compiled(compiler):
    result = plan(small(), "v5e:2x2", report=lambda line: None)
    steps = [step for step, _ in compiler]
    assert steps == ["sft", "prefill", "insert", "decode", "logprobs", "grpo_grad", "grpo_apply", "vision"]
    assert result["fits"] is True
    refuse(result)
    text = printed(print_plan, result, 3.0)
    assert "12.00 (76%)" in text and "params 2.00" in text and "UNCALIBRATED" in text
    # 4 chips at 3 an hour, 1 s for 4 samples at best and 4 s at worst
    assert "0.83 to 3.33" in text
    assert (
        "rl, sampling: weights = 2 GiB, cache = 2 GiB, temporaries of the largest step = 1 GiB; in all 5 of"
        in text
    )


def test_parts_that_do_not_fit_at_once_are_refused_with_the_sum(compiler):
    result = plan(small(**{"engine.slots": 900}), "v5e:2x2", report=lambda line: None)
    assert result["fits"] is False and all(answer["fits"] for answer in result["steps"])
    with pytest.raises(ConfigError, match=r"does not fit: rl, sampling: .* in all 17\.1 of 15\.8 GiB.*slots"):
        refuse(result)


def test_a_refusal_names_tensors_and_the_nearest_fit(compiler):
    result = plan(small(**{"rl.micro_batch": 12}), "v5e:2x2", ["grpo_grad"], report=lambda line: None)
    with pytest.raises(ConfigError) as refused:
        refuse(result)
    said = str(refused.value)
    assert "grpo_grad does not fit v5e:2x2" in said and "20.0 of 15.75 GiB" in said
    assert "params/lm_head/kernel float32[8,9] 2.00 GiB" in said
    assert "Nearest that fits: --config.model.remat=full" in said


def test_smaller_batches_are_tried_before_larger_slices(compiler):
    job = small(**{"rl.micro_batch": 40, "model.remat": "full"})
    result = plan(job, "v5e:2x2", ["grpo_grad"], report=lambda line: None)
    assert "--config.rl.micro_batch=10" in result["nearest"]


def test_a_sweep_recommends_the_fastest_that_fits(compiler):
    result = sweep(small(), "v5e:2x2", report=lambda line: None)
    assert result["step"] == "grpo_grad" and result["untried"] == 0
    assert "--config.rl.micro_batch=8 " not in result["recommended"]
    best = next(one for one in result["tried"] if one["label"] == result["recommended"])
    usable = [one["seconds"]["best"] / one["samples"] for one in result["tried"] if one["fits"]]
    assert best["seconds"]["best"] / best["samples"] == min(usable)
    assert result["recommended"] in printed(print_sweep, result)


def test_unknown_steps_and_topologies_are_refused(compiler):
    with pytest.raises(ConfigError, match="--steps=fly"):
        plan(small(), "v5e:2x2", ["fly"])
    with pytest.raises(ConfigError, match="--topology=v5e"):
        plan(small(), "v5e")


def test_weights_that_are_not_read_need_a_size(compiler):
    published = read_config("configs/eval_published.py", {"model.init_from": "Qwen2.5-VL-7B-Instruct"})
    for compiles in (plan, sweep):
        with pytest.raises(ConfigError, match=r"--config\.model\.preset"):
            compiles(published, "v5e:2x2")


def test_without_libtpu_a_plan_says_what_is_missing(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="libtpu"):
        plan(small(), "v5e:2x2")


def test_a_plan_over_time_ends_and_says_so(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    result = plan(small(), "v5e:2x2", ["sft"], minutes=0, report=lambda line: None)
    assert result["fits"] is None and "--max-minutes" in printed(print_plan, result)
