"""Mistakes that the command line names within a second: before JAX is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from vilasr_jax.config import JobConfig, to_dict
from vilasr_jax.files import near_path

ROOT = Path(__file__).parent.parent
SOLVE = ["solve", "maze.png", "--question=Where?"]
# Each command line, and what its one line must say.
MISTAKES = {
    "eval": ["--config=FILE and --workdir=DIR", "--answers", "usage: vilasr eval ["],
    "eval --workdir=W": ["give --config=FILE", "usage: vilasr eval ["],
    "eval --config=maze_tiny --workdir=runs/quickstrat": ["no run yet; did you mean runs/quickstart?"],
    "eval --answers=none.jsonl --weights=int8": ["--weights", "--answers"],
    "config": ["give --config=FILE, or --list; usage: vilasr config"],
    "config --config=maze_tiny:foo": [
        "maze_tiny.py:foo: this file has no words after a colon; give --config=",
        "maze_tiny.py\n",
    ],
    "train --config=maze_tiny --workdir=W --config.rl.steps=-5": ["config.rl.steps=-5 must not be negative"],
    "train --config=maze_tiny --workdir=runs/quickstart": ["runs/quickstart belongs to another config"],
    "train --config=maze_tiny --workdir=W --config.model.init_from=run/quickstart": [
        "config.model.init_from: run/quickstart: no such folder; did you mean runs/quickstart?"
    ],
    "bench learn --config=maze_tiny --workdir=W --seeds=0,x": ["--seeds=0,x: give integers"],
    "bench learn --config=maze_tiny --workdir=W --config.rl.steps=-5": ["config.rl.steps=-5"],
    "plan --config=maze_tiny --topology=v5e-8 --config.rl.steps=-5": ["config.rl.steps=-5"],
    "solve maze.pgn --question=x --checkpoint=runs/quickstart": [
        "maze.pgn: no such image file; did you mean maze.png?"
    ],
    "solve notes.txt --question=x --checkpoint=runs/quickstart": ["notes.txt: can't be read as an image"],
    "solve maze.png --question=x --checkpoint=runs/quickstrat": [
        "runs/quickstrat: no such folder; did you mean runs/quickstart?\n"
    ],
    "solve maze.png --question=x --checkpoint=docs": ["docs: holds no config.json; expected a Hugging Face"],
    "solve maze.png --question=x --checkpoint=hf://x": ["hf://x: expected hf://ORG/NAME"],
    "solve maze.png --question=x --checkpoint=docs --max_tokens=-1": ["--max_tokens=-1 must be at least 1"],
    "solve --help train": ["unexpected word 'train'; give `vilasr solve --help` alone"],
    "help solve train": ["unexpected word 'train'"],
    "serve docs": ["docs: holds no config.json; expected a Hugging Face folder"],
    "serve docs --host=0.0.0.0": ["--host=0.0.0.0 can be reached from other machines; give --token=SECRET"],
    "serve docs --port=99999": ["--port=99999: choose one from 1 to 65535"],
    "convert to-hf docs y": ["docs: holds no config.json; expected a Hugging Face folder"],
    "convert to-peft docs y": ["docs: holds no config.json; expected a Hugging Face folder"],
    "convert from-hf docs y": ["docs: holds no config.json; expected a Hugging Face folder"],
    "convert to-hf runs/quickstart docs": ["docs: exists and is not empty"],
    "push docs me/x": ["docs: holds no model in Hugging Face files; write one: vilasr convert to-hf RUN DST"],
    "push runs/quickstart me/x": ["holds no model", "vilasr convert to-hf runs/quickstart DST"],
    "push export me/x": ["export: has no README.md, the model card", "vilasr convert to-hf RUN DST"],
    "push dosc me/x": ["dosc: holds no model in Hugging Face files; did you mean docs?"],
    "data check photso --config=pictures_tiny": ["photso: no such file or folder; did you mean photos?"],
    "data check photos --config=pictures_tiny": ["photos: holds no file of format pictures"],
    "data import foo a b": ["no format 'foo'; there are: cold_start", "pictures"],
    "data import picture photos b": ["no format 'picture'; did you mean pictures?"],
    "data import rl photso b": ["photso: no such file or folder; did you mean photos?"],
    "report docs": ["docs isn't a folder of a run: no run has begun in it"],
    "watch docs": ["docs isn't a folder of a run: no run has begun in it"],
    "report runs/quickstrat": ["there is no such folder; did you mean runs/quickstart?"],
}
SCRIPT = """
import contextlib, io, json, sys
from vilasr_jax import cli
found = {}
for line in json.load(sys.stdin):
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            cli.main(["vilasr", *line.split()])
        except SystemExit as stop:
            code = stop.code
    found[line] = [code, out.getvalue(), "jax" in sys.modules]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A user's folder: a picture, notes, a begun run, an export without a card, an empty folder."""
    home = tmp_path_factory.mktemp("place")
    for name in ("docs", "photos", "runs/quickstart", "export"):
        (home / name).mkdir(parents=True)
    (home / "docs" / "page.md").write_text("words")
    (home / "notes.txt").write_text("words")
    Image.new("RGB", (56, 56)).save(home / "maze.png")
    (home / "runs" / "quickstart" / "config.json").write_text(json.dumps(to_dict(JobConfig(seed=7))))
    (home / "export" / "config.json").write_text('{"model_type": "qwen2_5_vl"}')
    (home / "export" / "model.safetensors").write_bytes(b"")
    return home


@pytest.fixture(scope="module")
def answers(place):
    """What one process says to all command lines, in order: the first that imports JAX spoils the rest."""
    before = sorted(place.rglob("*"))
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = dict(cwd=place, env=env, capture_output=True, text=True, timeout=300)
    done = subprocess.run([sys.executable, "-c", SCRIPT], input=json.dumps(list(MISTAKES)), **words)
    assert done.returncode == 0, done.stderr
    assert sorted(place.rglob("*")) == before
    return json.loads(done.stdout)


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_one_line_before_jax_is_imported(answers, line):
    code, said, jax = answers[line]
    assert code == 2 and not jax, said
    assert said.startswith("vilasr: ") and said.count("\n") == 1 and "Traceback" not in said, said
    for part in MISTAKES[line]:
        assert part in said, said


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("runs/quickstrat", "; did you mean runs/quickstart?"),
        ("rusn/quickstrat/config.json", "; did you mean runs/quickstart/config.json?"),
        ("../place0/dosc", "; did you mean ../place0/docs?"),
        ("docs", ""),
        ("elsewhere", ""),
        ("notes.txt/inside", ""),
        ("gs://docs/dosc", ""),
        ("x" * 5000, ""),
    ],
)
def test_a_mistyped_path_has_a_near_one(place, monkeypatch, path, near):
    monkeypatch.chdir(place)
    assert near_path(path.replace("place0", place.name)) == near.replace("place0", place.name)
