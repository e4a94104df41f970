"""Models of the hub: downloaded once, resumed, and refused in plain words."""

import dataclasses
import importlib.util

import pytest

from tests import tiny
from tests.checkpoint.fake_hub import SHA, FakeHub
from vilasr_jax import cli
from vilasr_jax.checkpoint import export_hf
from vilasr_jax.checkpoint.safetensors_files import stored_tensors
from vilasr_jax.errors import CheckpointError, MissingCheckpointError
from vilasr_jax.open_checkpoint import open_checkpoint

constants = pytest.importorskip("huggingface_hub.constants")
NAME = "hf://org/a-model"


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one model, whose cache is empty."""
    fake = FakeHub()
    export_hf(tiny.params(), tiny.config(), tmp_path / "model", tokenizer=tiny.tokenizer())
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"pickled")
    (tmp_path / "model" / "onnx").mkdir()
    (tmp_path / "model" / "onnx" / "model.safetensors").write_bytes(b"another")
    fake.models["org/a-model"] = tmp_path / "model"
    monkeypatch.setattr(constants, "ENDPOINT", fake.url)
    template = fake.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between attempts
    yield fake
    fake.close()


def names(hub):
    return sorted(name for name, _ in hub.fetched)


def test_a_model_is_downloaded_once(hub, tmp_path):
    opened = open_checkpoint(NAME)
    assert opened.address.name == "a-model" and opened.kind == "Hugging Face folder"
    assert stored_tensors(opened.folder).keys() == stored_tensors(tmp_path / "model").keys()
    assert opened.tokenizer.encode("look at 1") == tiny.tokenizer().encode("look at 1")
    assert "model.safetensors" in names(hub) and "pytorch_model.bin" not in names(hub)
    assert len(hub.fetched) == len(set(hub.fetched)) and not (opened.folder / "onnx").exists()
    assert opened.fixed_address == open_checkpoint(f"{NAME}@main").fixed_address == f"{NAME}@{SHA}"
    assert dataclasses.replace(opened.address, text=f"{NAME}@refs/pr/1").name == "a-model"
    hub.fetched.clear()
    assert open_checkpoint(f"{NAME}@{SHA}").folder == open_checkpoint(NAME).folder and not hub.fetched
    hub.close()  # without a network
    assert open_checkpoint(NAME).folder == opened.folder


def test_a_broken_connection_is_resumed(hub, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.cut["model.safetensors"] = 30_000
    open_checkpoint(NAME)
    assert [start for name, start in hub.fetched if name == "model.safetensors"] == [0, 30_000]


def test_what_has_arrived_is_not_fetched_again(hub):
    hub.broken.add("model.safetensors")
    with pytest.raises(
        MissingCheckpointError, match=r"could not be downloaded .* files that have arrived stay"
    ):
        open_checkpoint(NAME)
    before = names(hub)
    hub.broken.clear()
    hub.fetched.clear()
    open_checkpoint(NAME)
    assert "model.safetensors" in names(hub) and not set(names(hub)) & set(before)
    assert "config.json" in before + names(hub)


def test_what_the_hub_refuses_is_one_line(hub, tmp_path, capsys):
    hub.gated.add("org/gated")
    cases = {
        "hf://org": "expected hf://ORG/NAME",
        "hf://org/none": "the hub has no such model, or it is private; then run `hf auth login`",
        "hf://org/gated": "its terms must be accepted on its page first",
        f"{NAME}@v7": "the model has no revision 'v7'",
    }
    for address, words in cases.items():
        with pytest.raises(SystemExit) as stop:
            cli.main(["vilasr", "convert", "to-hf", address, str(tmp_path / "out")])
        err = capsys.readouterr().err
        assert stop.value.code == 2 and err.startswith(f"vilasr: {address}: ") and words in err
        assert err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_no_network_and_no_client(hub, monkeypatch):
    hub.close()
    with pytest.raises(MissingCheckpointError, match=r"a-model: could not be downloaded .* local folder"):
        open_checkpoint(NAME)
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "huggingface_hub" else find(name)
    )
    with pytest.raises(CheckpointError, match=r'pip install "vilasr-jax\[hub\]"'):
        open_checkpoint(NAME)
