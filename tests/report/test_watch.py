"""`vilasr watch`: the report of a running job, written again when its folder changes."""

import json
import shutil

import pytest

from tests.browser import tab
from tests.report.conftest import write_workdir
from vilasr_jax.report import read_run, watch
from vilasr_jax.report.workdir import NEWEST, stage_label


@pytest.fixture
def running(tmp_path):
    """A job in its RL: no evaluation yet, conversations of eight of its steps."""
    run = write_workdir(tmp_path / "run")
    for step in range(10, 90, 10):
        folder = run / "rl" / "samples" / f"step_{step}"
        shutil.copytree(run / "eval" / "rl", folder)
        (folder / "results.jsonl").write_text(
            "".join(
                json.dumps({**json.loads(line), "id": f"{step}/{number}"}) + "\n"
                for number, line in enumerate((folder / "results.jsonl").read_text().splitlines()[:2])
            )
        )
    shutil.rmtree(run / "eval")
    (run / "summary.json").unlink()
    return run


class Enough(Exception):
    pass


def rounds(*acts):
    """A `wait` that does something in each round, and ends the last one."""
    left = list(acts)

    def wait(seconds):
        if not left:
            raise Enough
        left.pop(0)()

    return wait


def test_the_newest_conversations_are_read(running):
    stages = {row["stage"] for row in read_run(running).conversations}
    assert stages == {f"rl@{step}" for step in range(30, 90, 10)} and len(stages) == NEWEST
    assert stage_label("rl@80") == "Reinforcement learning: training, step 80"


def test_the_page_is_written_when_something_changed(running, capsys):
    def step():
        with (running / "rl" / "metrics.jsonl").open("a") as file:
            file.write(json.dumps({"step": 99, "reward": 0.5}) + '\n{"step": 10')

    with pytest.raises(Enough):
        watch(running, 7, rounds(lambda: None, step, lambda: None))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 and lines[1].endswith("watch.html: reinforcement learning, step 99")
    page = (running / "watch.html").read_text()
    assert '"live":7' in page and page.index('"stage":"rl@80"') < page.index('"stage":"rl@30"')
    assert not (running / "report.html").exists()


def test_the_page_loads_itself_again(running, browser):
    with pytest.raises(Enough):
        watch(running, 1, rounds())
    with tab(browser) as (page, faults):
        page.goto((running / "watch.html").as_uri() + "#conversation=80%2F1&of=rl%4080")
        assert page.get_by_label("Stage").input_value() == "rl@80"
        assert "again every 1 seconds" in page.locator("#live").inner_text()
        assert page.locator(".status [aria-live]").inner_text() == "2 of 2 conversations"
        watched = running / "watch.html"
        watched.write_text(watched.read_text().replace("</h1>", " now</h1>"))
        page.locator("h1", has_text=" now").wait_for()
        assert page.locator(".status [aria-live]").inner_text() == "2 of 2 conversations"
        assert not faults
