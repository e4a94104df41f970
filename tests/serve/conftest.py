"""A server around a scripted model: real drawing, real HTTP, no network of neurons."""

import base64
import contextlib
import io
import json
import threading
import time

import jax
import numpy as np
import pytest
import uvicorn
from PIL import Image, ImageDraw

from vilasr_jax.config import SamplingSection
from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.errors import DataError
from vilasr_jax.rollout import Trajectory
from vilasr_jax.serve import Limits, Worker, make_app

LINE = '[{"index": 1, "start_point_2d": [14, 14], "end_point_2d": [%d, 14], "label": "way"}]'
TURNS = [
    f"<think> It goes right. </think> Action: Path Tracer\n```json\n{LINE % 42}\n```",
    f"<think> Further. </think> Action: Path Tracer\n```json\n{LINE % 70}\n```",
    "<think> There it ends. </think> Action: Answer\n<answer> B </answer>",
]


class Letters:
    """A tokenizer with a token a character."""

    def encode(self, text):
        return list(text)

    def decode(self, ids):
        return "".join(ids)


class ScriptedEngine:
    """Answers as `Engine.serve` does: every question in the same three turns.

    A question with "slow" or "pause" is answered slowly, one with "hold" when `go_on` is set, one with
    "crash" stops the engine with an error, and a long one is refused.
    """

    def __init__(self):
        self.cancelled = 0
        self.go_on = threading.Event()
        self.requests = []
        self.tokenizer = Letters()

    def check(self, request):
        if len(request.row["question"]) > 3000:
            raise DataError("row request: its prompt has 5000 tokens, more than the largest buckets")

    def serve(self, params, inbox, key):
        while (request := inbox.get()) is not None:
            self.requests.append(request)
            if "hold" in request.row["question"]:
                self.go_on.wait(30)
            if "crash" in request.row["question"]:
                raise RuntimeError("out of memory")
            for sample in range(request.samples):
                self.answer(request, sample)

    def answer(self, request, sample):
        session, reason = request.session(), "cancelled"
        try:
            for text in TURNS:
                for at in range(0, len(text), 20):
                    question = request.row["question"]
                    time.sleep(0.05 if "slow" in question else 0.02 if "pause" in question else 0)
                    request.on_tokens(sample, text[at : at + 20])
                session.step(text)
                event = session.events[-1]
                request.on_turn(sample, event, [session.images[i - 1] for i in event["drawn"]])
            reason = session.stop_reason
        except Exception:
            self.cancelled += 1
        ids = np.arange(12, dtype=np.int32)
        trajectory = Trajectory(
            "request/0",
            ids,
            ids > 6,
            np.zeros(12, np.float32),
            session.images,
            session.events,
            reason,
            1,
            3,
            request.row,
        )
        try:
            request.on_end(sample, trajectory)
        except Exception:
            assert reason == "cancelled"


def picture(width=112, height=84, kind="PNG"):
    """A data URL of a small picture."""
    image = Image.new("RGB", (width, height), "white")
    ImageDraw.Draw(image).rectangle((0, 0, width // 2, height // 2), fill=(30, 90, 160))
    out = io.BytesIO()
    image.save(out, kind)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(out.getvalue()).decode()}"


def messages(text="Which way?", url=None):
    content = [{"type": "image_url", "image_url": {"url": url or picture()}}, {"type": "text", "text": text}]
    return [{"role": "user", "content": content}]


def body(**fields):
    return json.dumps({"messages": messages(), **fields})


@contextlib.contextmanager
def compilations():
    """A list that gets an entry with each compilation."""
    compiled = []

    def listen(event, duration, **_):
        if "backend_compile" in event:
            compiled.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield compiled
    jax.monitoring.unregister_event_duration_listener(listen)


@contextlib.contextmanager
def listening(app):
    """The address of a running application."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join()


class Served:
    """A running server: its URL, engine and worker."""

    def __init__(self, limits=None, token="", hosts=("*",), cors=()):
        self.limits = limits or Limits(slots=2, waiting=6, seconds=20, body_bytes=1 << 20, image_pixels=10**6)
        self.engine = ScriptedEngine()
        self.worker = Worker(
            self.engine, None, DrawingSettings(), (784, 10**6), SamplingSection(0.75, 0.9), self.limits
        )
        sample = {"question": "Where does it end?", "options": ["A", "B"], "answer": "B", "image": picture()}
        self.app = make_app(
            self.worker, "maze", limits=self.limits, token=token, hosts=hosts, samples=[sample], cors=cors
        )
        self.worker.start()
        self.stack = contextlib.ExitStack()
        self.url = self.stack.enter_context(listening(self.app))

    def close(self):
        self.stack.close()
        self.worker.stop()


@pytest.fixture(scope="module")
def served():
    server = Served()
    yield server
    server.close()
