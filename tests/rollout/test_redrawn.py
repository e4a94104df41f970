"""A conversation that travels without its images has the same ones, pixel by pixel, when they are drawn."""

import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from tests.training import samples
from vilasr_jax.drawing import DrawingSession, DrawingSettings
from vilasr_jax.errors import DataError
from vilasr_jax.rollout import Request, make_prompt, redrawn, without_images
from vilasr_jax.rollout.conversation import Conversation
from vilasr_jax.training.failed_prefixes import FailedPrefix, resumed

ANSWER = "<think> . </think> Action: Answer\n<answer> B </answer>"


def boxed(*boxes) -> str:
    """A turn that draws these boxes: index, side, label."""
    items = [{"index": n, "bbox_2d": [3, 3, side, side], "label": label} for n, side, label in boxes]
    return f"<think> . </think> Action: Object Mapper\n```json\n{json.dumps(items)}\n```"


# Two images in one turn, a label that is moved, a box on a drawn image, words that draw nothing.
TURNS = (boxed((1, 20, "a"), (2, 30, "b")), boxed((1, 25, "a")), "Action: Object Mapper", boxed((4, 9, "c")))


def question() -> Request:
    noise = np.random.default_rng(0).integers(0, 255, (2, 56, 84, 3), np.uint8)
    images = [Image.fromarray(pixels) for pixels in noise]
    settings = DrawingSettings(prompt="short", max_images=9)
    return Request({"id": "r", "meta": {}}, lambda: DrawingSession(images, "?", settings=settings), 0)


def held(request: Request, turns=(*TURNS, ANSWER), fails=()):
    """A conversation with these turns; the drawing of some `fails`, and they are replayed."""
    tokenizer, session = tiny.tokenizer(), request.session()
    talk = Conversation((0, 0), request, session, make_prompt(tokenizer, session), 1 << 20)
    room = dataclasses.replace(samples.ROOM, tokens=(1 << 15,))
    for number, text in enumerate(turns):
        ids = np.array([*tokenizer.encode(text), tokenizer.special.im_end], np.int32)
        work = talk.add_turn(tokenizer, ids, -np.ones(len(ids), np.float32))
        if number in fails:
            talk.session, *answer = talk.retry_turn(tokenizer, RuntimeError("no pencil"))()
        else:
            answer = work()
        talk.add_reply(*answer, room)
    assert talk.stop_reason == "answer"
    return talk.finish()


def same(one, other):
    for image, drawn in zip(one.images, other.images, strict=True):
        np.testing.assert_array_equal(np.asarray(image), np.asarray(drawn))
    for name in ("tokens", "loss_mask", "logprobs"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    rest = {"images": [], "tokens": None, "loss_mask": None, "logprobs": None}
    assert dataclasses.replace(one, **rest) == dataclasses.replace(other, **rest)


@pytest.mark.parametrize("fails", [(), (0,), (1, 3)])
def test_drawn_again_pixel_by_pixel(fails):
    sampled = held(question(), fails=fails)
    assert len(sampled.images) == {(): 6, (0,): 3, (1, 3): 4}[fails]
    data = without_images(sampled)
    assert len(data) < len(sampled.to_bytes()) / 5
    same(sampled, redrawn(data, question()))


def test_a_resumed_conversation_is_drawn_again():
    request = resumed(question(), FailedPrefix(("maze", 0), TURNS[:2]))
    sampled = held(request, (*TURNS[2:], ANSWER))
    assert sampled.base_images == 2 and len(sampled.images) == 6
    same(sampled, redrawn(without_images(sampled), request))


def test_nothing_is_drawn_before_it_is_looked_at():
    opened = []
    sampled = held(question())
    request = dataclasses.replace(question(), session=lambda: opened.append(0) or question().session())
    images = redrawn(without_images(sampled), request).images_in_tokens
    assert images.sizes == [image.size for image in sampled.images] and len(images[1:]) == 5 and not opened
    last = images[-1]
    assert last is images[3:][2] and len(opened) == 1


def test_a_session_that_draws_otherwise_is_named():
    sampled = held(question())
    wide = dataclasses.replace(
        question(), session=lambda: DrawingSession([Image.new("RGB", (84, 28))] * 2, "?")
    )
    with pytest.raises(DataError, match=r"conversation r/0: drawn again, its image 1 is \(84, 28\)"):
        redrawn(without_images(sampled), wide).images[0]
    fewer = dataclasses.replace(sampled, turns=sampled.turns[:1])
    fewer.images_read = 6
    with pytest.raises(DataError, match="image 6 is missing"):
        redrawn(without_images(fewer), question()).images[5]
