"""The benchmark of a published size, at the size of a test."""

import importlib.util
import json
import subprocess

import numpy as np
import pytest
from safetensors.numpy import save_file

from vilasr_jax import cli
from vilasr_jax.bench import convert, real, real_programs
from vilasr_jax.checkpoint.safetensors_files import stored_tensors
from vilasr_jax.errors import DataError
from vilasr_jax.models import preset
from vilasr_jax.open_checkpoint import open_checkpoint


def test_a_published_size_is_written_once(tmp_path):
    """The tiny model, with a tokenizer whose special tokens its config names."""
    folder = real.model_folder("tiny", tmp_path, layers=1)
    opened = open_checkpoint(folder)
    assert opened.config.num_layers == 1 and opened.config.hidden_size == preset("tiny").hidden_size
    assert opened.config.eos_token_id == opened.tokenizer.special.im_end < opened.config.vocab_size
    before = (folder / "config.json").stat().st_mtime_ns
    assert real.model_folder("tiny", tmp_path, layers=1) == folder
    assert (folder / "config.json").stat().st_mtime_ns == before
    assert [path.name for path in tmp_path.iterdir()] == ["tiny-1-layers"]


def test_a_disk_that_is_too_small_is_named(tmp_path):
    with pytest.raises(DataError, match=r"GiB free, 1[34]\d\.\d GiB needed; choose another --workdir"):
        real.model_folder("72b", tmp_path)


def test_the_bound_is_bandwidth_over_the_bytes_of_a_token(tmp_path, monkeypatch, capsys):
    """The programs are replaced: what is left is who runs, and the table."""
    figures = {
        "load_seconds": 1.0,
        "first_answer_seconds": 2.0,
        "first_token_seconds": 0.5,
        "tokens_per_second": 10.0,
        "drawing_turn_seconds": 0.3,
        "peak_gib": 4.0,
        "same_tokens": 5,
    }
    ran = []

    def run(command, **_):
        ran.append(command[3])
        own = {"bytes_per_token": 30, "weights_per_token": 25, "stream_bytes_per_second": 1000.0}
        found = figures | (own if command[3].startswith("ours") else {})
        failed = command[3].startswith("vllm")
        return subprocess.CompletedProcess(command, int(failed), json.dumps(found), "odd\nno such processor")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    with pytest.raises(SystemExit) as stop:
        words = [f"--workdir={tmp_path}", f"--json={tmp_path / 'real.json'}"]
        cli.main(["vilasr", "bench", "real", "--size=tiny", "--weights=int8", *words])
    assert stop.value.code == 0 and ran == ["ours-int8", "transformers-bf16", "vllm-bf16"]
    ours, theirs, failed = json.loads((tmp_path / "real.json").read_text())["records"]
    assert ours["of_bound"] == pytest.approx(0.3) and theirs["of_bound"] == pytest.approx(0.5)
    assert failed["failed"] == "no such processor" and "failed: no such processor" in capsys.readouterr().out


def test_equal_tokens_are_counted_up_to_the_first_other(tmp_path):
    save_file({"written": np.array([3, 1, 4, 1])}, tmp_path / "turns.safetensors")
    assert real_programs.same_tokens(tmp_path / "turns.safetensors", np.array([3, 1, 5, 1])) == 2
    assert real_programs.same_tokens(tmp_path / "turns.safetensors", np.array([3, 1, 4, 1])) == 4


def test_random_weights_repeat_nowhere(tmp_path, monkeypatch):
    """Equal rows of the output head would give their tokens equal logits."""
    monkeypatch.setattr(convert, "_BLOCK", 1 << 13)
    config = preset("tiny", num_layers=2, vocab_size=1000)
    convert.write_random(config, tmp_path)
    for name, tensor in stored_tensors(tmp_path).items():
        values = tensor.read().view(np.uint16)
        if values.ndim == 2:
            assert len(set(map(bytes, values))) == len(values), name
    one, other = (
        tensor.read() for name, tensor in stored_tensors(tmp_path).items() if name.endswith("q_proj.weight")
    )
    assert not np.array_equal(one, other)


@pytest.mark.slow  # a process for each program
def test_all_that_are_installed_hold_the_same_conversation(tmp_path):
    """Times of a small model are noise where others use the machine: they are there, not more."""
    result = real.bench_real("tiny", tmp_path, ("f32", "int8"), tokens=4, peers="f32")
    for record in result["records"]:
        assert "failed" not in record, record
        assert {"tokens_per_second", "drawing_turn_seconds", "of_bound"} <= record.keys()
        assert record["first_answer_seconds"] > record["load_seconds"] and record["peak_gib"] > 0.1
        if "f32" in record["name"]:
            assert record["same_tokens"] == 4, record
    names = [record["name"] for record in result["records"]]
    torch = importlib.util.find_spec("torch") and importlib.util.find_spec("transformers")
    assert names[:2] == ["ours, f32", "ours, int8"] and ("transformers, f32" in names) == bool(torch)
