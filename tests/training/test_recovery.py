"""Recovery training begins in the middle of failed conversations, and masks what is replayed."""

import dataclasses
import random

import numpy as np
import pytest

from tests import tiny
from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.rollout import Request, Trajectory, make_prompt
from vilasr_jax.tasks.maze import MazeSpec, expert_trace, make_maze_row
from vilasr_jax.training.recovery import Prefix, ResumedSession, failed_prefix, resumed


@pytest.fixture(scope="module")
def maze():
    settings = DrawingSettings(style="maze", prompt="short", max_turns=8, max_images=9)
    row = make_maze_row(MazeSpec(grid=3, cell=28, moves=(3, 3), wall_density=0.1, split="rl"), 4)
    trace = expert_trace(row, random.Random(0), labels="line")
    return row, settings, trace.turns


def test_a_replayed_conversation_goes_on_as_the_first_one_did(maze):
    row, settings, turns = maze
    whole = row.session(settings)
    replies = [whole.step(text) for text in turns]
    request = Request({"id": row.id}, lambda: row.session(settings), 7, 2)
    again = resumed(request, Prefix(0, 3, turns[:2])).session()
    assert [m["role"] for m in again.messages] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert again.messages[-1] == replies[1].message and len(again.events) == 2
    for text, reply in zip(turns[2:], replies[2:], strict=True):
        assert again.step(text) == reply
    assert again.stop_reason == "answer" and again.events == whole.events
    prompt = make_prompt(tiny.tokenizer(), resumed(request, Prefix(0, 3, turns[:2])).session())
    first = make_prompt(tiny.tokenizer(), row.session(settings))
    assert len(prompt.encoded.images) == 3 and len(prompt.encoded.ids) > len(first.encoded.ids)
    assert isinstance(again, ResumedSession)


def test_which_beginnings_are_replayed(maze):
    row, settings, turns = maze
    session = row.session(settings)
    for text in turns:
        session.step(text)
    none = np.zeros(0, np.float32)
    wrong = Trajectory("", none, none, none, [], session.events, "answer", 1, 1, {}, {"accuracy": 0.0})
    rng = np.random.default_rng(0)
    found = {len(failed_prefix(8, 5, wrong, rng).texts) for _ in range(40)}
    assert found == set(range(1, len(turns)))
    assert Prefix.from_json(failed_prefix(8, 5, wrong, rng).to_json()).number == 5
    assert failed_prefix(8, 5, dataclasses.replace(wrong, reward={"accuracy": 1.0}), rng) is None
    spoilt = [{**session.events[0], "error": "item 1: no box"}, *session.events[1:]]
    assert failed_prefix(8, 5, dataclasses.replace(wrong, turns=spoilt), rng) is None
