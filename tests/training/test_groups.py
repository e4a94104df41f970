"""Which conversations make a step: refilled groups, overlong ones, recovery; on any number of hosts."""

import dataclasses
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from tests import tiny
from vilasr_jax.checks import check_rewards
from vilasr_jax.config import JobConfig, RLSection, SamplingSection, from_config_dict, to_config_dict
from vilasr_jax.errors import ConfigError
from vilasr_jax.rollout import Request, Trajectory
from vilasr_jax.training import groups
from vilasr_jax.training.groups import collect
from vilasr_jax.training.run import open_run

SECTION = RLSection(prompts=4, group=3, sampling=SamplingSection(max_tokens=20))


def trajectory(name: str, reward: float, tokens: int = 10, stop: str = "answer") -> Trajectory:
    mask = np.arange(tokens) >= 4
    turns = [{"text": "a", "calls": [], "error": None, "drawn": [2], "corrected": 0}] * 2
    return Trajectory(
        name,
        np.arange(tokens, dtype=np.int32),
        mask,
        np.zeros(tokens, np.float32),
        [],
        turns,
        stop,
        1,
        1,
        {"id": name, "source": ["maze", int(name.split("/")[0])]},
        {"accuracy": float(reward > 0), "format": 1.0, "total": reward},
    )


def fake_run(section, answer, host=(0, 1)):
    """A run whose questions are numbers, answered with what `answer(row, sample)` says."""

    def requests(rows, *, samples=1, seed=0):
        return [Request({"id": row}, lambda: None, seed + i * samples, samples) for i, row in enumerate(rows)]

    def sample(sampling, params, requests, key, progress=None):
        run.sampled.extend(request.row["id"] for request in requests)
        return [answer(r.row["id"], k) for r in requests for k in range(r.samples)]

    run = SimpleNamespace(
        job=JobConfig(rl=section, seed=3),
        sampled=[],
        questions=SimpleNamespace(
            rows=lambda stage, count, first=0: list(range(first, first + count)),
            row=lambda stage, source: source[1],
            requests=requests,
        ),
        batching=SimpleNamespace(host=host),
        rollouts=SimpleNamespace(key=lambda purpose, step=0: None, sample_here=sample),
        reward=lambda trajectory: trajectory.reward,
    )
    return run


def answer(row: int, k: int) -> Trajectory:
    """Every other question's samples differ."""
    return trajectory(f"{row}/{k}", float(k == 1) if row % 2 else 0.5)


def test_groups_of_equal_rewards_stay_unless_refilled():
    run = fake_run(SECTION, answer)
    samples = collect(run, None, 1)
    assert run.sampled == [0, 1, 2, 3] and len(samples.rewards) == 12
    assert not samples.advantages.reshape(4, 3)[::2].any() and samples.advantages.reshape(4, 3)[1::2].all()
    assert samples.metrics["equal_groups"] == (2.0, 4.0)

    run = fake_run(dataclasses.replace(SECTION, refill=3), answer)
    samples = collect(run, None, 2)
    assert run.sampled == list(range(16, 24))  # two rounds give four groups: no third
    assert len(samples.rewards) == 12 and samples.advantages.all()
    assert [samples.trajectories[i].row["id"].split("/")[0] for i in (0, 3, 6, 9)] == ["17", "19", "21", "23"]
    assert samples.metrics["equal_groups"] == (4.0, 8.0)


def test_refilling_has_a_limit():
    run = fake_run(dataclasses.replace(SECTION, refill=2), lambda row, k: trajectory("0/0", 1.0))
    samples = collect(run, None, 1)
    assert len(run.sampled) == 12 and len(samples.rewards) == 0 and not samples.trajectories


def test_overlong_conversations_are_masked_or_pay():
    def cut(row, k):
        return trajectory(
            f"{row}/{k}", float(k), tokens=[12, 17, 20][k], stop=["answer", "answer", "token_limit"][k]
        )

    assert collect(fake_run(SECTION, cut), None, 1).counted.all()
    masked = collect(fake_run(dataclasses.replace(SECTION, overlong="mask"), cut), None, 1)
    assert masked.counted.reshape(4, 3).tolist() == [[True, True, False]] * 4
    assert masked.metrics["cut_off"] == (4.0, 12.0)
    soft = dataclasses.replace(SECTION, overlong_buffer=6, overlong_penalty=0.5)
    paid = collect(fake_run(soft, cut), None, 1).rewards.reshape(4, 3)
    np.testing.assert_allclose(paid, [[0, 1 - 0.25, 2 - 0.5]] * 4)


