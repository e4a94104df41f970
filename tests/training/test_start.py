"""The start of every shipped config on its slice: what a run calls, on devices that are not here.

What depends on the host is tested for each of the slice's hosts.
"""

import runpy
from pathlib import Path

import jax
import pytest

from tests.slice_devices import slice_devices
from vilasr_jax.config import read_config
from vilasr_jax.errors import ConfigError
from vilasr_jax.job import begin
from vilasr_jax.model_bundle import make_engine
from vilasr_jax.models.sharding import random_params
from vilasr_jax.parallel import batch_axis, host_mesh, host_rows, make_mesh, mesh_hosts
from vilasr_jax.parallel.memory import local_bytes
from vilasr_jax.plan.run import with_keys
from vilasr_jax.slices import SLICES
from vilasr_jax.tasks.importers import import_data
from vilasr_jax.training.memory import StageMemory

PUBLISHED = Path(__file__).parents[1] / "tasks" / "published" / "ViLaSR-data"
CONFIGS = Path(__file__).parents[2] / "configs"
LAYOUTS = list(runpy.run_path(str(CONFIGS / "vilasr.py"))["LAYOUTS"])
SMALL = [("maze_tiny.py", "v5e-4"), ("maze_small.py", "v5e-4"), ("spatial_tiny.py", "v5e-4")]
CASES = [(f"vilasr.py:{words}", words.split(",")[1]) for words in LAYOUTS] + SMALL
FULL = 0.9  # of a device's memory, at most


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Imported rows of the published recipe's three stages."""
    root = tmp_path_factory.mktemp("data")
    for name in ("cold_start", "rrs", "rl"):
        import_data(name, PUBLISHED, root / name)
    return root


def start(data, workdir, name, on, **keys):
    job = with_keys(read_config(CONFIGS / name), {"model.random_weights": True, **keys})
    if not job.tasks:
        job = with_keys(job, {"data.root": str(data)})
    topology = SLICES[on]
    mesh = make_mesh(job.mesh, slice_devices(topology))
    return begin(job, workdir, mesh, limit=int(FULL * topology.chip.hbm_bytes))


@pytest.mark.parametrize("name, on", CASES)
def test_a_run_starts_on_every_host(data, tmp_path, name, on, capsys):
    run, todo = start(data, tmp_path / "W", name, on)
    job, mesh = run.job, run.mesh
    assert todo == [stage for stage in job.stages if stage in todo] and todo
    assert f"{todo[0]}, updating" in capsys.readouterr().err

    # ---------------------------------------------- weights are created where they are held
    created = created_by(lambda: random_params(run.model.config, 0, mesh))
    check_shardings(created, run.model.abstract_params)

    # ---------------------------------------------- each host has its own equal part of a batch
    parts = [host_rows(mesh, host) for host in mesh_hosts(mesh)]
    assert parts == [(number, SLICES[on].hosts) for number in range(SLICES[on].hosts)]
    for section in {"cold_start", "reflect"} & set(todo):
        batch = getattr(job, section).batch
        check_rows(mesh, batch, parts)
    if "rl" not in todo:
        return
    check_rows(mesh, job.rl.micro_batch, parts)
    assert job.rl.prompts % len(parts) == 0

    # ---------------------------------------------- every host samples on its devices, as the account says
    for host in mesh_hosts(mesh):
        assert {device.process_index for device in host_mesh(mesh, host).devices.flat} == {host}
    for host in {mesh_hosts(mesh)[0], mesh_hosts(mesh)[-1]}:
        engine = make_engine(run.model, job.engine, job.rl.sampling, job.buckets.patches, mesh, host)
        assert engine.steps.mesh == host_mesh(mesh, host)
        check_state(engine)
        abstract = run.model.abstract_params
        of = StageMemory(job, run.model.config, abstract, mesh, 1 << 60, process=host)
        account = next(one for one in of.accounts(["rl"]) if "sampling" in one.moment)
        assert engine.memory(abstract).items() <= dict(account.parts).items()


def check_rows(mesh, batch, parts):
    """The rows on a host's devices are those that it feeds."""
    held = batch_axis(mesh).devices_indices_map((batch,))
    for host, (number, count) in zip(mesh_hosts(mesh), parts, strict=True):
        mine = set()
        for device, (rows,) in held.items():
            if device.process_index == host:
                mine |= set(range(*rows.indices(batch)))
        assert mine == set(range(number * batch // count, (number + 1) * batch // count))


def created_by(call):
    """(shape, sharding) of each array that `call` creates, which must be one compiled call and no more."""
    (equation,) = jax.make_jaxpr(call)().eqns
    assert equation.primitive.name == "jit"
    return [
        (var.aval.shape, place)
        for var, place in zip(equation.outvars, equation.params["out_shardings"], strict=True)
    ]


def check_shardings(created, abstract):
    for (shape, place), wanted in zip(created, jax.tree.leaves(abstract), strict=True):
        assert shape == wanted.shape and place.is_equivalent_to(wanted.sharding, len(shape))


def check_state(engine):
    """A lane's state is created on the host's devices, and no device holds more than its slots and heads."""
    sizes = engine.lane_slots, engine.sampling.max_tokens
    state = engine.steps.abstract_state(*sizes)
    check_shardings(created_by(lambda: engine.steps.init_state(*sizes)), state)
    full = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state.cache))
    assert local_bytes(state.cache) * engine.steps.mesh.size == pytest.approx(full, rel=1e-3)


def test_what_does_not_fit_is_refused_with_the_sum(data, tmp_path):
    with pytest.raises(ConfigError, match=r"rl, sampling: .*optimiser = .* conversations of 18432 .* in all"):
        start(data, tmp_path / "W", "vilasr.py:7b,v5e-64", "v5e-64", **{"engine.slots": 1024})


def test_a_layout_over_hosts_is_refused_where_a_stage_samples(data, tmp_path):
    keys = {"mesh.fsdp": 2, "mesh.model": 8, "cold_start.accumulate": 4, "reflect.accumulate": 4}
    keys["rl.micro_batch"] = 2
    with pytest.raises(ConfigError, match=r"mesh\.model=8 reaches over several hosts"):
        start(data, tmp_path / "W", "vilasr.py:7b,v6e-16", "v6e-16", **keys)
