"""A server that says it is ready has compiled all that its clients can need."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import httpx2 as httpx
import jax
import numpy as np
import pytest

from tests import tiny
from tests.serve.conftest import compilations, listening, picture
from vilasr_jax.config import DrawingSection, EvalSection, ImageSection, JobConfig, SamplingSection
from vilasr_jax.drawing import PROMPTS, DrawingSession
from vilasr_jax.rollout.batch import shapes
from vilasr_jax.serve import Limits, make_app
from vilasr_jax.serve.run import make_worker, warm_up
from vilasr_jax.trained_model import TrainedModel

LIMITS = Limits(slots=4, waiting=400, images=2, history="fold")
JOB = JobConfig(
    image=ImageSection(784, 84 * 56),
    drawing=DrawingSection(prompt="short", max_turns=3, max_images=20),
    eval=EvalSection(sampling=SamplingSection(0.75, 0.9, max_turn_tokens=9, max_tokens=200)),
)
SIZES = ((1, 1), (28, 28), (84, 56), (30, 150), (900, 700), (300, 40))


def drawn(self, text, **more):
    """Each turn draws: a line, two lines on two images, or words that are no call."""
    lines = [
        f'{{"index": {1 + at}, "start_point_2d": [4, 4], "end_point_2d": [9, {9 + at}], "label": "a"}}'
        for at in range(sum(map(ord, text)) % 3)
    ]
    calls = f"Action: Path Tracer\n```json\n[{', '.join(lines)}]\n```"
    return STEP(self, f"<think> a </think> {calls}", **more)


STEP = DrawingSession.step


def worker_on(devices, limits):
    model = TrainedModel(JOB, tiny.config(), tiny.tokenizer(), PROMPTS["short"], tiny.params())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jax, "local_devices", lambda: devices)
        return make_worker(model, limits)


@pytest.mark.parametrize("images, most", [(1, 12), (4, 20), (16, 30)])
def test_few_shapes_are_all_that_a_server_needs(images, most):
    """Its start-up is their compilation."""
    limits = dataclasses.replace(LIMITS, slots=8, images=images)
    engine = worker_on(jax.devices()[:1], limits).engine
    assert engine.row_buckets == (1,)
    inserts = list(shapes(engine.row_buckets, engine.insert_buckets))
    assert len(engine.prompt_shapes()) + len(inserts) <= most


@pytest.fixture(scope="module")
def server():
    """The address of a server with random weights, and what it compiles after its warm-up."""
    worker = worker_on(jax.devices()[:2], LIMITS)
    assert (worker.engine.shards, worker.engine.shard_slots) == (2, 2)
    warm_up(worker)
    worker.start()
    with (
        pytest.MonkeyPatch.context() as patch,
        listening(make_app(worker, "m", limits=LIMITS)) as url,
        compilations() as compiled,
    ):
        patch.setattr(DrawingSession, "step", drawn)
        yield url, compiled
    worker.stop()


def question(*sizes, text="which?", **fields):
    images = [{"type": "image_url", "image_url": {"url": picture(*size)}} for size in sizes]
    content = [*images, {"type": "text", "text": text}]
    return {"messages": [{"role": "user", "content": content}], **fields}


def chat(*sizes):
    first = question(*sizes)["messages"][0]
    return {"messages": [first, {"role": "assistant", "content": "left"}, *question()["messages"]]}


ONE = [question(size) for size in SIZES]
KINDS = {
    "text alone": [question(), question(text="why? " * 40), question(options=["A", "B"])],
    "one image": ONE,
    "the most images": [question(one, two) for one in SIZES for two in SIZES[1::2]],
    "a long question": [question(size, text="why? " * 40) for size in SIZES],
    "samples": [question(*SIZES[:most], n=n) for n in range(1, 8) for most in (0, 1, 2)],
    "sampling": [
        {**ONE[0], **more} for more in ({"temperature": 0}, {"top_p": 0.1, "seed": 3}, {"max_tokens": 1})
    ],
    "models": [
        {**ONE[1], "model": f"m{kind}", "stream": stream}
        for kind in (":answer", ":markdown")
        for stream in (False, True)
    ],
    "video and captions": [question(*SIZES[:2], video=True)],
    "earlier turns": [chat(), chat(SIZES[2]), chat(SIZES[2], SIZES[4])],
}


def ask(url, body):
    reply = httpx.post(f"{url}/v1/chat/completions", json=body, trust_env=False, verify=False, timeout=120)
    assert reply.status_code == 200, reply.text
    return reply


@pytest.mark.slow  # all steps of a server are compiled; test_worker has a smaller one
@pytest.mark.parametrize("kind", KINDS)
def test_no_request_compiles_anything(server, kind):
    url, compiled = server
    for body in KINDS[kind]:
        ask(url, body)
        assert not compiled, body


@pytest.mark.slow
def test_many_at_once_compile_nothing(server):
    url, compiled = server
    bodies = [body for kind in KINDS.values() for body in kind]
    with ThreadPoolExecutor(40) as pool:
        replies = list(pool.map(lambda body: ask(url, body), [*bodies[::2], *bodies[1::2]]))
    assert len(replies) == len(bodies) and not compiled
    plain = [reply.json() for reply in replies if reply.headers["content-type"] == "application/json"]
    turns = [turn for one in plain for choice in one["choices"] for turn in choice["message"]["turns"]]
    assert {len(turn["images"]) for turn in turns} >= {0, 1, 2}  # replies of every length were inserted
    jax.jit(lambda x: x * 5)(np.ones(3))
    assert compiled.pop()  # the listener is called for one
