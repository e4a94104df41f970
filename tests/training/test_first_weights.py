"""The first weights are read once: a run that has a checkpoint resumes without their folder.

With LoRA they are read at each start, and are always those that the run began with.
"""

import re
import shutil

import jax
import numpy as np
import pytest

from tests import tiny
from vilasr_jax import cli
from vilasr_jax.checkpoint import export_hf
from vilasr_jax.checkpoint.safetensors_files import StoredTensor
from vilasr_jax.config import read_config
from vilasr_jax.errors import UserError
from vilasr_jax.job import begin
from vilasr_jax.plan.run import with_keys
from vilasr_jax.workdir import read_job


def starting_from(source, **keys):
    keys |= {"model.init_from": str(source), "mesh.cpu_devices": 1, "cold_start.perception_steps": 0}
    job = read_config("configs/maze_tiny.py", keys)
    return with_keys(job, {"packing.tokens": 4096, "packing.vision_rows": 32})


def test_a_restart_needs_no_first_weights(tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    export_hf(tiny.params(), tiny.config(), folder, tokenizer=tiny.tokenizer())
    job = starting_from(folder)
    run, _ = begin(job, tmp_path / "W", tiny.mesh())
    stage = run.stages["cold_start"]
    stage.save(1, {"params": run.stages.start_params("cold_start")}, wait=True)
    stage.close()

    shutil.rmtree(folder)
    monkeypatch.setattr(StoredTensor, "read", lambda *_: pytest.fail("the first weights are read again"))
    again, todo = begin(job, tmp_path / "W", tiny.mesh())
    assert todo[0] == "cold_start" and again.model.config == run.model.config
    shapes = again.stages.start_params("cold_start")
    assert not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(shapes))
    restored = again.stages["cold_start"].load_params(shapes)
    for one, other in zip(jax.tree.leaves(restored), jax.tree.leaves(tiny.params()), strict=True):
        assert (one == other).all()
    with pytest.raises(UserError, match="weights"):
        begin(job, tmp_path / "new", tiny.mesh())


def test_a_preset_unlike_the_first_weights_is_refused(tmp_path, monkeypatch, capsys):
    """It was ignored without a word: the weights' family and size were trained."""
    source = tmp_path / "weights"
    export_hf(tiny.params(), tiny.config(), source, tokenizer=tiny.tokenizer())
    begin(starting_from(source), tmp_path / "W", tiny.mesh())
    for preset, words in (("qwen3vl_tiny", "a Qwen3-VL"), ("3b", "a Qwen2.5-VL, 2048 wide, of 36 layers")):
        for workdir in ("W", "new"):  # one that has begun, and one that has not
            with pytest.raises(UserError) as refused:
                begin(starting_from(source, **{"model.preset": preset}), tmp_path / workdir, tiny.mesh())
            said = str(refused.value)
            assert f"config.model.preset={preset!r} is {words}" in said
            assert (
                f"init_from={str(source)!r} is a Qwen2.5-VL, 42 wide, of 2 layers; leave the preset" in said
            )
    assert not (tmp_path / "new").exists()
    (tmp_path / "own_sizes").mkdir()
    (tmp_path / "own_sizes" / "small.py").write_text("from tests import tiny\n\nCONFIG = tiny.config()\n")
    monkeypatch.syspath_prepend(tmp_path)
    begin(starting_from(source, **{"model.preset": "own_sizes.small"}), tmp_path / "W", tiny.mesh())
    (tmp_path / "train.jsonl").touch()
    for command in ("show", "check"):
        preset = "--config.model.preset=qwen3vl_tiny"
        words = [f"--config.model.init_from={source}", preset, f"--out={tmp_path / 'page.html'}"]
        src = [str(tmp_path)] if command == "check" else []
        with pytest.raises(SystemExit) as stop:
            cli.main(["vilasr", "data", command, *src, "--config=configs/maze_tiny.py", *words])
        assert stop.value.code == 2
        assert re.search("is Qwen3-VL, and .* is Qwen2.5-VL; leave the preset", capsys.readouterr().err)


def save(run, stage, params):
    """Finishes a stage with these weights."""
    stage = run.stages[stage]
    stage.save(stage.steps, {"params": params}, wait=True)
    stage.close()


def test_a_lora_run_keeps_the_weights_it_began_with(tmp_path, capsys):
    """Its source is a run, which finishes its next stage while the LoRA run is stopped."""
    export_hf(tiny.params(), tiny.config(), tmp_path / "weights", tokenizer=tiny.tokenizer())
    job = starting_from(tmp_path / "weights", **{"cold_start.steps": 1, "reflect.steps": 1})
    source, _ = begin(job, tmp_path / "A", tiny.mesh())
    save(source, "cold_start", tiny.params(1))
    lora = starting_from(tmp_path / "A", **{"rl.optimizer.lora_rank": 2, "stages": ("rl", "eval")})
    begin(lora, tmp_path / "B", tiny.mesh())

    def first_weights():
        again, _ = begin(lora, tmp_path / "B", tiny.mesh())
        capsys.readouterr()
        params = again.stages.start_params("rl")
        assert f"rl starts from {tmp_path / 'A'}:cold_start@1" in capsys.readouterr().err
        return jax.tree.leaves(params)

    save(source, "reflect", tiny.params(2))
    for one, other in zip(first_weights(), jax.tree.leaves(tiny.params(1)), strict=True):
        np.testing.assert_array_equal(one, other)

    # A workdir of an earlier version, which noted nothing, still opens.
    note = tmp_path / "B" / "model" / "init_from.json"
    kept = note.rename(note.with_name("kept"))
    again, _ = begin(lora, tmp_path / "B", tiny.mesh())
    assert again.model.source.fixed_address == f"{tmp_path / 'A'}:reflect@1"
    kept.rename(note)

    # Other weights at the same place are refused.
    shutil.rmtree(tmp_path / "A" / "cold_start" / "checkpoints")
    with pytest.raises(UserError, match=r"config.model.init_from: .*cold_start@1"):
        begin(lora, tmp_path / "B", tiny.mesh())
    save(source, "cold_start", tiny.params(3))
    with pytest.raises(UserError, match=r"cold_start@1: its weights have changed since .*B began"):
        begin(lora, tmp_path / "B", tiny.mesh())


def test_a_replaced_folder_of_weights_is_refused(tmp_path):
    folder = tmp_path / "weights"
    export_hf(tiny.params(), tiny.config(), folder, tokenizer=tiny.tokenizer())
    job = starting_from(folder, **{"cold_start.optimizer.lora_rank": 2})
    begin(job, tmp_path / "W", tiny.mesh())
    (folder / "README.md").write_text("a note")  # is no weight
    begin(job, tmp_path / "W", tiny.mesh())
    export_hf(tiny.params(4), tiny.config(), folder, tokenizer=tiny.tokenizer(), overwrite=True)
    with pytest.raises(UserError, match="its weights have changed"):
        begin(job, tmp_path / "W", tiny.mesh())


def test_int8_for_one_evaluation_is_no_setting_of_the_run(tmp_path):
    export_hf(tiny.params(), tiny.config(), tmp_path / "weights", tokenizer=tiny.tokenizer())
    job = starting_from(tmp_path / "weights", stages=("eval",))
    run, _ = begin(job, tmp_path / "W", tiny.mesh(), weights="int8")
    assert run.job.engine.weights == "int8" and read_job(tmp_path / "W").engine.weights == ""
