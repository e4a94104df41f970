"""Weights go from the file to the devices that hold them: the same bits, each row read by one host."""

import functools
import itertools

import jax
import numpy as np
import pytest
from flax import nnx

from tests.checkpoint.load_hosts import load_host
from tests.checkpoint.test_hf_folders import write_folder
from tests.models.small import SMALL
from tests.slice_devices import slice_devices
from vilasr_jax.checkpoint import convert_from_hf, import_hf
from vilasr_jax.checkpoint.hf_import import open_hf, published_weights
from vilasr_jax.checkpoint.hf_layout import abstract_params, named_leaves
from vilasr_jax.checkpoint.orbax_weights import OrbaxWeights
from vilasr_jax.checkpoint.safetensors_files import StoredTensor
from vilasr_jax.checkpoint.sharded_import import file_sharding
from vilasr_jax.config import MeshSection
from vilasr_jax.models import preset
from vilasr_jax.models.params import build
from vilasr_jax.models.sharding import param_shardings, random_params
from vilasr_jax.open_checkpoint import open_checkpoint
from vilasr_jax.parallel import make_mesh
from vilasr_jax.slices import SLICES

MESHES = {
    "mixed": MeshSection(data=2, fsdp=2, model=2),
    "fsdp": MeshSection(data=1, fsdp=8),
    "model": MeshSection(data=1, fsdp=1, model=8),
}
# Widths that 8 and 16 devices divide, and some that they do not.
EVEN = preset(
    "tiny",
    vocab_size=240,
    hidden_size=192,
    intermediate_size=96,
    num_heads=8,
    num_kv_heads=2,
    head_dim=24,
    mrope_section=(4, 4, 4),
    vision={"depth": 3, "hidden_size": 48, "intermediate_size": 59},
)


def check_equal(got, want):
    paths = jax.tree_util.tree_leaves_with_path(want)
    for (path, one), other in zip(paths, jax.tree.leaves(got), strict=True):
        assert one.dtype == other.dtype and one.shape == other.shape
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes(), jax.tree_util.keystr(path)


def check_layout(params, mesh):
    for leaf, place in zip(
        jax.tree.leaves(params), jax.tree.leaves(param_shardings(params, mesh)), strict=True
    ):
        assert leaf.sharding.is_equivalent_to(place, leaf.ndim)


def on_meshes(names, usual, *others):
    """Parametrises: the usual value on every mesh; others on the first, and slowly on all."""
    slow = [pytest.param(name, *other, marks=pytest.mark.slow) for other in others for name in [*MESHES][1:]]
    first = next(iter(MESHES))
    fast = [(name, *usual) for name in MESHES] + [(first, *other) for other in others]
    return pytest.mark.parametrize(f"name, {names}", [*fast, *slow])


@on_meshes("stored, wanted", ("bfloat16", "float32"), ("float16", "float16"))
def test_a_mesh_holds_the_bits_that_one_device_does(tmp_path, monkeypatch, name, stored, wanted):
    config = EVEN.replace(tie_word_embeddings=name == "model")
    write_folder(tmp_path / "a", config, dtype=stored, max_shard_bytes=200_000)
    mesh, read, original = make_mesh(MESHES[name]), [], StoredTensor.read

    def noted(self, rows=None, dtype=None):
        values = original(self, rows, dtype)
        read.append((values.size / np.prod(self.shape), values.nbytes))
        return values

    with monkeypatch.context() as patched:
        patched.setattr(StoredTensor, "read", noted)
        params = import_hf(tmp_path / "a", param_dtype=wanted, mesh=mesh)[1]
    assert all(part <= 1 / 8 for part, size in read if size > 20_000)  # no tensor in one piece
    check_equal(params, import_hf(tmp_path / "a", param_dtype=wanted)[1])
    check_layout(params, mesh)


@on_meshes("chunk", (7_000,), (1 << 27,))
def test_an_orbax_folder_is_read_part_by_part_too(tmp_path, monkeypatch, name, chunk):
    """Where a chunk is a layer, and where it is all of a weight."""
    monkeypatch.setattr("vilasr_jax.checkpoint.array_files.CHUNK_BYTES", chunk)
    write_folder(tmp_path / "a", EVEN, dtype="bfloat16")
    convert_from_hf(tmp_path / "a", tmp_path / "b")
    mesh, read, original = make_mesh(MESHES[name]), [], OrbaxWeights.block

    def noted(self, path, index, shape):
        values = original(self, path, index, shape)
        read.append((values.size / np.prod(shape), np.prod(shape)))
        return values

    monkeypatch.setattr(OrbaxWeights, "block", noted)
    params = open_checkpoint(tmp_path / "b").load(mesh, "float32")
    assert all(part <= 1 / 8 for part, size in read if size > 20_000)  # no weight in one piece
    check_equal(params, import_hf(tmp_path / "a", param_dtype="float32")[1])
    check_layout(params, mesh)


