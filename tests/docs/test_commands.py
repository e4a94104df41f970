"""README's and docs/serving.md's commands and code, run as written in a folder with `runs/quickstart`.

By default that is a model of four training steps, of which no right answer is expected. VILASR_QUICKSTART=DIR
names a finished quickstart instead, whose answers are compared:

    VILASR_QUICKSTART=runs/quickstart bash launch/test.sh -m slow tests/docs
"""

import json
import os
import re
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.docs.readme import ROOT, blocks, modules, shell_lines

pytestmark = pytest.mark.slow
QUICKSTART = os.environ.get("VILASR_QUICKSTART", "")
ELSEWHERE = ("bash launch/", "vilasr serve", "vilasr push", "vilasr convert to-peft")  # in tests of their own
MAZE = "runs/quickstart/eval/rl/images/maze-test-5x5-plain-0-0_1.png"
ENV = {
    **os.environ,
    "JAX_PLATFORMS": "cpu",
    "PYTHONPATH": str(ROOT),
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "no_proxy": "*",
}
FOUR_STEPS = [
    "--config.stages=('cold_start', 'eval', 'export', 'report')",
    "--config.cold_start.perception_steps=0",
    "--config.cold_start.steps=4",
    "--config.cold_start.validate_every=0",
    "--config.eval.rows=2",
]


def bash(line, folder):
    """Runs one line of a document."""
    done = subprocess.run(
        ["bash", "-euc", line], cwd=folder, env=ENV, text=True, capture_output=True, timeout=1200
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder like a clone's in which the quickstart has run."""
    home = tmp_path_factory.mktemp("clone")
    (home / "configs").symlink_to(ROOT / "configs")
    (home / ".venv").symlink_to(sys.prefix)
    run = home / "runs" / "quickstart"
    if QUICKSTART:
        shutil.copytree(ROOT / QUICKSTART, run)
        return home
    words = ["train", "--config=maze_tiny", f"--workdir={run}", *FOUR_STEPS]
    subprocess.run([sys.executable, "-m", "vilasr_jax.cli", *words], cwd=home, env=ENV, check=True)
    (home / MAZE).parent.mkdir(parents=True)  # which the quickstart's evaluation of RL writes
    shutil.copy(next((run / "eval" / "cold_start" / "images").glob("*-0-0_1.png")), home / MAZE)
    return home


@pytest.fixture(scope="module")
def server(folder):
    """The address of `vilasr serve`, ended with Ctrl-C as README says."""
    line = next(line for line in shell_lines("README.md") if line.startswith("vilasr serve"))
    words = [sys.executable, "-m", "vilasr_jax.cli", *line.partition("#")[0].split()[1:], "--port=0"]
    process = subprocess.Popen(words, cwd=folder, env=ENV, text=True, stdout=subprocess.PIPE)
    yield next(found for line in process.stdout if (found := re.search(r"http://[\d.:]+", line))).group()
    process.send_signal(2)
    process.wait(60)


def python(name, text, folder):
    (folder / f"{name}.py").write_text(text)
    return bash(f"python {name}.py", folder)


@pytest.mark.parametrize("page", ["README.md", "docs/serving.md"])
def test_every_command_runs_as_written(page, folder):
    lines = [line for line in shell_lines(page) if not line.startswith(ELSEWHERE)]
    assert len(lines) >= 3
    for line in lines:
        out = bash(line, folder)
        if line.startswith("vilasr solve"):
            assert "--- turn 1" in out and "===" in out
            if QUICKSTART and "checkpoints" not in line:
                assert out.endswith("=== answer: C\n")
    assert (folder / "runs" / "quickstart" / "report.html").is_file()


def test_the_client_of_the_server(server, folder):
    health = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{server}/health")
    assert json.load(health)["status"] == "ok"
    out = python("ask_server", modules()["ask_server"].replace("http://127.0.0.1:8000", server), folder)
    assert re.search(r"<answer> C </answer>\s*$" if QUICKSTART else r"\S", out)
    assert not QUICKSTART or "drew picture 3" in out


def test_questions_from_python(folder):
    out = python("ask_here", modules()["ask_here"], folder)
    assert (folder / "conversation.png").exists()
    assert not QUICKSTART or re.match(r"[A-D] \[", out)


def test_the_export_in_transformers(folder):
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    text = next(text for text in blocks("python") if text.startswith("from transformers"))
    assert "Qwen2_5_VL" in python("in_transformers", f"{text}print(type(model).__name__)", folder)
