"""The worker around a real engine and a tiny random model: many at once, each as it would be alone."""

import asyncio
import dataclasses

import jax
import pytest
from PIL import Image

from tests import tiny
from vilasr_jax.config import EngineSection
from vilasr_jax.drawing import DrawingSession, DrawingSettings
from vilasr_jax.drawing.tools import PUBLISHED
from vilasr_jax.rollout import Engine
from vilasr_jax.serve import ApiError, Limits, Worker
from vilasr_jax.serve.replies import data_url
from vilasr_jax.serve.requests import ChatRequest, Picture
from vilasr_jax.serve.worker import _WarmUp

SETTINGS = DrawingSettings(prompt="short", max_turns=3)
IMAGE = Picture(data_url(Image.new("RGB", (56, 28), (200, 30, 60))), "here", Limits())


@pytest.fixture(scope="module")
def worker():
    section = EngineSection(
        slots=3, lanes=1, decode_steps=3, prompt_tokens=(320,), insert_tokens=(64,), per_request_sampling=True
    )
    sampling = dataclasses.replace(tiny.SAMPLING, max_tokens=400)
    engine = Engine(
        tiny.config(),
        tiny.graphdef(),
        tiny.tokenizer(),
        tiny.suppressed(),
        engine=section,
        sampling=sampling,
        patches=tiny.PATCHES,
        mesh=tiny.mesh(),
    )
    limits = Limits(slots=3, waiting=9)
    params = tiny.place(tiny.params(), engine.steps.mesh)
    worker = Worker(engine, params, SETTINGS, (784, 28 * 84), sampling, limits)
    worker.warm_up()
    worker.start()
    yield worker
    worker.stop()


async def answer(worker, chat):
    stream = await worker.submit(chat)
    text, trajectory = "", None
    async for event in stream.events(60):
        text += event.value if event.kind == "tokens" else ""
        trajectory = event.value if event.kind == "end" else trajectory
    return text, trajectory


def test_many_at_once(worker):
    chats = [
        ChatRequest("m", (IMAGE,), f"look {n}", seed=n, temperature=0.5 * (n % 3), max_tokens=5)
        for n in range(8)
    ]

    async def all_of_them():
        return await asyncio.gather(*(answer(worker, chat) for chat in chats))

    answers = asyncio.run(all_of_them())
    assert worker.busy == 0
    for chat, (text, trajectory) in zip(chats, answers, strict=True):
        assert text == "".join(trajectory.texts) and trajectory.loss_mask.sum() <= 5
        alone, _ = asyncio.run(answer(worker, chat))
        assert alone == text  # whatever its neighbours were
    assert jax.device_get(worker.engine.steps.decode._cache_size()) == 1  # nothing was recompiled


@pytest.mark.parametrize("actions", ["published", "tool_call"])
@pytest.mark.parametrize("tools", [("zoom",), ("erase",), ("point", "text"), PUBLISHED])
def test_any_tools_are_compiled_with_a_drawing(tools, actions):
    """Without `path_tracer` nothing was drawn, so that the first client waited for the insert steps."""
    image = Image.new("RGB", (56, 28), "white")
    one = _WarmUp([image], "?", settings=dataclasses.replace(SETTINGS, tools=tools, actions=actions))
    own = DrawingSession([image], "?", settings=one.settings)
    assert one.messages == own.messages
    reply = one.step("words")
    assert (reply.drawn, reply.error, reply.done) == (1, None, False)
    without = _WarmUp([image], "?", settings=dataclasses.replace(SETTINGS, draw=False))
    assert without.step("words").done


def test_a_question_without_room(worker):
    with pytest.raises(ApiError, match="tokens") as refused:
        asyncio.run(answer(worker, ChatRequest("m", (IMAGE,), "look at image 1 " * 60)))
    assert refused.value.status == 400 and worker.busy == 0
