"""Simulated hosts read a supervised step's rows: one small gather, and jointly the rows of a single host."""

import dataclasses
import threading

import numpy as np
import pytest

from tests.simulated_hosts import Hosts
from tests.slice_devices import slice_devices
from tests.training import samples
from tests.training.test_resume import JOB, scripted_run
from vilasr_jax.config import BucketSection, PackingSection
from vilasr_jax.errors import ConfigError
from vilasr_jax.parallel import hosts as hosts_module
from vilasr_jax.parallel import make_mesh
from vilasr_jax.slices import SLICES
from vilasr_jax.tasks.sources import MappedSource
from vilasr_jax.training import interrupt
from vilasr_jax.training.batching import Batching
from vilasr_jax.training.sft import _next_batch

COUNT, ROWS, STEPS = 2, 2, 6
PADDED = dataclasses.replace(
    JOB, buckets=BucketSection((30, 45, 60, 75, 90, 150), (1, 2, 3, 4, 5), (4, 8, 12, 16, 20, 24))
)
PACKED = dataclasses.replace(
    JOB, packing=PackingSection(120, 7, 24, lookahead=3, token_buckets=(108, 114), vision_row_buckets=(3, 5))
)


def batching(job, folder, number=None) -> Batching:
    """That of a single host, or of one of two."""
    batching_of_host = scripted_run(job, folder).batching
    if number is not None:
        batching_of_host.mesh = make_mesh(job.mesh, slice_devices(SLICES["v6e-8"]))
        assert batching_of_host.host[1] == COUNT
        vars(batching_of_host)["host"] = (number, COUNT)
    return batching_of_host


def steps(batching_of_host: Batching, example=samples.example):
    data = batching_of_host.batches([MappedSource(range(23), example)], [1], seed=3, batch=ROWS)
    return [_next_batch(batching_of_host, data) for _ in range(STEPS)]


def same(one, other):
    for name in ("tokens", "segment_ids", "image_index", "loss_mask"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)
    np.testing.assert_array_equal(one.positions, other.positions)
    for mine, theirs in zip(one.vision, other.vision, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def rows_of(batch, order):
    """The rows of a batch in another order."""
    vision = type(batch.vision)(*(part[order] for part in batch.vision))
    cut = {
        name: getattr(batch, name)[order] for name in ("tokens", "segment_ids", "image_index", "loss_mask")
    }
    return batch._replace(positions=batch.positions[:, order], vision=vision, **cut)


@pytest.mark.parametrize("job", [PADDED, PACKED], ids=["padded", "packed"])
def test_hosts_agree_on_the_shape_of_one_host(tmp_path, monkeypatch, job):
    single = [batch for batch, _, _ in steps(batching(job, tmp_path))]
    hosts = Hosts(monkeypatch, COUNT)
    parts = hosts.run(lambda number: steps(batching(job, tmp_path, number)))
    for step, batch in enumerate(single):
        for number in range(COUNT):
            same(parts[number][step][0], rows_of(batch, [number]))
    shapes = np.array([[*batch.tokens.shape, *batch.vision.patches.shape] for batch in single])
    assert (np.ptp(shapes, 0)[[1, 3, 4]] > 0).tolist() == [True, True, job is PADDED]
    assert hosts.sent == [hosts_module.SMALL + 8] * STEPS  # one small gather a step


def test_a_stop_of_one_host_ends_all_at_one_step(tmp_path, monkeypatch):
    host_state = threading.local()

    def here():
        host_state.count = getattr(host_state, "count", 0) + 1
        return host_state.number == 1 and host_state.count > 3

    hosts = Hosts(monkeypatch, COUNT)
    monkeypatch.setattr(interrupt, "stop_requested_here", here)

    def host(number):
        host_state.number = number
        return [stop for _, _, stop in steps(batching(PACKED, tmp_path, number))]

    assert hosts.run(host) == [[False] * 3 + [True] * 3] * COUNT


def test_a_host_without_a_batch_ends_all(tmp_path, monkeypatch):
    def broken(number):
        if number == 7:
            raise OSError(5, "the disk is broken")
        return samples.example(number)

    hosts = Hosts(monkeypatch, COUNT)

    def host(number):
        return steps(batching(PADDED, tmp_path, number), broken if number else samples.example)

    first, second = hosts.run(host)
    assert isinstance(second, OSError) and isinstance(first, RuntimeError)
    assert "the disk is broken (process 1 of 2)" in str(first)


def test_long_values_are_gathered_too(monkeypatch):
    hosts = Hosts(monkeypatch, 3)
    values = [b"", b"x" * 5000, b"y" * hosts_module.SMALL]
    assert hosts.run(lambda number: hosts_module.gather_bytes(values[number])) == [values] * 3
    assert hosts.sent == [1024, 8192]


def test_smaller_rows_are_smaller():
    for wrong in ({"token_buckets": (18, 9)}, {"token_buckets": (20,)}, {"vision_row_buckets": (3, 3)}):
        with pytest.raises(ConfigError, match=r"packing\.\w+_buckets=\(.*must be ascending numbers below"):
            PackingSection(20, 4, 16, **wrong).check("config.packing")
    assert PackingSection(0, token_buckets=(9,)).check("config.packing") is None
