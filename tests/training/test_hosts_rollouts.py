"""Simulated hosts sample other questions each: no image travels, and what is trained on is one host's."""

import dataclasses
from itertools import chain
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from tests.simulated_hosts import Hosts
from tests.training import samples
from tests.training.test_hosts_agree import PACKED, PADDED, batching, same
from tests.training.test_resume import quiet, scripted_run
from vilasr_jax.errors import Stopped
from vilasr_jax.parallel import hosts as hosts_module
from vilasr_jax.rollout import RedrawnImages
from vilasr_jax.training import grpo, interrupt, reflect
from vilasr_jax.training.groups import collect
from vilasr_jax.training.trajectory_dataset import TIMING

COUNT = 2


def speaking(job, folder, number=None):
    """A run whose model writes letters by chance: a single host's, or that of one of two."""
    run = scripted_run(job, folder)
    if number is not None:
        run.batching = batching(job, folder, number)
        run.mesh = run.rollouts.mesh = run.batching.mesh

    def generate(params, requests, key, progress):
        found = []
        for request in requests:
            found += [samples.spoken(request, k) for k in range(request.samples)]
            progress(len(found))
        return found

    run.rollouts.engine = lambda sampling: SimpleNamespace(generate=generate)
    return run


def gradient_calls(run):
    """The conversations of a step and the batches of its updates."""
    section = run.job.rl
    step = collect(run, None, 1)
    update = grpo.Update(section, run.model, run.batching, (None,) * 3, None, None, None)
    parts = np.array_split(np.random.default_rng(0).permutation(len(step.rewards)), section.updates)
    return step, [[*update._batches(step, part)] for part in parts], parts


@pytest.mark.parametrize("job", [PADDED, PACKED], ids=["padded", "packed"])
def test_hosts_make_the_gradient_calls_of_one_host(tmp_path, monkeypatch, job):
    job = dataclasses.replace(job, rl=dataclasses.replace(job.rl, prompts=6, micro_batch=4))
    monkeypatch.setattr(grpo, "put_batch", lambda mesh, batch: batch)
    step, single, parts = gradient_calls(speaking(job, tmp_path))
    pixels = sum(
        image.width * image.height * 3 for one in step.with_gradient.values() for image in one.images
    )
    trained = [sum(i in step.with_gradient for i in part) for part in parts]
    assert 4 < min(trained) and sum(trained) < len(step.rewards)
    if not job.packing.tokens:
        assert [len(calls) for calls in single] == [
            -(-count // 4) for count in trained
        ]  # no more than needed

    hosts = Hosts(monkeypatch, COUNT)
    found = hosts.run(lambda number: gradient_calls(speaking(job, tmp_path, number)))
    for number, (mine, calls, _) in enumerate(found):
        assert [*map(len, calls)] == [
            *map(len, single)
        ] and mine.with_gradient.keys() == step.with_gradient.keys()
        assert mine.metrics == step.metrics
        redrawn = {i for i, one in mine.with_gradient.items() if isinstance(one.images, RedrawnImages)}
        assert redrawn == mine.with_gradient.keys() - mine.trajectories.keys() and redrawn
        for batch, other in zip(chain(*calls), chain(*single), strict=True):
            rows = slice(2 * number, 2 * number + 2)
            vision = type(other.vision)(*(part[rows] for part in other.vision))
            names = ("tokens", "segment_ids", "image_index", "loss_mask")
            cut = {name: getattr(other, name)[rows] for name in names}
            same(batch, other._replace(positions=other.positions[:, rows], vision=vision, **cut))
            for name, values in other.extras.items():
                np.testing.assert_array_equal(batch.extras[name], values[rows])
    assert COUNT * sum(hosts.sent) < pixels / 4


def files(folder: Path) -> dict[str, bytes]:
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if not name.endswith(TIMING)}


def reflecting(folder, number=None):
    run = speaking(PADDED, folder, number)
    run.reward = lambda t: {"accuracy": float(t.tokens.sum() % 3 > 0), "format": 1.0, "total": 1.0}
    return run


def test_each_shard_is_written_where_it_was_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr("vilasr_jax.rollout.Trajectory.corrected", 1)
    paths = reflect.sample_traces(reflecting(tmp_path / "one"), None, quiet())
    assert len(paths) == 3
    hosts, wrote = Hosts(monkeypatch, COUNT), []
    writing = "vilasr_jax.training.trajectory_dataset.write_shard"
    real = reflect.sample_shards.__globals__["write_shard"]

    def write(path, records, note):
        wrote.append((path.name[:5], hosts_module.jax.process_index()))
        real(path, records, note)

    monkeypatch.setattr(writing, write)

    def host(number):
        return reflect.sample_traces(reflecting(tmp_path / "two", number), None, quiet())

    found = hosts.run(host)
    assert [[path.name for path in one] for one in found] == [[path.name for path in paths]] * 2
    assert sorted(wrote) == [("00000", 0), ("00001", 1), ("00002", 0)]
    assert files(tmp_path / "two") == files(tmp_path / "one")
    assert sum(hosts.sent) < 20_000  # counts and questions, no conversation


def test_a_stop_of_one_host_ends_sampling_on_all(tmp_path, monkeypatch):
    monkeypatch.setattr("vilasr_jax.rollout.Trajectory.corrected", 1)
    reflect.sample_traces(reflecting(tmp_path / "one"), None, quiet())
    hosts, requested = Hosts(monkeypatch, COUNT), True
    here = "stop_requested_here"
    monkeypatch.setattr(interrupt, here, lambda: requested and hosts_module.jax.process_index() == 1)

    def host(number):
        return reflect.sample_traces(reflecting(tmp_path / "two", number), None, quiet())

    assert all(isinstance(end, Stopped) for end in hosts.run(host))
    samples_folder = tmp_path / "two" / "reflect" / "samples"
    assert {path.name[:5] for path in samples_folder.glob("0*")} == {"00000"}  # the other host's is complete
    requested = False
    hosts.run(host)
    assert files(tmp_path / "two") == files(tmp_path / "one")
