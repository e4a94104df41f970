"""The worker around a real engine and a tiny random model: many at once, each as it would be alone."""

import asyncio
import dataclasses
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import jax
import numpy as np
import pytest
from PIL import Image

from tests import tiny
from tests.serve.conftest import compilations, listening
from vilasr_jax.config import EngineSection
from vilasr_jax.drawing import DrawingSession, DrawingSettings
from vilasr_jax.rollout import Engine
from vilasr_jax.serve import ApiError, Limits, Worker, make_app
from vilasr_jax.serve.replies import data_url
from vilasr_jax.serve.requests import ChatRequest, Picture

SETTINGS = DrawingSettings(prompt="short", max_turns=3)
LINE = (
    '<think> a </think> Action: Path Tracer\n```json\n[{"index": 1, "start_point_2d": [1, 1], '
    '"end_point_2d": [20, 20], "label": "a"}]\n```'
)
IMAGE = Picture(data_url(Image.new("RGB", (56, 28), (200, 30, 60))), "here", Limits())


@pytest.fixture(scope="module")
def worker():
    section = EngineSection(
        slots=3,
        lanes=1,
        decode_steps=3,
        prompt_tokens=(320,),
        insert_tokens=(64,),
        call_rows=1,
        per_request_sampling=True,
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


def test_ready_means_compiled(worker):
    """Text alone, several samples and several replies at once were compiled for the first client."""
    assert worker.engine.row_buckets == (1,)
    image, drawn = {"type": "image_url", "image_url": {"url": IMAGE.url}}, []

    def ask(pictures, **fields):
        content = [*pictures, {"type": "text", "text": "look"}]
        body = {"messages": [{"role": "user", "content": content}], "max_tokens": 12, **fields}
        reply = httpx.post(f"{url}/v1/chat/completions", json=body, trust_env=False, verify=False, timeout=60)
        assert reply.status_code == 200, reply.text
        said = [choice["message"] for choice in reply.json()["choices"]]
        drawn.extend(said[0]["images"])
        return [message["content"] for message in said]

    def step(self, text, **more):
        return real_step(self, LINE, **more)

    real_step = DrawingSession.step
    with (
        compilations() as compiled,
        listening(make_app(worker, "m")) as url,
        pytest.MonkeyPatch.context() as m,
    ):
        alone = [ask([image], seed=seed, temperature=1)[0] for seed in (5, 6, 7)]
        assert ask([image], seed=5, temperature=1, n=3) == alone and len(set(alone)) > 1
        m.setattr(DrawingSession, "step", step)
        for samples in (1, 2, 3):
            ask([], n=samples)
            ask([image], n=samples, model="m:markdown")
        with ThreadPoolExecutor(12) as pool:
            list(pool.map(lambda n: ask([image][: n % 2], model="m:answer"), range(12)))
        assert drawn and not compiled
        jax.jit(lambda x: x * 5)(np.ones(3))
        assert compiled  # they are counted


def test_a_question_without_room(worker):
    with pytest.raises(ApiError, match="tokens") as refused:
        asyncio.run(answer(worker, ChatRequest("m", (IMAGE,), "look at image 1 " * 60)))
    assert refused.value.status == 400 and worker.busy == 0
