"""Model cards, and uploads of exported models to the hub."""

import re

import pytest

from tests import tiny
from tests.checkpoint.fake_hub import FakeHub
from vilasr_jax import cli
from vilasr_jax.checkpoint import export_hf
from vilasr_jax.config import DataSection, JobConfig, ModelSection
from vilasr_jax.model_card import model_card, read_scores

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
    model = ModelSection(init_from="hf://Qwen/Qwen2.5-VL-7B-Instruct@main")
    job = JobConfig(name="hall", tasks=(), model=model, data=DataSection(root="/home/me", traces=("photos",)))
    text = model_card(job, tiny.config(), OF, 1234567, SCORES)
    assert "\nbase_model: Qwen/Qwen2.5-VL-7B-Instruct\n" in text and "1,234,567 parameters" in text
    assert "| after RL | 93.4 % | 90.9 to 95.2 % | 512 |" in text
    assert "| benchmark photos | 50.0 % |  | 4 |" in text and "12.5 %" not in text
    assert "the stage rl, step 54" in text and "data: photos" in text and "/home" not in text
    assert (
        "vilasr solve" in text and "AutoModelForImageTextToText" in text and not re.search(r"\{\w+\}", text)
    )


def test_a_card_of_what_was_not_evaluated_says_so():
    text = model_card(JobConfig(model=ModelSection(init_from="/secret/place/7b")), tiny.config(), OF, 1, {})
    assert "It was not evaluated" in text and "Start: 7b" in text and "secret" not in text


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