def test_an_orbax_weight_is_cut_where_its_chunks_are(tmp_path, monkeypatch):
    monkeypatch.setattr("vilasr_jax.checkpoint.array_files.CHUNK_BYTES", 7_000)
    write_folder(tmp_path / "a", EVEN.replace(num_layers=16), dtype="bfloat16")
    config = convert_from_hf(tmp_path / "a", tmp_path / "b")
    mesh = make_mesh(MeshSection(data=1, fsdp=16), slice_devices(SLICES["v5e-16"]))
    weights, seen = open_checkpoint(tmp_path / "b").weights(config), []
    for path, leaf in named_leaves(abstract_params(config)).items():
        part = file_sharding(weights, path, leaf.shape, mesh).shard_shape(leaf.shape)
        if "language_model/layers" in path and "kernel" in path:
            seen.append(part)
            assert part == (1, *leaf.shape[1:]), path  # a layer, which is a chunk
        if path == "lm_head/kernel":
            assert part == (192, 15)  # columns: the rows of the published tensor
    assert len(seen) == 7


@pytest.mark.parametrize("chunk", [7_000, 80_000, 1 << 27])
def test_layers_are_read_once_each(tmp_path, monkeypatch, chunk):
    """Of an Orbax folder with chunks of a layer, of some, or of all; and of published tensors."""
    monkeypatch.setattr("vilasr_jax.checkpoint.array_files.CHUNK_BYTES", chunk)
    write_folder(tmp_path / "a", EVEN.replace(num_layers=3), dtype="bfloat16")
    config = convert_from_hf(tmp_path / "a", tmp_path / "b")
    read, original = [], OrbaxWeights.block

    def noted(self, path, index, shape):
        read.append((path, index[0].start))
        return original(self, path, index, shape)

    monkeypatch.setattr(OrbaxWeights, "block", noted)
    full, counts = named_leaves(import_hf(tmp_path / "a")[1]), set()
    for name in ("a", "b"):
        weights = open_checkpoint(tmp_path / name).weights(config)
        for path, leaf in full.items():
            if "language_model/layers" in path:
                read.clear()
                np.testing.assert_array_equal(list(weights.layers(path, leaf.shape)), leaf)
                counts.add(len(read))
                assert len(read) == len(set(read))
    assert counts == {0} | {7_000: {1, 3}, 80_000: {1, 2, 3}, 1 << 27: {1}}[chunk]


def test_no_device_and_no_host_gets_a_full_tensor(tmp_path):
    """Every stored byte is read by one host, and equal parts by all; odd widths by more than one."""
    tensors = write_folder(tmp_path / "a", EVEN, dtype="bfloat16")
    size = sum(value.nbytes for value in tensors.values())
    mesh = make_mesh(MeshSection(data=1, fsdp=8, model=2), slice_devices(SLICES["v5e-16"]))
    found = [load_host(tmp_path / "a", mesh, host) for host in range(4)]
    assert sum(one["read"] for one in found) < 1.1 * size
    assert max(one["read"] for one in found) < 1.2 * size / 4
    assert all(one["held"] == 2 * one["read"] for one in found)  # as float32
    config, _, stored = open_hf(tmp_path / "a")
    weights = published_weights(config, stored)
    for path, leaf in named_leaves(abstract_params(config)).items():
        if leaf.size > 10_000:
            sharding = file_sharding(weights, path, leaf.shape, mesh)
            assert np.prod(sharding.shard_shape(leaf.shape)) <= leaf.size / 8, path


def test_any_block_is_that_of_the_full_weight(tmp_path):
    write_folder(tmp_path / "a", SMALL)
    config, _, stored = open_hf(tmp_path / "a")
    weights, full = published_weights(config, stored), named_leaves(import_hf(tmp_path / "a")[1])
    rng = np.random.default_rng(1)
    for (path, leaf), _ in itertools.product(full.items(), range(3)):
        ends = [sorted(rng.choice(size + 1, 2, replace=False)) for size in leaf.shape]
        index = tuple(slice(int(a), int(b)) for a, b in ends)
        np.testing.assert_array_equal(weights.block(path, index, leaf.shape), leaf[index], err_msg=path)


@functools.cache
def on_one_device(config):
    """Random weights as one device makes them."""
    return nnx.split(build(config, 3))[1]


@on_meshes("dtype", ("float32",), ("bfloat16",))
def test_random_weights_have_the_same_bits_on_every_mesh(name, dtype):
    config, mesh = SMALL.replace(param_dtype=dtype, init_std=None), make_mesh(MESHES[name])
    params = random_params(config, 3, mesh)
    check_equal(params, on_one_device(config))
    check_layout(params, mesh)
