"""What unfinished stages read is looked at before the first step; what can't be used is left out by name."""

import dataclasses
import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from tests.tasks.stored_rows import stored_row, write_rows
from tests.training import samples
from tests.training.test_imported_rows import torn_jpeg, written
from vilasr_jax import job as job_module
from vilasr_jax.config import (
    BucketSection,
    ColdStartSection,
    DataSection,
    DrawingSection,
    EngineSection,
    JobConfig,
    PackingSection,
    ReflectSection,
    SamplingSection,
)
from vilasr_jax.errors import DataError
from vilasr_jax.processing import Encoded
from vilasr_jax.tasks.sources import MappedSource
from vilasr_jax.training.run import open_run

ROOT = Path(__file__).parents[2]
REFLECT = ReflectSection(sampling=SamplingSection(max_tokens=900))
JOB = JobConfig(
    tasks=(),
    stages=("cold_start",),
    drawing=DrawingSection(prompt="short", max_images=8),
    engine=EngineSection(prompt_tokens=(700,), prompt_images=(4,)),
    buckets=BucketSection(tokens=(1024,), images=(8,)),
    reflect=REFLECT,
)


def torn_rows(folder: Path, count: int = 3, trace: bool = False) -> str:
    """A folder of rows whose pictures can't be decoded."""
    rows = [dataclasses.replace(stored_row(n, trace), images=(torn_jpeg(),)) for n in range(count)]
    return written(folder, rows)


def refused(tmp_path, monkeypatch, match, **changes):
    """`train` raises before any stage runs."""
    began = []
    monkeypatch.setattr(
        job_module, "_TRAIN", {name: lambda *_, n=name: began.append(n) for name in job_module._TRAIN}
    )
    with pytest.raises(DataError, match=match):
        job_module.train(dataclasses.replace(JOB, **changes), tmp_path / "run")
    assert not began


def good(tmp_path) -> str:
    return str(write_rows(tmp_path / "good", 2, trace=True))


def test_traces_are_looked_at_before_step_1(tmp_path, monkeypatch):
    data = DataSection(traces=(torn_rows(tmp_path / "torn", trace=True),))
    refused(tmp_path, monkeypatch, r"config\.data\.traces: none of 3 rows can be used", data=data)


def test_traces_of_a_later_stage_are_looked_at_before_step_1(tmp_path, monkeypatch):
    torn = torn_rows(tmp_path / "torn", trace=True)
    data = DataSection(traces=(good(tmp_path),), reflect_traces=(torn,))
    stages, match = ("cold_start", "reflect"), r"config\.data\.reflect_traces: none of 3 rows"
    refused(tmp_path, monkeypatch, match, data=data, stages=stages)


@pytest.mark.parametrize("every, stages", [(5, ("cold_start",)), (0, ("cold_start", "eval"))])
def test_benchmarks_are_looked_at_before_step_1(tmp_path, monkeypatch, every, stages):
    benchmark = Path(torn_rows(tmp_path / "maze"))
    index = json.loads((benchmark / "index.json").read_text())
    (benchmark / "index.json").write_text(json.dumps({**index, "format": "maze"}))
    data = DataSection(traces=(good(tmp_path),), benchmarks=(str(benchmark),))
    section = ColdStartSection(validate_every=every)
    match = r"config\.data\.benchmarks: .*none of 3 (rows|questions looked at) can be used"
    refused(tmp_path, monkeypatch, match, data=data, cold_start=section, stages=stages)


def test_few_generated_traces_are_all_looked_at(tmp_path, monkeypatch):
    small = BucketSection(tokens=(1024,), images=(1,))
    few, match = ColdStartSection(traces=20), "20 of 20 examples looked at can't be trained on; example 0"
    refused(tmp_path, monkeypatch, match, tasks=("maze",), buckets=small, cold_start=few)


def test_each_example_of_a_sample_is_encoded_once(tmp_path):
    encoded = []
    source = MappedSource(range(20), lambda n: encoded.append(n) or samples.example(n))
    job = JobConfig(packing=PackingSection(400, 40, 96), buckets=BucketSection((400,), (40,), (96,)))
    run = open_run(job, tmp_path, tiny.mesh())
    run.batching.check_source(source)
    per_row = run.batching.examples_per_row([source], [1.0])
    assert sorted(encoded) == list(range(20)) and per_row > 1
    assert run.batching.examples_per_row([source, source], [0.5, 0.5]) > 1 and len(encoded) == 20


@pytest.mark.parametrize("packing", [PackingSection(), PackingSection(16, 1, 4)], ids=["padded", "packed"])
def test_batches_name_the_examples_that_they_replace(tmp_path, packing):
    special = tiny.tokenizer().special

    def example(number: int) -> Encoded:
        if number == 2:
            raise KeyError("no such field")
        length = 900 if number == 1 else 9
        return Encoded(np.full(length, 9, np.int32), np.ones(length, bool), [], special)

    job = JobConfig(packing=packing, buckets=BucketSection((16,), (0,), (4,)))
    run = open_run(job, tmp_path, tiny.mesh())
    data = run.batching.batches([MappedSource(range(4), example)], [1], seed=0, batch=4)
    assert next(data).tokens.shape[0] == 4
    reasons = {line["id"]: line["reason"] for line in data.replaced}
    assert set(reasons) == {"example 1", "example 2"}
    assert "900" in reasons["example 1"] and reasons["example 2"] == "KeyError: 'no such field'"


@pytest.mark.slow
def test_two_processes_end_alike_where_data_cannot_be_trained_on(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "VILASR_PORT": str(port)}
    command = ["bash", "launch/local_pod.sh", "2", sys.executable, "-m", "tests.training.pod_faults"]
    run = subprocess.Popen([*command, str(tmp_path)], cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True)
    try:
        _, error = run.communicate(timeout=400)
    finally:
        run.terminate()  # which ends both processes
    assert run.returncode == 0, error[-3000:]
    first, second = (json.loads((tmp_path / f"{number}.json").read_text()) for number in range(2))
    assert first["no example fits"] == second["no example fits"] == "exit 2"
    assert error.count("20 of 20 examples looked at can't be trained on") == 2
    assert first["one host can't read"].endswith("not on this host (process 1 of 2)")
    assert second["one host can't read"].endswith("not on this host")
    assert first["one host has no batch"].endswith("the disk is broken (process 1 of 2)")
    assert second["one host has no batch"].endswith("the disk is broken")
