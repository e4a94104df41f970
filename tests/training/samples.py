"""Small scripted conversations as training examples."""

import dataclasses
import random

import numpy as np

from tests import tiny
from vilasr_jax.processing import Batch, Buckets, Encoded, collate, encode_conversation
from vilasr_jax.rollout import Request, Trajectory, make_prompt
from vilasr_jax.rollout.conversation import Conversation

ROOM = Buckets((150,), (5,), tiny.PATCHES)
BUCKETS = Buckets((96,), (3,), tiny.PATCHES)  # one shape, so that a step compiles once


def example(number: int) -> Encoded:
    """A conversation of 1 to 3 turns with pictures, assistant words by chance."""
    session = tiny.ScriptedSession(number, turns=1 + number % 3)
    rng = random.Random(f"words {number}")
    messages = list(session.messages)
    while True:
        text = "".join(rng.choices("abcdef", k=rng.randint(1, 5)))
        messages.append({"role": "assistant", "content": [{"type": "text", "text": text}]})
        reply = session.step(text)
        if reply.done:
            return encode_conversation(tiny.tokenizer(), messages)
        messages.append(reply.message)


def spoken(request: Request, sample: int) -> Trajectory:
    """A finished conversation in which the model wrote letters by chance."""
    seed, tokenizer = request.seed + sample, tiny.tokenizer()
    session, rng = request.session(), np.random.default_rng(seed)
    talk = Conversation((0, sample), request, session, make_prompt(tokenizer, session), 150)
    while not talk.stop_reason:
        letters = tokenizer.encode("".join(rng.choice([*"abcdef"], rng.integers(1, 6))))
        ids = np.array([*letters, tokenizer.special.im_end], np.int32)
        logprobs = -rng.exponential(3, len(ids)).astype(np.float32)
        talk.add_reply(*talk.add_turn(tokenizer, ids, logprobs)(), ROOM)
    return talk.finish()


def batch(numbers, rows: int | None = None, **extras) -> Batch:
    """Examples by number; each of `extras` is called with an example's number and length."""
    examples = [
        dataclasses.replace(e, extras={name: value(n, len(e.ids)) for name, value in extras.items()})
        for n, e in ((n, example(n)) for n in numbers)
    ]
    return collate(examples, buckets=BUCKETS, rows=rows)


def old_logprobs(number: int, length: int) -> np.ndarray:
    """Some policy's log-probabilities."""
    return -np.random.default_rng(number).exponential(3, length).astype(np.float32)


def advantage(number: int, length: int) -> np.ndarray:
    """A trajectory's own at each of its tokens; every fifth has none."""
    value = np.random.default_rng(1000 + number).normal() if number % 5 else 0.0
    return np.full(length, value, np.float32)
