"""What goes wrong in one conversation costs that conversation, or only its turn; never the batch."""

import threading

import jax
import numpy as np
import pytest
from PIL import Image

from tests import tiny
from vilasr_jax.config import EngineSection, SamplingSection
from vilasr_jax.drawing import DrawingSession, DrawingSettings, Reply
from vilasr_jax.drawing import overlay as overlay_module
from vilasr_jax.errors import ConfigError, DataError
from vilasr_jax.processing import Buckets
from vilasr_jax.rollout import Engine, Request
from vilasr_jax.rollout.batch import Shape, empty_tokens

DRAW = """<think> look </think>
Action: Object Mapper
```json
[{"index": %d, "bbox_2d": [3, 3, 20, 20], "label": "%s"}]
```"""


SHORT = DrawingSettings(prompt="short")


def message(*content):
    return Reply({"role": "user", "content": list(content)}, False, None, 0, None)


class Raises(tiny.ScriptedSession):
    """Fails before it has noted the turn."""

    def step(self, text, *, truncated=False):
        if len(self.events) == 1:
            raise RuntimeError("the pencil broke")
        return super().step(text, truncated=truncated)


class OddImage(tiny.ScriptedSession):
    """Answers with a picture that the model cannot read."""

    def step(self, text, *, truncated=False):
        super().step(text, truncated=truncated)
        return message({"type": "image", "image": Image.new("RGB", (30, 30))})


class HugeImage(OddImage):
    """Answers with more patches than the buckets hold."""

    def step(self, text, *, truncated=False):
        super().step(text, truncated=truncated)
        return message({"type": "image", "image": Image.new("RGB", (280, 280))})


class LongText(OddImage):
    """Answers with more tokens than a conversation holds."""

    def step(self, text, *, truncated=False):
        super().step(text, truncated=truncated)
        return message({"type": "text", "text": "2" * 400})


@pytest.mark.parametrize(
    ("broken", "reason", "turns"),
    [
        (Raises, "error", 2),
        (OddImage, "error", 1),
        (HugeImage, "insert_limit", 1),
        (LongText, "token_limit", 1),
    ],
)
def test_a_broken_session_ends_only_itself(broken, reason, turns):
    def script(seed):
        return broken(seed, turns=5) if seed == 3 else tiny.ScriptedSession(seed)

    unhurt = tiny.generate(tiny.engine(), tiny.requests(8))
    hurt = tiny.generate(tiny.engine(), tiny.requests(8, session=script))
    for number, (a, b) in enumerate(zip(unhurt, hurt, strict=True)):
        if number != 3:
            np.testing.assert_array_equal(a.tokens, b.tokens)
    t = hurt[3]
    assert t.stop_reason == reason and len(t.turns) == turns
    assert t.loss_mask[-1] and len(t.images_in_tokens) == t.images_read
    if reason == "error" and broken is Raises:
        assert t.turns[-1]["error"] == "RuntimeError: the pencil broke" and t.errors == 1


@pytest.mark.parametrize("fault", ["raises", "grey"])
def test_a_drawing_that_fails_costs_its_turn(monkeypatch, fault):
    """The model reads the error, and may draw again; nothing half-done remains."""
    session = DrawingSession([Image.new("RGB", (56, 56), "white")], "where?", settings=DrawingSettings())
    assert session.step(DRAW % (1, "a")).drawn == 1
    real = overlay_module.render

    def broken(*args):
        if fault == "raises":
            raise MemoryError("no paint")
        return real(*args).convert("L")

    monkeypatch.setattr(overlay_module, "render", broken)
    reply = session.step(DRAW % (2, "b"))
    assert not reply.done and reply.drawn == 0 and "the drawing failed" in reply.error
    assert "the drawing failed" in reply.message["content"][0]["text"]
    assert len(session.images) == 2 and session.events[-1]["drawn"] == []
    monkeypatch.undo()
    reply = session.step(DRAW % (2, "b"))
    assert reply.drawn == 1 and reply.error is None and session.events[-1]["corrected"] == 0


