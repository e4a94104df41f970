"""The documents' commands, run for real on a model of four training steps (`pytest -m slow tests/docs`)."""

import json
import os
import re
import subprocess
import sys
import time
import urllib.request

import pytest

from tests.docs.readme import ROOT, modules

pytestmark = pytest.mark.slow
SHORT = [
    "--config.stages=('cold_start', 'eval', 'export', 'report')",
    "--config.cold_start.perception_steps=0",
    "--config.cold_start.steps=4",
    "--config.cold_start.validate_every=0",
    "--config.eval.rows=8",
]


def start(*words, cwd=ROOT, **more):
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "no_proxy": "*"}
    command = [sys.executable, "-m", "vilasr_jax.cli", *map(str, words)]
    return subprocess.Popen(command, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, **more)


def vilasr(*words, **more):
    process = start(*words, stderr=subprocess.STDOUT, **more)
    out = process.communicate(timeout=1200)[0]
    assert process.returncode == 0, out
    return out


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "quickstart"
    out = vilasr("train", "--config=configs/maze_small.py", f"--workdir={folder}", *SHORT)
    assert "Everything is in" in out
    return folder


def test_report_solve_and_convert(workdir, tmp_path):
    assert str(workdir / "report.html") in vilasr("report", workdir)
    picture = next((workdir / "eval" / "cold_start" / "images").glob("*_1.png"))
    out = vilasr(
        "solve",
        picture,
        "--options=A,B,C,D",
        "--checkpoint",
        workdir,
        "--question",
        "Where?",
        "--out",
        tmp_path / "solved",
    )
    assert "--- turn 1" in out and "===" in out
    vilasr("convert", "from-hf", workdir / "hf", tmp_path / "orbax")
    vilasr("convert", "to-hf", tmp_path / "orbax", tmp_path / "hf")
    assert (tmp_path / "hf" / "config.json").exists()


def test_serve_and_the_client_that_the_documents_show(workdir, tmp_path):
    server = start("serve", workdir, "--port=0", "--slots=2")
    try:
        where = next(found for line in server.stdout if (found := re.search(r"http://[\d.:]+", line))).group()
        health = urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{where}/health")
        assert json.load(health)["status"] == "ok"
        picture = next((workdir / "eval" / "cold_start" / "images").glob("*_1.png"))
        (tmp_path / "maze.png").write_bytes(picture.read_bytes())
        script = modules()["ask_server"].replace("http://127.0.0.1:8000", where)
        (tmp_path / "ask_server.py").write_text(script)
        done = subprocess.run(
            [sys.executable, "ask_server.py"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=600,
            env={**os.environ, "no_proxy": "*"},
        )
        assert done.returncode == 0 and done.stdout, done.stderr
        here = modules()["ask_here"].replace("runs/quickstart", str(workdir))
        (tmp_path / "ask_here.py").write_text(here)
        env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
        subprocess.run([sys.executable, "ask_here.py"], cwd=tmp_path, check=True, timeout=600, env=env)
        assert (tmp_path / "conversation.png").exists()
    finally:
        server.terminate()
        began = time.monotonic()
        server.wait(60)
        assert time.monotonic() - began < 60
