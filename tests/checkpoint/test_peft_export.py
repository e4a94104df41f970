"""Adapters in PEFT's format: the files of a run that LoRA trained, and what `peft` makes of them."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from tests import tiny
from tests.models.small import SMALLS
from vilasr_jax import cli
from vilasr_jax.checkpoint import export_hf
from vilasr_jax.checkpoint.peft_export import export_peft
from vilasr_jax.config import JobConfig, OptimizerSection
from vilasr_jax.models.params import build
from vilasr_jax.training import lora
from vilasr_jax.training.run import open_run
from vilasr_jax.workdir import open_workdir

RANK, ALPHA = 3, 7.0


def factors_of(params):
    rng = np.random.default_rng(0)
    new = lora.new_factors(params, RANK)
    return jax.tree.map(lambda x: rng.normal(0, 0.2, x.shape).astype(np.float32), new)


def call(*words):
    with pytest.raises(SystemExit) as stop:
        cli.main(["vilasr", *map(str, words)])
    return stop.value.code


def test_a_stage_becomes_an_adapter(tmp_path, capsys):
    """A saved step of a run, through the command."""
    section = OptimizerSection(lora_rank=RANK, lora_alpha=ALPHA)
    job = dataclasses.replace(JobConfig(), rl=dataclasses.replace(JobConfig().rl, optimizer=section))
    open_workdir(job, tmp_path / "run")
    run = open_run(job, tmp_path / "run", tiny.mesh())
    params = run.model.initial_params()
    factors = factors_of(params)
    for name, more in {"cold_start": {}, "reflect": {}, "rl": {"lora": factors}}.items():
        with run.stages[name].store as store:
            store.save(3, {"params": params, **more}, wait=True)
    assert call("convert", "to-peft", f"{tmp_path / 'run'}:rl@3", tmp_path / "adapter") == 0
    settings = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert (settings["peft_type"], settings["r"], settings["lora_alpha"]) == ("LORA", RANK, ALPHA)
    base = f"{tmp_path / 'run'}:reflect@3"  # what RL began with
    assert settings["base_model_name_or_path"] == base
    assert f"convert to-hf {base}" in capsys.readouterr().out
    saved = load_file(tmp_path / "adapter" / "adapter_model.safetensors")
    name = "base_model.model.model.language_model.layers.1.mlp.down_proj.lora_{}.weight"
    (pair,) = (pair for path, pair in factors.items() if "mlp/down_proj" in path)
    np.testing.assert_array_equal(saved[name.format("A")], pair["a"][1].T)
    np.testing.assert_array_equal(saved[name.format("B")], pair["b"][1].T)
    assert len(saved) == 2 * 7 * run.model.config.num_layers
    assert call("convert", "to-peft", f"{tmp_path / 'run'}:cold_start@3", tmp_path / "none") == 2
    assert "cold_start@3: was trained without LoRA" in capsys.readouterr().err


def test_the_base_is_what_peft_loads(tmp_path):
    """A model of the hub, with its commit, and the first weights of a run."""
    config = SMALLS[next(iter(SMALLS))]
    factors = factors_of(nnx.split(build(config))[1])
    for number, (base, name, revision) in enumerate(
        [("hf://org/a-model@0123abcd", "org/a-model", "0123abcd"), ("weights/a@b", "weights/a@b", None)]
    ):
        export_peft(factors, ALPHA, config, tmp_path / str(number), base)
        settings = json.loads((tmp_path / str(number) / "adapter_config.json").read_text())
        assert (settings["base_model_name_or_path"], settings["revision"]) == (name, revision)


@pytest.mark.parametrize("family", SMALLS)
def test_peft_computes_as_the_merged_model(tmp_path, family):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    peft = pytest.importorskip("peft")
    config = SMALLS[family]
    params = nnx.split(build(config))[1]
    factors = factors_of(params)
    merged = lora.merged(lora.Base(params, np.float32(ALPHA / RANK)), factors)
    for name, weights in {"base": params, "merged": merged}.items():
        export_hf(weights, config, tmp_path / name)
    export_peft(factors, ALPHA, config, tmp_path / "adapter", str(tmp_path / "base"))

    def load(name):
        loader = transformers.AutoModelForImageTextToText
        return loader.from_pretrained(tmp_path / name, dtype=torch.float32).eval()

    adapted = peft.PeftModel.from_pretrained(load("base"), tmp_path / "adapter")
    ids = torch.arange(1, 12)[None]
    with torch.no_grad():
        base, ours, theirs = (
            model(input_ids=ids).logits.numpy() for model in (load("base"), load("merged"), adapted)
        )
    np.testing.assert_allclose(theirs, ours, atol=1e-4)
    assert np.abs(theirs - base).max() > 0.01
