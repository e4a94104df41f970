"""The engine in a thread of its own, and the streams of events that the server reads from it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import math
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable
from typing import Any, NamedTuple

import jax
from absl import logging
from PIL import Image

from vilasr_jax.config import SamplingSection
from vilasr_jax.conversation_settings import frame_times
from vilasr_jax.drawing import DrawingSession, DrawingSettings, Reply, get_tools
from vilasr_jax.drawing.tools import PUBLISHED
from vilasr_jax.errors import ConfigError, DataError, UserError
from vilasr_jax.models import ImageSpec
from vilasr_jax.processing import resize_image
from vilasr_jax.rollout import Engine, Request
from vilasr_jax.serve.limits import ApiError, Limits
from vilasr_jax.serve.requests import ChatRequest
from vilasr_jax.tasks.rows import question_record, question_row

_LINE = (
    "<think> a line </think> Action: Path Tracer\n```json\n"
    '[{"index": 1, "start_point_2d": [1, 1], "end_point_2d": [20, 20], "label": "a"}]\n```'
)
BLANK = (112, 112)  # of the white picture that a question without one is answered on
RESTART_SECONDS = 0.5  # between a failure of the engine and its next start


class Event(NamedTuple):
    """An event of one sample: "tokens" (a text), "turn" (the turn, its new images), "end" (the
    trajectory) or "fault" (an ApiError)."""

    kind: str
    sample: int
    value: Any


class Cancelled(Exception):
    """Raised in a hook when the client has disconnected."""


class Stream:
    """The events of one request; when its iterator is closed, the conversations stop."""

    def __init__(self, chat: ChatRequest):
        self.chat, self.gone = chat, False
        self.running = chat.samples  # conversations that the engine has not ended
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    def send(self, kind: str, sample: int, value: Any) -> None:
        """Called in the engine's thread."""
        if self.gone:
            raise Cancelled("the client is gone")
        self._loop.call_soon_threadsafe(self._events.put_nowait, Event(kind, sample, value))

    async def events(self, seconds: float) -> AsyncGenerator[Event]:
        """Yields what happens until every sample has ended.

        Raises:
          ApiError: 504 when it needs longer than `seconds`; 503 when the engine fails.
        """
        left = self.chat.samples
        try:
            async with asyncio.timeout(seconds):
                while left:
                    event = await self._events.get()
                    if event.kind == "fault":
                        raise event.value
                    left -= event.kind == "end"
                    yield event
        except TimeoutError:
            message = f"no answer within {seconds:g} seconds; request fewer tokens, or try again later"
            raise ApiError(504, message, code="timeout") from None
        finally:
            self.gone = True


class _WarmUp(DrawingSession):
    """Draws a line whatever the model writes, and whichever tools it has."""

    _drawing = False

    @property
    def tools(self) -> tuple:
        return get_tools(PUBLISHED) if self._drawing and self.settings.draw else super().tools

    def step(self, text: str, *, truncated: bool = False, **more: Any) -> Reply:
        self._drawing = True  # the prompt describes the model's own tools
        try:
            return super().step(self.as_written(_LINE), **more)
        finally:
            self._drawing = False


