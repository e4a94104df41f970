"""Model cards, and uploads of exported models to the hub."""

import re

import pytest

from tests import tiny
from tests.checkpoint.fake_hub import FakeHub
from vilasr_jax import cli
from vilasr_jax.checkpoint import export_hf
from vilasr_jax.config import DataSection, JobConfig, ModelSection
from vilasr_jax.model_card import model_card, read_scores
from vilasr_jax.models import preset

constants = pytest.importorskip("huggingface_hub.constants")
SCORES = {
    "untrained": {"accuracy": 0.25, "ci95": [0.2, 0.3], "n": 512},
    "rl": {"accuracy": 0.934, "ci95": [0.909, 0.952], "n": 512},
    "rl/photos": {"overall": {"mean": 0.5, "ci95": None, "n": 4}},
    "cold_start/photos": {"overall": {"mean": 0.125, "ci95": None, "n": 4}},
}
OF = {"stage": "rl", "step": 54}


def vilasr(*words):
    with pytest.raises(SystemExit) as stop:
        cli.main(["vilasr", *map(str, words)])
    return stop.value.code


def test_a_card_says_what_how_and_how_good():
    """RL from published weights: the config's other stages are not what was done."""
    model = ModelSection(init_from="hf://Qwen/Qwen2.5-VL-7B-Instruct@main")
    job = JobConfig(
        name="hall", tasks=(), model=model, data=DataSection(root="/home/me", questions=("photos",))
    )
    text = model_card(job, tiny.config(), OF, 1234567, SCORES, ["rl"])
    assert "\nbase_model: Qwen/Qwen2.5-VL-7B-Instruct\n" in text and "1,234,567 parameters" in text
    assert "| after RL | 93.4 % | 90.9 to 95.2 % | 512 |" in text
    assert "| benchmark photos | 50.0 % |  | 4 |" in text and "12.5 %" not in text
    assert "the stage rl, step 54" in text and "data: photos" in text and "/home" not in text
    assert (
        "vilasr solve" in text and "AutoModelForImageTextToText" in text and not re.search(r"\{\w+\}", text)
    )


def test_a_card_says_of_which_unit_coordinates_are():
    for name, words in (
        ("tiny", "are pixels of the image as the image processor resizes it."),
        ("qwen3vl_tiny", "run from 0 to 1000 over an image's width and over its height"),
    ):
        text = model_card(JobConfig(), preset(name), OF, 1, {}, ["rl"])
        assert text.count("Coordinates, in both directions, ") == 1 and words in text


def test_a_card_of_what_was_not_evaluated_says_so():
    text = model_card(
        JobConfig(model=ModelSection(init_from="/secret/place/7b")), tiny.config(), OF, 1, {}, ["rl"]
    )
    assert "It was not evaluated" in text and "Start: 7b" in text and "secret" not in text


def test_a_card_has_the_scores_of_this_model_alone():
    """Controls and benchmarks of an earlier stage, or of another step, are those of another model."""
    scores = {
        "cold_start": {"accuracy": 0.5, "n": 9, "model": {"stage": "cold_start", "step": 8}},
        "rl": {"accuracy": 0.75, "n": 9, "model": OF},
        "ood": {"accuracy": 0.125, "n": 9, "model": {"stage": "cold_start", "step": 8}},
        "blank_image": {"accuracy": 0.625, "n": 9, "model": OF},
        "rl/photos": {"overall": {"mean": 0.875, "n": 4}, "model": {**OF, "benchmark": "photos"}},
    }

    def card(of, trained):
        lines = model_card(JobConfig(), tiny.config(), of, 1, scores, trained).splitlines()
        return [line.split("|")[1:3] for line in lines if line[:1] == "|"][2:]

    assert card(OF, ["cold_start", "rl"]) == [
        [" after the cold start ", " 50.0 % "],
        [" after RL ", " 75.0 % "],
        [" control: white picture instead ", " 62.5 % "],
        [" benchmark photos ", " 87.5 % "],
    ]
    assert card({"stage": "rl", "step": 9}, ["rl"]) == []
    first = card({"stage": "cold_start", "step": 8}, ["cold_start"])
    assert first == [[" after the cold start ", " 50.0 % "], [" unfamiliar questions ", " 12.5 % "]]


