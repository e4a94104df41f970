"""Progress of long work as lines of text, where the output is a pipe or a file."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from vilasr_jax import progress
from vilasr_jax.progress import progress_bar, show_progress

ROOT = Path(__file__).parent.parent


def test_a_line_says_stage_step_rate_and_time_left(capsys, monkeypatch):
    monkeypatch.setattr(progress, "SECONDS", 0.01)
    monkeypatch.setattr(progress, "_TICK", 0.001)
    with progress_bar() as bars:
        bar = bars.add_task("cold start", total=400, completed=20, note="compiling")
        for step in (21, 22, 23, 24):
            time.sleep(0.05)
            bars.update(bar, completed=step, note=f"loss 0.{step}")
        time.sleep(0.05)
    first, *rest = capsys.readouterr().out.splitlines()
    assert first.startswith("cold start: 20 of 400 (5 %), elapsed 0:00:00") and first.endswith("compiling")
    pattern = r"cold start: 24 of 400 \(6 %\), [\d.]+/s, elapsed 0:00:00, left 0:00:\d\d, loss 0\.24"
    assert re.fullmatch(pattern, rest[-1]), rest


def test_lines_are_seldom_but_the_ends_are_there(capsys):
    with show_progress("weights") as show:
        for done in range(1001):
            show(done, 1000)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" (")[0] for line in lines] == ["weights: 0 of 1,000", "weights: 1,000 of 1,000"]


@pytest.fixture
def clock(monkeypatch):
    """A clock that tests set, and how to wait until a line was printed at that time."""
    monkeypatch.setattr(progress, "_TICK", 0.001)
    return Clock()


class Clock:
    now = 0.0

    def bars(self):
        return progress.ProgressLines(disable=True, get_time=lambda: self.now)

    def at(self, now, capsys, lines):
        """The lines that are printed at a time, whose number must be `lines`."""
        self.now, out = now, ""
        end = time.monotonic() + (60 if lines else 0.1)
        while time.monotonic() < end and out.count("\n") < max(lines, 1):
            time.sleep(0.01)
            out += capsys.readouterr().out
        assert out.count("\n") == lines, out
        return out


def test_a_compilation_has_a_line_every_ten_seconds_at_first(clock, capsys):
    with clock.bars() as bars:
        bar = bars.add_task("cold start", total=30, note="compiling")
        capsys.readouterr()
        for now in (10, 20, 30):
            clock.at(now - 1, capsys, 0)
            line = clock.at(now, capsys, 1)
            assert line == f"cold start: 0 of 30 (0 %), elapsed 0:00:{now}, compiling\n"
        clock.at(605, capsys, 1)
        clock.at(634, capsys, 0)
        assert clock.at(635, capsys, 1) == "cold start: 0 of 30 (0 %), elapsed 0:10:35, compiling\n"
        clock.now = 700
        bars.update(bar, completed=30, note="loss 0.1")


def test_the_time_left_of_a_step_that_is_late_grows(clock, capsys):
    """Two shapes compile in 2 seconds each, the third for minutes."""
    with clock.bars() as bars:
        bar = bars.add_task("shapes", total=7, note="")
        for now in (2, 4):
            clock.now = now
            bars.update(bar, completed=now // 2)
        task = bars.tasks[0]

        def said(now):
            clock.now = now
            return progress.progress_line(task).partition(" %), ")[2]

        assert said(4) == "2 s each, elapsed 0:00:04, left 0:00:10"
        assert said(7) == "2 s each, elapsed 0:00:07, left 0:00:08"
        assert said(60) == "30 s each, elapsed 0:01:00, left 0:02:00"
        assert said(374) == "187 s each, elapsed 0:06:14, left 0:12:28"


def test_slow_steps_of_a_resumed_run_have_a_rate(clock, capsys):
    """A step lasts longer than the window of a rate."""
    with clock.bars() as bars:
        bar = bars.add_task("rl", total=100, completed=40, note="")
        for step in (41, 42, 43):
            clock.now += 400
            bars.update(bar, completed=step)
        line = progress.progress_line(bars.tasks[0])
        assert line == "rl: 43 of 100 (43 %), 400 s each, elapsed 0:20:00, left 6:20:00"


def test_a_terminal_shows_the_same_time_left(clock):
    bars = progress_bar(shown=False)
    bars.get_time = lambda: clock.now
    bar = bars.add_task("shapes", total=4, note="")
    for now in (10, 20, 65):
        clock.now = now
        bars.update(bar, completed=min(now // 10, 2))
    assert "left 0:00:32" in str(bars.columns[4].render(bars.tasks[0]))


def test_only_one_host_displays_progress(capsys):
    with progress_bar(shown=False) as bars:
        bars.update(bars.add_task("x", total=1, note=""), completed=1)
    assert capsys.readouterr().out == ""


def test_what_never_began_displays_nothing(capsys):
    with pytest.raises(ValueError), show_progress("weights"):
        raise ValueError
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_a_run_in_a_pipe_is_stopped_and_resumed(tmp_path):
    """Ctrl-C saves the step and says how to resume; the second run says where it resumes."""
    words = ["--config=maze_tiny", f"--workdir={tmp_path / 'run'}", "--config.stages=('cold_start',)"]
    words += ["--config.cold_start.perception_steps=0", "--config.cold_start.validate_every=0"]
    command = [sys.executable, "-m", "vilasr_jax.cli", "train", *words, "--config.cold_start.steps=24"]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}

    def run(stop):
        out = []
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        with subprocess.Popen(command, cwd=ROOT, env=env, **pipes) as process:
            for line in process.stdout:
                out.append(line)
                if stop and line.endswith("compiling\n"):
                    process.send_signal(signal.SIGINT)
                    stop = False
        return process.returncode, "".join(out)

    code, out = run(stop=True)
    assert code == 143, out
    assert re.search(r"cold start: drawing: 0 of 24 \(0 %\), elapsed 0:00:00, compiling\n", out)
    stopped = re.search(r"stopped after step (\d+) of 24, and saved; the same command resumes it", out)
    assert stopped and 0 < int(stopped[1]) < 24, out
    code, out = run(stop=False)
    assert code == 0, out
    assert f"resuming from step {stopped[1]} of 24" in out
    assert re.search(r": 24 of 24 \(100 %\), .*loss \d", out)
