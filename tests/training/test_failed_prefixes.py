"""Recovery training begins in the middle of failed conversations, and masks what is replayed."""

import dataclasses
import random

import numpy as np
import pytest

from tests import tiny
from vilasr_jax.config import DrawingSection, JobConfig, RLSection
from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.errors import DataError
from vilasr_jax.rollout import Request, Trajectory, make_prompt
from vilasr_jax.rollout.conversation import Conversation
from vilasr_jax.tasks.maze import MazeSpec, expert_trace, make_maze_row
from vilasr_jax.training.failed_prefixes import (
    FailedPrefix,
    ResumedSession,
    failed_prefix,
    read_pool,
    resumed,
)
from vilasr_jax.training.groups import collect
from vilasr_jax.training.run import Run, open_run


@pytest.fixture(scope="module")
def maze():
    settings = DrawingSettings(style="maze", prompt="short", max_turns=8, max_images=9)
    row = make_maze_row(MazeSpec(grid=3, cell=28, moves=(3, 3), wall_density=0.1, split="rl"), 4)
    trace = expert_trace(row, random.Random(0), labels="line")
    return row, settings, trace.turns


def test_a_replayed_conversation_goes_on_as_the_first_one_did(maze):
    row, settings, turns = maze
    full = row.session(settings)
    replies = [full.step(text) for text in turns]
    request = Request({"id": row.id}, lambda: row.session(settings), 7, 2)
    again = resumed(request, FailedPrefix(("maze", 4), turns[:2])).session()
    assert [m["role"] for m in again.messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert again.messages[-1] == replies[1].message and len(again.events) == 2
    for text, reply in zip(turns[2:], replies[2:], strict=True):
        assert again.step(text) == reply
    assert again.stop_reason == "answer" and again.events == full.events
    prompt = make_prompt(tiny.tokenizer(), resumed(request, FailedPrefix(("maze", 4), turns[:2])).session())
    first = make_prompt(tiny.tokenizer(), row.session(settings))
    assert len(prompt.encoded.images) == 3 and len(prompt.encoded.ids) > len(first.encoded.ids)
    assert isinstance(again, ResumedSession)


def test_which_beginnings_are_replayed(maze):
    row, settings, turns = maze
    session = row.session(settings)
    for text in turns:
        session.step(text)
    none = np.zeros(0, np.float32)
    record, reward = {"source": ["maze", 4]}, {"accuracy": 0.0}
    wrong = Trajectory("", none, none, none, [], session.events, "answer", 1, 1, record, reward)
    rng = np.random.default_rng(0)
    found = {len(failed_prefix(wrong, rng).texts) for _ in range(40)}
    assert found == set(range(1, len(turns)))
    assert FailedPrefix.from_json(failed_prefix(wrong, rng).to_json()).source == ("maze", 4)
    assert failed_prefix(dataclasses.replace(wrong, reward={"accuracy": 1.0}), rng) is None
    spoilt = [{**session.events[0], "error": "item 1: no box"}, *session.events[1:]]
    assert failed_prefix(dataclasses.replace(wrong, turns=spoilt), rng) is None


def test_a_resumed_conversation_knows_what_was_replayed(maze):
    row, settings, turns = maze
    request = Request({"id": row.id}, lambda: row.session(settings), 7)
    request = resumed(request, FailedPrefix(("maze", 4), turns[:2]))
    session = request.session()
    resumed_one = Conversation((0, 0), request, session, make_prompt(tiny.tokenizer(), session), 4000)
    resumed_one.said.append({"text": "lost", "truncated": False})
    resumed_one.fail(RuntimeError("gone"))
    done = resumed_one.finish()
    assert (done.base_images, done.images_read, len(done.images)) == (1, 3, 3)
    assert done.texts == [*turns[:2], "lost"]  # the turn that failed is there, after those replayed


def two_families(tmp_path) -> Run:
    section = RLSection(prompts=4, group=2, recovery=0.5)
    job = JobConfig(tasks=("maze", "static"), rl=section, drawing=DrawingSection(prompt="short"))
    run = open_run(job, tmp_path, tiny.mesh())
    run.reward = lambda trajectory: {"accuracy": 0.0, "format": 1.0, "total": 0.0}
    return run


def test_turns_are_replayed_on_the_question_they_were_about(tmp_path):
    """Over several steps, with two families, with questions of earlier steps among them."""
    run, begun = two_families(tmp_path), []

    def sample(sampling, params, requests, key, progress=None):
        found = []
        for request in requests:
            session = request.session()
            name = request.row["id"]
            begun.append((name, [event["text"] for event in session.events]))
            at = 3 * len(session.events) + 2
            session.step(
                f'<think> {name} </think> Action: Path Tracer\n```json\n[{{"index": 1, '
                f'"start_point_2d": [{at}, {at}], "end_point_2d": [30, 40], "label": "1"}}]\n```'
            )
            session.step("<think> done </think> Action: Answer\n<answer> Z </answer>")
            none = np.zeros(0, np.float32)
            found += [
                Trajectory(name, none, none, none, [], session.events, "answer", 1, 1, request.row)
                for _ in range(request.samples)
            ]
        return found

    run.rollouts.sample_here = sample
    pool, replayed = [], []
    for step in range(1, 6):
        begun.clear()
        pool = read_pool([prefix.to_json() for prefix in collect(run, None, step, pool).failed])
        replayed += [(name, texts) for name, texts in begun if texts]
        assert len({name for name, _ in begun}) == 4
    assert len(replayed) == 8
    assert {name.split("-")[0] for name, _ in replayed} == {"maze", "static"}
    for name, texts in replayed:
        assert all(f"<think> {name} </think>" in text for text in texts)


def test_every_question_is_found_again_by_its_source(tmp_path):
    run = two_families(tmp_path)
    for stage in ("rl", "reflect", "synthesis"):
        for row in run.questions.rows(stage, 5, first=3):
            again = run.questions.row(stage, row.source)
            assert again == row and again.id == row.id and again.source == row.source
    with pytest.raises(DataError, match="no question comes from 'video'"):
        run.questions.row("rl", ("video", 3))


def test_a_pool_of_an_earlier_version_is_left_out():
    new = FailedPrefix(("static", 7), ("a", "b"))
    assert read_pool([[8, 5, ["a"]], new.to_json()]) == [new]