def test_several_hosts_equal_one_host(monkeypatch):
    """Each samples its own questions; all know of all."""
    section = dataclasses.replace(SECTION, refill=3, recovery=0.5)
    one = collect(fake_run(section, answer), None, 1)
    board, meeting, me = {}, threading.Barrier(2, timeout=20), threading.local()

    def gather(value):
        board[me.number] = json.loads(json.dumps(value, default=float))
        meeting.wait()
        everyones = [board[0], board[1]]
        meeting.wait()
        return everyones

    def host(number):
        me.number = number
        return collect(fake_run(section, answer, host=(number, 2)), None, 1)

    monkeypatch.setattr(groups, "gather", gather)
    monkeypatch.setattr(groups.interrupt, "stop_requested", lambda: False)
    with ThreadPoolExecutor(2) as pool:
        parts = list(pool.map(host, range(2)))
    for part in parts:
        np.testing.assert_array_equal(part.advantages, one.advantages)
        np.testing.assert_array_equal(part.tokens, one.tokens)
        assert part.metrics == one.metrics and part.failed == one.failed
    assert parts[0].trajectories.keys() | parts[1].trajectories.keys() == one.trajectories.keys()
    assert not parts[0].trajectories.keys() & parts[1].trajectories.keys()


def test_some_questions_begin_with_failed_turns(monkeypatch):
    section = dataclasses.replace(SECTION, recovery=0.5)
    samples = collect(fake_run(section, lambda row, k: trajectory(f"{row}/{k}", 0.0)), None, 1)
    assert [(p.source, p.texts) for p in samples.failed] == [(("maze", i), ("a",)) for i in range(4)]
    run, begun = fake_run(section, answer), []
    monkeypatch.setattr(groups, "resumed", lambda request, prefix: begun.append(prefix) or request)
    collect(run, None, 2, samples.failed)
    assert run.sampled == [0, 3, 6, 7] and begun == [samples.failed[0], samples.failed[3]]  # by chance
    assert collect(fake_run(SECTION, answer), None, 1).failed == []


def test_a_stop_in_the_middle_keeps_nothing(monkeypatch):
    run = fake_run(SECTION, answer)
    monkeypatch.setattr(groups.interrupt, "stop_requested", lambda: True)
    with pytest.raises(groups.Stopped):
        collect(run, None, 1)


def test_rewards_are_composed_in_the_config(tmp_path):
    said = "<think>so</think> Action: Answer\n<answer>B</answer>"

    def total(rewards, drawn, accuracy_text=said, **options):
        section = dataclasses.replace(SECTION, rewards=rewards, **options)
        run = open_run(JobConfig(rl=section), tmp_path, tiny.mesh())
        event = {"text": accuracy_text, "calls": [], "error": None, "drawn": drawn, "corrected": 0}
        row = {"id": "r", "answer": "B", "question_type": "multiple choice", "options": [], "meta": {}}
        return run.reward(dataclasses.replace(trajectory("0", 0), turns=[event], row=row))["total"]

    published = RLSection().rewards
    assert total(published, []) == total(published, [2]) == 1.0  # drawing pays nothing by default
    bonus = {"accuracy": 0.5, "format": 0.25, "drew": 0.25}
    assert (total(bonus, [2]), total(bonus, [])) == (1.0, 0.75)
    assert total(bonus, [2], said.replace("B", "C")) == 0.0  # and never without a right answer
    assert (total(published, [], must_draw=True), total(published, [2], must_draw=True)) == (0.0, 1.0)
    assert from_config_dict(to_config_dict(JobConfig(rl=RLSection(rewards=bonus)))).rl.rewards == bonus
    with pytest.raises(ConfigError, match="no reward named 'beauty'"):
        check_rewards(RLSection(rewards={"beauty": 1.0}))
