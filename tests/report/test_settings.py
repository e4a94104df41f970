"""What the report says of a run besides its scores: settings, another run, and which pictures have room."""

import json
import re

from tests.report.conftest import write_workdir
from vilasr_jax import cli, environment
from vilasr_jax.report import page, render_report

START = {
    "date": "2026-11-29T16:00:00+00:00",
    "command": "vilasr train --config=maze_tiny",
    "python": "3.11.9",
    "versions": {"vilasr_jax": "0.1", "jax": "0.10.2"},
    "devices": "4 x TPU v5 lite",
    "commit": "abc123+",
}


def data_of(text, name="data"):
    return json.loads(re.search(rf'id="{name}">(.*?)</script>', text, re.DOTALL)[1])


def test_settings_versions_devices_and_dates_are_there(tmp_path):
    run = write_workdir(tmp_path / "run")
    (run / environment.STARTS).write_text(f"{json.dumps(START)}\n")
    text = render_report(run).read_text()
    for words in ("2026-11-29T16:00:00", "4 x TPU v5 lite", "abc123+", "jax 0.10.2", "--config=maze_tiny"):
        assert words in text
    assert "values that are no default" in text


def test_a_start_is_noted_with_what_ran_it(tmp_path):
    environment.note_start(tmp_path)
    environment.note_start(tmp_path)
    first, second = map(json.loads, (tmp_path / environment.STARTS).read_text().splitlines())
    assert first["versions"]["jax"] and "cpu" in second["devices"] and first["date"] <= second["date"]


def test_another_runs_curves_and_scores_are_shown(tmp_path, capsys):
    run, other = write_workdir(tmp_path / "second"), write_workdir(tmp_path / "first")
    for arguments, code in (([str(run), f"--compare={other}"], 0), ([str(run), "--compare=nowhere"], 2)):
        try:
            cli.main(["vilasr", "report", *arguments])
        except SystemExit as stop:
            assert stop.code == code
    assert "--compare=nowhere isn't a folder of a run" in capsys.readouterr().err
    text = (run / "report.html").read_text()
    assert data_of(text)["other"]["curves"] == data_of(text)["curves"]
    assert "first: Reinforcement learning" in text


def drawn(conversations, plain):
    """Pictures of turns, in conversations that are right without a correction (or the others)."""
    some = [c for c in conversations if (c["correct"] and not c["corrected"]) == plain]
    return sum(len(turn["images"]) for c in some for turn in c["turns"])


def test_wrong_conversations_have_pictures_before_right_ones(tmp_path, monkeypatch):
    run, shelf = write_workdir(tmp_path / "run", with_pictures=6), page.ImageShelf
    text = render_report(run).read_text()
    before, size = data_of(text)["conversations"], sum(map(len, data_of(text, "images").values()))
    monkeypatch.setattr(page, "ImageShelf", lambda: shelf(size // 2))
    after = data_of(render_report(run).read_text())["conversations"]
    assert [c["id"] for c in after] != [] and drawn(after, True) < drawn(before, True)
    lost = [drawn(before, plain) - drawn(after, plain) for plain in (False, True)]
    assert lost[0] / drawn(before, False) < lost[1] / drawn(before, True) / 2
