"""Validation, and stop requests that come while a model is validated."""

import dataclasses
import json
import os
import signal

import jax
import pytest

from tests import tiny
from tests.training import samples
from tests.training.test_resume import ADAM, JOB, bits, compiled_once, listening, metrics, quiet, scripted_run  # noqa: F401
from vilasr_jax import cli, ctrl_c, errors
from vilasr_jax.parallel import hosts
from vilasr_jax.tasks.pipeline import batches
from vilasr_jax.tasks.sources import MappedSource
from vilasr_jax.training import grpo, interrupt
from vilasr_jax.training.sft import train_sft
from vilasr_jax.training.stage import Stage
from vilasr_jax.training.validation import SCORE, Validation


class Scores:
    """Figures of the weights; the `stop_at`-th call is stopped as sampling is."""

    def __init__(self, stop_at=0, number=signal.SIGTERM):
        self.calls, self.stop_at, self.number = 0, stop_at, number

    def __call__(self, params):
        self.calls += 1
        if self.calls == self.stop_at:
            os.kill(os.getpid(), self.number)
        if interrupt.stop_requested_here():
            raise errors.Stopped("stopped while conversations were sampled")
        return {SCORE: float(sum(abs(leaf).sum() for leaf in jax.tree.leaves(params)))}


def run_sft(folder, scores, save_every=4):
    data = batches([MappedSource(range(23), samples.example)], [1], seed=3, batch=4, buckets=samples.BUCKETS)
    stage = Stage(folder, 6, save_every, "test")
    try:
        validation = Validation(stage, 2, scores)
        return train_sft(scripted_run(JOB, folder), stage, tiny.params(), data, ADAM, quiet(), validation)
    finally:
        stage.close()


@pytest.mark.parametrize("number, save_every", [(signal.SIGTERM, 4), (signal.SIGINT, 2)])
def test_sft_stopped_in_validation_loses_nothing(tmp_path, number, save_every):
    full = run_sft(tmp_path / "full", Scores(), save_every)
    with pytest.raises(errors.Stopped, match="after step 2 of 6"):
        run_sft(tmp_path / "stopped", Scores(1, number), save_every)
    stopped = Stage(tmp_path / "stopped", 6, save_every, "")
    assert stopped.store.latest_step() == 2 and SCORE not in stopped.logged(2)
    with pytest.raises(errors.Stopped):  # again, while the missing scores are computed
        run_sft(tmp_path / "stopped", Scores(1), save_every)
    interrupt.listen()
    assert bits(run_sft(tmp_path / "stopped", Scores(), save_every)) == bits(full)
    assert metrics(tmp_path / "stopped") == metrics(tmp_path / "full")
    best = Stage(tmp_path / "full", 6, save_every, "").step(best=True)
    assert stopped.step(best=True) == best and stopped.store.best_step() == best


def test_a_stop_in_the_last_validation_waits_for_it(tmp_path):
    run_sft(tmp_path, Scores(3))
    assert Stage(tmp_path, 6, 4, "").done and SCORE in metrics(tmp_path)[-1]
    assert interrupt.stop_requested_here()  # for what comes next


def test_hosts_agree_whether_a_step_is_validated(tmp_path, monkeypatch):
    """A host that reads the metrics before the writer cuts them off after the saved step asks the writer."""
    logged = [json.dumps({"step": step, **({SCORE: 0.5} if step == 50 else {})}) for step in range(1, 58)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(logged) + "\n")
    monkeypatch.setattr(hosts, "is_writer", lambda: False)
    for writers, validated in (({"step": 50, SCORE: 0.5}, 0), ({"step": 50}, 1)):
        monkeypatch.setattr(hosts, "gather", lambda own, writers=writers: [[writers, None], own])
        scores = Scores()
        Validation(Stage(tmp_path, 100, 50, ""), 50, scores).catch_up(50, tiny.params(), lambda *_, **__: 0)
        assert scores.calls == validated


def test_rl_stopped_in_validation_loses_nothing(tmp_path, monkeypatch):
    job = dataclasses.replace(JOB, rl=dataclasses.replace(JOB.rl, steps=2, save_every=0, validate_every=1))

    engines = {}  # compiled once

    def run(folder, scores):
        monkeypatch.setattr(grpo, "validate", lambda run, params: scores(params))
        scripted = scripted_run(job, folder)
        scripted.rollouts.engines = engines
        return grpo.run_rl(scripted, tiny.params(), quiet())

    full = run(tmp_path / "full", Scores())
    with pytest.raises(errors.Stopped, match="after step 1 of 2"):
        run(tmp_path / "stopped", Scores(1))
    interrupt.listen()
    assert bits(run(tmp_path / "stopped", Scores())) == bits(full)
    assert metrics(tmp_path / "stopped" / "rl") == metrics(tmp_path / "full" / "rl")


def test_the_second_interrupt_ends_at_once(monkeypatch):
    monkeypatch.setattr(ctrl_c, "SAME_SECONDS", 600)
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)  # passed on by a parent: the same one
    assert interrupt.stop_requested_here()
    monkeypatch.setattr(ctrl_c, "SAME_SECONDS", 0)
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)


def test_commands_end_with_a_line_at_an_interrupt(monkeypatch, capsys):
    def interrupted(argv):
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.main(["vilasr", "data"])
    assert ended.value.code == 130 and capsys.readouterr().err == "vilasr: stopped by Ctrl-C\n"