class Worker:
    """Puts requests into a running engine.

    Args:
      engine: from `sampler.open_engine`.
      params: the model's parameters.
      settings: how the model draws.
      pixels: smallest and largest number of pixels of an image, and how the model's family cuts it.
      sampling: the temperature and top-p of requests that name none.
      limits: the most conversations running or waiting.
    """

    def __init__(
        self,
        engine: Engine,
        params: Any,
        settings: DrawingSettings,
        pixels: tuple[int, int, ImageSpec],
        sampling: SamplingSection,
        limits: Limits,
    ):
        self.engine, self.params, self.settings = engine, params, settings
        self.pixels, self.sampling, self.limits = pixels, sampling, limits
        self.busy = 0  # conversations running or waiting
        self._inbox: queue.Queue[Request | None] = queue.Queue()
        self._streams: set[Stream] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Starts the engine's thread."""
        self._thread.start()

    def warm_up(self, report: Callable[[int, int], None] | None = None) -> None:
        """Samples drawn conversations of all shapes, so that no client waits for compilation.

        These are a large, a middle and a small picture (as `sampler.open_engine` has buckets of patches), as
        many of them as its buckets hold, and two conversations at once. `report` is called with how many of
        them are compiled, and of how many.
        """
        most = self.engine.sampling.max_turn_tokens + 1

        def request(side: int, count: int) -> Request:
            image = resize_image(Image.new("RGB", (side, side), "white"), *self.pixels)
            given = [image] * count
            return Request(
                {"id": "warm-up"},
                lambda: _WarmUp(given, "?", question_type="free-form", settings=self.settings),
                0,
                max_new_tokens=most,
            )

        side = math.isqrt(self.pixels[1])
        counts = self.engine.engine.prompt_images
        one_each = [request(side // part, count) for count in counts for part in (1, 2, 4)]
        batches = [[one_each[0]] * min(2, self.limits.slots), *([one] for one in one_each)]
        for done, requests in enumerate(batches):
            if report:
                report(done, len(batches))
            with contextlib.suppress(DataError):  # larger than the buckets: no client can send it, either
                self.engine.check(requests[0])
                self.engine.generate(self.params, requests, jax.random.key(0))
        if report:
            report(len(batches), len(batches))

    def cut(self, text: str, tokens: int) -> str:
        """The beginning of a text, at most `tokens` tokens of it."""
        ids = self.engine.tokenizer.encode(text)
        return text if len(ids) <= tokens else self.engine.tokenizer.decode(ids[:tokens])

    def stop(self) -> None:
        """Cancels the running conversations and waits for the engine's thread."""
        for stream in list(self._streams):
            stream.gone = True
        self._inbox.put(None)
        self._thread.join()

    async def submit(self, chat: ChatRequest) -> Stream:
        """Hands a request to the engine.

        Raises:
          ApiError: 429 when too many are waiting, before an image is decoded; 400 when one can't be read, or
            the prompt is larger than the engine's buckets.
        """
        stream = Stream(chat)
        self._admit(chat.samples)
        try:
            request = await asyncio.to_thread(self._request, chat, stream)
        except UserError as error:
            self._release(chat.samples)
            raise ApiError(400, str(error), param="messages", code="too_long") from None
        except BaseException:
            self._release(chat.samples)
            raise
        stream.chat = dataclasses.replace(chat, pictures=())  # what was sent is large, and no longer needed
        with self._lock:
            self._streams.add(stream)
            self._inbox.put(request)
        return stream

    def _admit(self, samples: int) -> None:
        with self._lock:
            most = self.limits.slots + self.limits.waiting
            if self.busy + samples > most:
                message = f"{self.busy} conversations are at work or wait, {most} is the most; try again soon"
                raise ApiError(429, message, code="too_many_requests")
            self.busy += samples

    def _release(self, samples: int) -> None:
        with self._lock:
            self.busy -= samples

    def _request(self, chat: ChatRequest, stream: Stream) -> Request:
        sent = [picture.read() for picture in chat.pictures] or [Image.new("RGB", BLANK, "white")]
        images = [resize_image(picture, *self.pixels) for picture in sent]
        kind = "video" if chat.video else "vqa"
        row = question_row(images, chat.question, chat.options, kind, id="request")
        try:
            seconds = frame_times(self.settings, len(images), chat.fps, chat.video)
        except ConfigError as error:
            raise ApiError(400, str(error), param="fps") from None

        def session() -> DrawingSession:
            return DrawingSession(
                images,
                chat.question,
                question_type=row.question_type,
                options=chat.options,
                settings=self.settings,
                captions=chat.captions,
                video=chat.video,
                seconds=seconds,
            )

        def end(sample: int, trajectory: Any) -> None:
            with self._lock:
                if stream in self._streams:  # else the engine failed, and all its conversations are released
                    self.busy -= 1
                    stream.running -= 1
                    if not stream.running:
                        self._streams.discard(stream)
            stream.send("end", sample, trajectory)

        request = Request(
            question_record(row),
            session,
            chat.seed,
            chat.samples,
            temperature=self.sampling.temperature if chat.temperature is None else chat.temperature,
            top_p=self.sampling.top_p if chat.top_p is None else chat.top_p,
            max_new_tokens=None if chat.answer_only else chat.max_tokens,
            on_tokens=lambda sample, text: stream.send("tokens", sample, text),
            on_turn=lambda sample, turn, drawn: stream.send("turn", sample, (turn, drawn)),
            on_end=end,
        )
        self.engine.check(request)
        return request

    def _run(self) -> None:
        """Runs the engine; when it fails, reports that to the waiting clients and restarts it."""
        while True:
            try:
                return self.engine.serve(self.params, self._inbox, jax.random.key(0))
            except Exception:
                logging.exception("the engine failed; it starts again")
                self._fail()
                time.sleep(RESTART_SECONDS)

    def _fail(self) -> None:
        with self._lock:  # requests that are still read stay counted
            streams, self._streams = list(self._streams), set()
            self.busy -= sum(stream.running for stream in streams)
            while not self._inbox.empty():
                if self._inbox.get_nowait() is None:
                    self._inbox.put(None)
                    break
        for stream in streams:
            if not stream.gone:
                stream.send("fault", 0, ApiError(503, "the model failed; try again", code="engine_failed"))