class Drawer(DrawingSession):
    """Draws a box a turn, whatever the model writes; its third drawing never ends, or is broken."""

    def __init__(self, seed, fault, release):
        super().__init__([Image.new("RGB", (56, 28), (seed, 0, 0))], "1", settings=SHORT)
        self.fault, self.release = fault, release

    def step(self, text, *, truncated=False, lost=None):
        turn = len(self.events)
        if turn == 3:
            reply = super().step("<answer> A </answer>")
        else:
            if turn == 2 and self.fault == "hangs" and not lost:
                self.release.wait()
            if turn == 2 and self.fault == "raises" and not lost:
                raise MemoryError("no paper")
            reply = super().step(DRAW % (1, "abc"[turn]), lost=lost)
            if turn == 2 and self.fault == "odd" and not lost:
                reply.message["content"][0]["image"] = Image.new("RGB", (30, 30))
        if reply.message:  # the published words are long for the small buckets
            reply.message["content"] = [c for c in reply.message["content"] if c["type"] == "image" or lost]
        return reply


def drawers(fault, release=None, on_end=None) -> list[Request]:
    """Five drawers, the first of which has the fault."""
    return [
        Request(
            {"id": f"row-{i}"}, lambda i=i: Drawer(i, fault if i == 0 else None, release), i, on_end=on_end
        )
        for i in range(5)
    ]


@pytest.fixture(scope="module")
def unhurt():
    """An engine that waits for drawings, and its conversations where none fails."""
    runner = engine(
        SamplingSection(max_turn_tokens=5, max_tokens=700),
        slots=4,
        lanes=2,
        prompt_tokens=(400,),
        insert_tokens=(160,),
        draw_seconds=0.7,
        draw_wait=0.05,
    )
    return runner, tiny.generate(runner, drawers(None))


@pytest.mark.parametrize("fault", ["hangs", "raises", "odd"])
def test_a_drawing_that_fails_in_the_engine_costs_its_turn(unhurt, fault):
    """The model reads the error and continues; the others do not wait for it."""
    (runner, plain), release, order = unhurt, threading.Event(), []
    hurt = tiny.generate(runner, drawers(fault, release, lambda _, t: order.append(t.id)))
    release.set()
    for a, b in zip(plain[1:], hurt[1:], strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens)
    t = hurt[0]
    assert t.stop_reason == "answer" and len(t.turns) == 4 and t.errors == 1
    reason = {"hangs": "longer than 0.7 seconds", "raises": "no paper", "odd": "30 x 30 px"}[fault]
    assert reason in t.turns[2]["error"] and reason in tiny.tokenizer().decode(t.tokens)
    assert t.turns[2]["drawn"] == [] and len(t.images) == t.images_read == 3
    if fault == "hangs":
        assert order != sorted(order) and order[-1] == "row-0/0"


def engine(sampling=tiny.SAMPLING, **changes):
    sizes = {"slots": 1, "lanes": 1, "prompt_tokens": (40,), "insert_tokens": (32,), **changes}
    return Engine(
        tiny.config(),
        tiny.graphdef(),
        tiny.tokenizer(),
        tiny.suppressed(),
        engine=EngineSection(**sizes),
        sampling=sampling,
        patches=tiny.PATCHES,
        mesh=tiny.mesh(),
    )


def test_a_prompt_without_room_names_its_row():
    with pytest.raises(DataError, match=r"row row-0: .* more than the largest buckets: prompt_tokens=12"):
        tiny.generate(engine(prompt_tokens=(12,)), tiny.requests(1))
    small = SamplingSection(max_turn_tokens=7, max_tokens=15)
    with pytest.raises(DataError, match=r"row row-0: .*max_tokens=15 leaves no"):
        tiny.generate(engine(small, prompt_tokens=(12,)), tiny.requests(1))
    with pytest.raises(ConfigError, match="prompt_tokens"):
        engine(small)


def test_prompts_without_images():
    """A bucket of 0 images: text only, no vision tower."""
    runner = engine(prompt_images=(0,))
    new = empty_tokens(Shape(1, 40, 0, 0), 1)
    assert new.vision is None
    prefix = jax.eval_shape(runner.steps.prefill, runner.layout(tiny.params()), new)
    assert prefix.hidden.shape == (1, tiny.config().hidden_size)
    assert Buckets((8,), (0,), (4,)).fit("images", 0) == 0
