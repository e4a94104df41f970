"""The mesh of a pod, seen from any of its hosts, on the devices of slices that are not here."""

import importlib.util
import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from tests.slice_devices import slice_devices
from vilasr_jax.config import MeshSection
from vilasr_jax.errors import ConfigError
from vilasr_jax.parallel import host_mesh, host_rows, make_mesh, mesh_hosts
from vilasr_jax.slices import SLICES


def mesh_of(name, **sizes):
    devices = slice_devices(SLICES[name])
    np.random.default_rng(7).shuffle(devices)  # the order in which they are listed says nothing
    return make_mesh(MeshSection(**sizes), devices)


@pytest.mark.parametrize(
    "model, name", [(model, name) for model in (1, 2, 4) for name in SLICES if model <= SLICES[name].size]
)
def test_a_host_has_its_own_models_and_an_equal_run_of_rows(name, model):
    mesh = mesh_of(name, data=1, fsdp=-1, model=model)
    assert [host_rows(mesh, host) for host in mesh_hosts(mesh)] == [
        (number, SLICES[name].hosts) for number in range(SLICES[name].hosts)
    ]
    seen = []
    for host in mesh_hosts(mesh):
        part = host_mesh(mesh, host)
        assert {device.process_index for device in part.devices.flat} == {host}
        assert dict(part.shape) == {"data": 1, "fsdp": min(4, mesh.size) // model, "model": model}
        seen += part.devices.flat
    assert seen == list(mesh.devices.flat)
    for devices in mesh.devices.reshape(-1, model):  # neighbours in the grid
        spread = np.ptp([device.coords for device in devices], axis=0)
        assert sorted(spread)[-2:] <= [model // 4, min(model - 1, 1)]


def test_data_and_fsdp_split_the_hosts_between_them():
    mesh = mesh_of("v5e-32", data=2, fsdp=8, model=2)
    assert [host_rows(mesh, host) for host in mesh_hosts(mesh)] == [(n, 8) for n in range(8)]
    assert dict(host_mesh(mesh, mesh_hosts(mesh)[5]).shape) == {"data": 1, "fsdp": 2, "model": 2}


def test_a_model_over_hosts_is_refused_where_it_samples():
    mesh = mesh_of("v5p-32", data=1, fsdp=2, model=8)
    assert {host_rows(mesh, host) for host in mesh_hosts(mesh)} == {(0, 2), (1, 2)}  # two hosts feed a row
    with pytest.raises(ConfigError, match=r"mesh\.model=8 reaches over several hosts \(host 3 has 4"):
        host_mesh(mesh, 3)


def test_unequal_parts_of_a_batch_are_refused_on_every_host():
    devices = slice_devices(SLICES["v5e-16"])[:12]  # of the upper hosts half
    mesh = make_mesh(MeshSection(data=1, fsdp=12), devices)
    for host in mesh_hosts(mesh):
        with pytest.raises(ConfigError, match=r"config\.mesh: .*equal run"):
            host_rows(mesh, host)


def test_a_host_whose_devices_form_no_block_is_refused():
    mesh = mesh_of("v5e-16", data=8, fsdp=2)
    assert dict(host_mesh(mesh, 0).shape) == {"data": 2, "fsdp": 2, "model": 1}
    devices = slice_devices(SLICES["v5e-16"])
    mesh = make_mesh(MeshSection(data=2, fsdp=6), [d for d in devices if d.process_index < 3])
    with pytest.raises(ConfigError, match="host 1 form no block"):
        host_mesh(mesh, 1)


def test_one_process_is_its_own_host():
    mesh = make_mesh(MeshSection(data=2, fsdp=2, model=2))
    assert list(mesh.devices.flat) == jax.devices() and host_mesh(mesh) is mesh and host_rows(mesh) == (0, 1)
    alone = make_mesh(MeshSection(), slice_devices(SLICES["v5e-16"])[4:6])  # both of host 0
    assert host_mesh(alone) is alone


LISTED = """
import json, sys
from vilasr_jax.plan.devices import compile_devices
from vilasr_jax.slices import SLICES
found = {name: [(d.id, d.process_index, list(d.coords), d.device_kind) for d in compile_devices(slice)]
         for name, slice in SLICES.items()}
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed")
def test_these_devices_are_those_of_libtpu():
    environment = dict(os.environ, JAX_PLATFORMS="cpu", PYTHONPATH=os.pathsep.join(sys.path))
    done = subprocess.run(
        [sys.executable, "-c", LISTED], env=environment, capture_output=True, text=True, check=True
    )
    for name, listed in json.loads(done.stdout.splitlines()[-1]).items():
        ours = [[d.id, d.process_index, list(d.coords), d.device_kind] for d in slice_devices(SLICES[name])]
        assert sorted(listed) == ours, name
