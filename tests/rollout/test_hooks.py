"""Streaming a conversation while it is written; answering requests as they come."""

import dataclasses
import queue
import threading

import jax
import numpy as np

from tests import tiny


class Listener:
    """Notes the calls of its hooks."""

    def __init__(self):
        self.pieces: dict[int, list[list[str]]] = {}
        self.turns: dict[int, list[tuple]] = {}
        self.ends: dict[int, object] = {}

    def tokens(self, sample, text):
        assert text and threading.current_thread() is threading.main_thread()
        turns = self.pieces.setdefault(sample, [[]])
        turns[-1].append(text)

    def turn(self, sample, turn, images):
        self.turns.setdefault(sample, []).append((turn, images))
        self.pieces.setdefault(sample, [[]]).append([])

    def end(self, sample, trajectory):
        self.ends[sample] = trajectory

    def hook(self, request):
        return dataclasses.replace(request, on_tokens=self.tokens, on_turn=self.turn, on_end=self.end)


def test_pieces_join_to_the_turns():
    plain = tiny.generate(tiny.engine(), tiny.requests(3, samples=4))
    listeners = [Listener() for _ in range(3)]
    questions = [
        each.hook(request) for each, request in zip(listeners, tiny.requests(3, samples=4), strict=True)
    ]
    trajectories = tiny.generate(tiny.engine(), questions)
    many = 0
    for number, t in enumerate(trajectories):
        np.testing.assert_array_equal(t.tokens, plain[number].tokens)
        heard, sample = listeners[number // 4], number % 4
        assert ["".join(pieces) for pieces in heard.pieces[sample][:-1]] == t.texts
        assert [turn for turn, _ in heard.turns[sample]] == t.turns
        drawn = [image for _, images in heard.turns[sample] for image in images]
        assert [id(image) for image in drawn] == [id(image) for image in t.images[1:]]
        assert heard.ends[sample] is t
        many += sum(len(pieces) > 1 for pieces in heard.pieces[sample])
    assert many > 3  # some turns came in several pieces


def test_a_hook_that_raises_cancels_its_conversation():
    def gone(*_):
        raise ConnectionError("the client is gone")

    plain = tiny.generate(tiny.engine(), tiny.requests(6))
    for hook in ("on_tokens", "on_turn"):
        questions = tiny.requests(6)
        questions[2] = dataclasses.replace(questions[2], **{hook: gone})
        trajectories = tiny.generate(tiny.engine(), questions)
        assert trajectories[2].stop_reason == "cancelled"
        for a, b in zip(plain[:2] + plain[3:], trajectories[:2] + trajectories[3:], strict=True):
            np.testing.assert_array_equal(a.tokens, b.tokens)


def test_a_limit_of_the_request():
    for most in (1, 5, 11):
        questions = [dataclasses.replace(request, max_new_tokens=most) for request in tiny.requests(8)]
        counts = [int(t.loss_mask.sum()) for t in tiny.generate(tiny.engine(), questions)]
        assert max(counts) == most


def test_requests_as_they_come():
    """A server's thread: requests put in while others are being answered; the same tokens as in one batch."""
    runner, inbox, ended = tiny.engine(), queue.Queue(), queue.Queue()
    params = tiny.place(tiny.params(), runner.steps.mesh)
    plain = {t.id: t for t in tiny.generate(runner, tiny.requests(9))}
    thread = threading.Thread(target=runner.serve, args=(params, inbox, jax.random.key(0)))
    thread.start()
    questions = [dataclasses.replace(r, on_end=lambda _, t: ended.put(t)) for r in tiny.requests(9)]
    for request in questions[:1]:
        inbox.put(request)
    first = ended.get(timeout=60)
    for request in questions[1:]:
        runner.check(request)
        inbox.put(request)
    rest = [ended.get(timeout=60) for _ in questions[1:]]
    inbox.put(None)
    thread.join(60)
    assert not thread.is_alive()
    for t in [first, *rest]:
        np.testing.assert_array_equal(t.tokens, plain[t.id].tokens)
