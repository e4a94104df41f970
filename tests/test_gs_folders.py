"""A `gs://` word where a folder is needed: a clear refusal, and no local folder called "gs:"."""

from pathlib import Path

import pytest

from vilasr_jax.cli import main

TINY = "--config=configs/maze_tiny.py"
BUCKET = "gs://my-bucket/run"


@pytest.mark.parametrize(
    "words, names",
    [
        (("train", TINY, f"--workdir={BUCKET}"), f"--workdir={BUCKET}"),
        (("rl", TINY, f"--workdir={BUCKET}"), f"--workdir={BUCKET}"),
        (("data", "make", TINY, f"--workdir={BUCKET}"), f"--workdir={BUCKET}"),
        (("data", "show", TINY, f"--out={BUCKET}/page.html"), f"--out={BUCKET}/page.html"),
        (("bench", "learn", TINY, f"--workdir={BUCKET}"), f"--workdir={BUCKET}"),
        (("report", BUCKET), f"WORKDIR={BUCKET}"),
        (("solve", "a.png", "--question=Where?", "--checkpoint=x", f"--out={BUCKET}"), f"--out={BUCKET}"),
        (("data", "import", "maze", "data", BUCKET), BUCKET),
        (
            ("train", TINY, "--workdir=run", f"--config.data.root={BUCKET}", "--config.data.traces=('a',)"),
            f"config.data.traces: {BUCKET}/a",
        ),
    ],
)
def test_gs_words_for_folders_are_refused(words, names, tmp_path, monkeypatch, capsys):
    if TINY in words:  # virtual devices can't be created where another test has used JAX
        words = (*words, "--config.mesh.cpu_devices=1")
    words = [word.replace("configs/", f"{Path('configs').resolve()}/") for word in words]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["vilasr", *words])
    assert stopped.value.code == 2
    assert names in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
