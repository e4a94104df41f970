"""The published recipe on slices: each layout fits its slice, and what a step learns from stays the same."""

import runpy
from pathlib import Path

import pytest

from vilasr_jax.config import read_config
from vilasr_jax.errors import ConfigError
from vilasr_jax.models import preset
from vilasr_jax.parallel.mesh import mesh_sizes
from vilasr_jax.slices import SLICES, parse_topology

VILASR = Path(__file__).parents[1] / "configs" / "vilasr.py"
SHIPPED = runpy.run_path(str(VILASR))["LAYOUTS"]


@pytest.mark.parametrize("words", SHIPPED)
def test_every_layout_divides_on_its_slice(words):
    job = read_config(f"{VILASR}:{words}")
    chips = SLICES[words.split(",")[1]].size
    data, fsdp, model = mesh_sizes(job.mesh, chips)
    assert data * fsdp * model == chips
    for section in (job.cold_start, job.reflect):
        assert section.batch == section.accumulate * data * fsdp  # one row per shard
    assert job.rl.micro_batch % fsdp == 0 and job.engine.slots % (job.engine.lanes * fsdp) == 0
    assert (job.rl.group, job.rl.updates) == (8, 2)
    config = preset(job.model.preset)
    assert config.num_heads % model == 0 and config.num_kv_heads % model == 0


@pytest.mark.parametrize("words", ["7b,v5e-65", "7b,v9-8", "7b,v5p", "7b", "8b,v5e-8", "7b,v5e-65,rl"])
def test_an_unknown_layout_is_refused(words):
    with pytest.raises(ConfigError, match=r"there are: .*7b,v5e-8"):
        read_config(f"{VILASR}:{words}")


@pytest.mark.parametrize(
    "old, new",
    [
        ("sft_7b.py:v5e-64", "vilasr.py:7b,v5e-64,cold_start"),
        ("rl_3b.py", "vilasr.py:3b,v5e-8,reflect,rl"),
        ("sft_72b.py", "vilasr.py:72b,v5p-256,cold_start"),
        ("reflect_7b.py:v6e-16", "vilasr.py:7b,v6e-16,reflect"),
    ],
)
def test_an_old_config_file_is_answered_with_the_new_words(old, new):
    with pytest.raises(ConfigError, match=f"give --config=configs/{new}$"):
        read_config(f"configs/{old}")


def test_slices_have_the_names_of_google_cloud():
    assert parse_topology("v5p-128") == parse_topology("v5p:4x4x4") == SLICES["v5p-128"]
    assert (SLICES["v5e-64"].name, SLICES["v5e-64"].hosts, SLICES["v6e-16"].size) == ("v5e:8x8", 16, 16)
