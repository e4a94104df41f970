"""Published recipes on slices: the layout fits, and what a step learns from stays."""

from pathlib import Path

import pytest

from vilasr_jax.config import from_config_dict
from vilasr_jax.errors import ConfigError
from vilasr_jax.parallel.mesh import mesh_sizes
from vilasr_jax.plan.chips import parse_topology
from vilasr_jax.recipes import published_7b
from vilasr_jax.slices import CHIPS, on_slice

CONFIGS = Path(__file__).parents[1] / "configs"
SLICES_7B = ("v5e-32", "v5e-64", "v6e-16", "v5p-32")
SHIPPED = [
    *((name, on) for name in ("sft_7b", "reflect_7b", "rl_7b") for on in SLICES_7B),
    *((name, on) for name in ("sft_3b", "rl_3b") for on in ("v5e-8", "v6e-16")),
    ("sft_32b", "v5p-128"),
    ("sft_72b", "v5p-256"),
]


@pytest.mark.parametrize("name, on", SHIPPED)
def test_every_shipped_size_divides_on_its_slice(name, on):
    scope = {}
    exec((CONFIGS / f"{name}.py").read_text(), scope)
    job = from_config_dict(scope["get_config"](on))
    topology = parse_topology(on)
    assert topology.size == CHIPS[on]
    data, fsdp, model = mesh_sizes(job.mesh, topology.size)
    for section in (job.cold_start, job.reflect):
        assert section.batch // section.accumulate == data * fsdp  # one row a shard
    assert job.rl.micro_batch % fsdp == 0 and job.engine.slots % (job.engine.lanes * fsdp) == 0
    published = published_7b(())
    assert (job.rl.group, job.rl.updates) == (published.rl.group, published.rl.updates)
    heads = {"3b": (16, 2), "7b": (28, 4), "32b": (40, 8), "72b": (64, 8)}[job.model.preset]
    assert all(count % model == 0 for count in heads)


@pytest.mark.parametrize("on", ["v5e-65", "v9-8", "v5p"])
def test_an_unknown_slice_is_refused(on):
    with pytest.raises(ConfigError, match="slices: v5e-8"):
        on_slice(published_7b(()), on)
