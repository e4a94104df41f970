"""The first weights are read once: a run that has a checkpoint resumes without their folder."""

import shutil

import jax
import pytest

from tests import tiny
from vilasr_jax.checkpoint import export_hf
from vilasr_jax.checkpoint.safetensors_files import StoredTensor
from vilasr_jax.config import read_config
from vilasr_jax.errors import UserError
from vilasr_jax.job import begin
from vilasr_jax.plan.run import with_keys


def test_a_restart_needs_no_first_weights(tmp_path, monkeypatch):
    folder = tmp_path / "weights"
    export_hf(tiny.params(), tiny.config(), folder, tokenizer=tiny.tokenizer())
    job = read_config("configs/maze_tiny.py", {"model.init_from": str(folder), "mesh.cpu_devices": 1})
    job = with_keys(
        job, {"cold_start.perception_steps": 0, "packing.tokens": 4096, "packing.vision_rows": 32}
    )
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