def test_scores_are_read_by_name(tmp_path):
    for name in ("rl", "rl/photos"):
        (tmp_path / "eval" / name).mkdir(parents=True)
        (tmp_path / "eval" / name / "scores.json").write_text('{"accuracy": 1}')
    assert read_scores(tmp_path) == {"rl": {"accuracy": 1}, "rl/photos": {"accuracy": 1}}
    assert read_scores(tmp_path / "none") == {}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    fake = FakeHub()
    card = {"README.md": "---\ntags: []\n---\n# A card\n"}
    export_hf(
        tiny.params(), tiny.config(), tmp_path / "run" / "hf", tokenizer=tiny.tokenizer(), extra_files=card
    )
    monkeypatch.setattr(constants, "ENDPOINT", fake.url)
    monkeypatch.setenv("HF_TOKEN", fake.token)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # between attempts
    yield fake
    fake.close()


def test_an_export_is_uploaded_with_its_card(hub, tmp_path, capsys):
    assert vilasr("push", tmp_path / "run", "org/hall", "--private") == 0
    sent = hub.uploaded["org/hall"]
    for path in (tmp_path / "run" / "hf").iterdir():
        assert sent[path.name] == path.read_bytes(), path.name
    assert sent["README.md"].endswith(b"# A card\n") and "private" in hub.created[0].values()
    assert "hf://org/hall" in capsys.readouterr().out


def test_files_of_an_earlier_upload_do_not_stay(hub, tmp_path):
    hub.uploaded["org/hall"] = {
        "model-00001-of-00002.safetensors": b"old",
        "model.safetensors.index.json": b"old",
        "prompt.json": b"old",
        "notes.txt": b"mine",
        "photos/index.json": b"mine",
    }
    assert vilasr("push", tmp_path / "run", "org/hall") == 0
    ours = {path.name for path in (tmp_path / "run" / "hf").iterdir()}
    assert hub.uploaded["org/hall"].keys() == ours | {"notes.txt", "photos/index.json"}


@pytest.mark.parametrize(
    "source, name, words",
    [
        ("run", "hall", "expected ORG/NAME"),
        ("run/eval", "org/hall", "vilasr convert to-hf"),
        ("nowhere", "org/hall", "holds no model"),
    ],
)
def test_what_can_not_be_uploaded_is_named(hub, tmp_path, capsys, source, name, words):
    assert vilasr("push", tmp_path / source, name) == 2
    assert words in capsys.readouterr().err and not hub.uploaded


def test_a_wrong_token_is_named(hub, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "wrong")
    assert vilasr("push", tmp_path / "run", "org/hall") == 2
    error = capsys.readouterr().err
    assert "hf auth login" in error and error.count("\n") == 1 and not hub.uploaded


def test_a_network_that_fails_is_named(hub, tmp_path, capsys, monkeypatch):
    hub.close()
    assert vilasr("push", tmp_path / "run", "org/hall") == 2
    error = capsys.readouterr().err
    assert "could not be uploaded" in error and "check the network" in error and error.count("\n") == 1
    assert "login" not in error


def test_a_missing_token_is_named(hub, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert vilasr("push", tmp_path / "run", "org/hall") == 2
    assert "hf auth login" in capsys.readouterr().err and not hub.uploaded


def test_an_export_without_its_card_is_refused(hub, tmp_path, capsys):
    (tmp_path / "run" / "hf" / "README.md").unlink()
    assert vilasr("push", tmp_path / "run", "org/hall") == 2
    error = capsys.readouterr().err
    assert "hf: has no README.md, the model card" in error and "vilasr convert to-hf" in error
    assert not hub.uploaded
