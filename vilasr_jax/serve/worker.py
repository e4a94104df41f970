"""The engine in a thread of its own, and the streams of events that the server reads from it."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
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
from vilasr_jax.drawing import DrawingSession, DrawingSettings
from vilasr_jax.errors import ConfigError, UserError
from vilasr_jax.models import ImageSpec
from vilasr_jax.processing import resize_image
from vilasr_jax.rollout import Cancelled, Engine, Request
from vilasr_jax.serve.limits import ApiError, Limits
from vilasr_jax.serve.requests import ChatRequest
from vilasr_jax.tasks.rows import question_record, question_row

ID = "request"  # of the row of each
BLANK = (112, 112)  # of the white picture that a question without one is answered on
RESTART_SECONDS = 0.5  # between a failure of the engine and its next start


class Event(NamedTuple):
    """An event of one sample: "tokens" (a text), "turn" (the turn, its new images), "end" (the
    trajectory) or "fault" (an ApiError)."""

    kind: str
    sample: int
    value: Any


class Inbox(queue.Queue[Request | None]):
    """Requests that the engine has not fetched."""

    def discard(self, request: Request | None) -> None:
        """Removes a request; nothing happens where it is gone."""
        with self.mutex:
            kept = [other for other in self.queue if other is not request]
            self.queue.clear()
            self.queue.extend(kept)

    def clear(self) -> None:
        """Removes all requests, but not the None that ends the engine."""
        with self.mutex:
            kept = [other for other in self.queue if other is None]
            self.queue.clear()
            self.queue.extend(kept)


class Stream:
    """The events of one request.

    Args:
      chat: the request.
      leave: called with the stream and the reason, once, when nobody waits for its events any more.
    """

    def __init__(self, chat: ChatRequest, leave: Callable[[Stream, str], None]):
        self.chat, self.gone = chat, False
        self.request: Request | None = None  # what the engine gets
        self.running = chat.samples  # conversations that the engine has not ended
        self._leave = leave
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    def send(self, kind: str, sample: int, value: Any) -> None:
        """Called in the engine's thread."""
        if self.gone:
            raise Cancelled
        self._loop.call_soon_threadsafe(self._events.put_nowait, Event(kind, sample, value))

    async def events(self, seconds: float) -> AsyncGenerator[Event]:
        """Yields what happens until every sample has ended; when it is closed before, they are cancelled.

        Raises:
          ApiError: 504 when it needs longer than `seconds`; 503 when the engine fails or the server stops.
        """
        left, reason = self.chat.samples, "its client left"
        try:
            async with asyncio.timeout(seconds):
                while left:
                    event = await self._events.get()
                    if event.kind == "fault":
                        reason = event.value.message
                        raise event.value
                    left -= event.kind == "end"
                    yield event
        except TimeoutError:
            reason = f"no answer within {seconds:g} seconds"
            message = f"{reason}; request fewer tokens, or try again later"
            raise ApiError(504, message, code="timeout") from None
        finally:
            self.close(reason)

    def close(self, reason: str) -> None:
        """Nobody waits any more: what has begun is cancelled, and what has not never begins."""
        if not self.gone:
            self.gone = True
            self._leave(self, reason)


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
        self.busy = 0  # conversations running or waiting, for clients that are there
        self.closing = False
        self._inbox = Inbox()
        self._streams: set[Stream] = set()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Starts the engine's thread."""
        self._thread.start()

    def warm_up(self, report: Callable[[int, int], None] | None = None) -> None:
        """Compiles all that conversations can need, so that no client waits for compilation.

        Args:
          report: called with the calls that are compiled, and their number.

        Raises:
          Cancelled: `close` was called; the call that was being compiled is done.
        """

        def note(done: int, total: int) -> None:
            if self.closing:
                raise Cancelled
            if report:
                report(done, total)

        self.engine.warm_up(self.params, note)

    def cut(self, text: str, tokens: int) -> str:
        """The beginning of a text, at most `tokens` tokens of it."""
        ids = self.engine.tokenizer.encode(text)
        return text if len(ids) <= tokens else self.engine.tokenizer.decode(ids[:tokens])

    def close(self) -> None:
        """Ends all requests with a 503, in the event loop's thread; refuses more."""
        self.closing = True
        for stream in list(self._streams):
            stream.send("fault", 0, _stopping())

    def stop(self) -> None:
        """Cancels the running conversations and waits until the engine's thread has ended."""
        self.closing = True
        for stream in list(self._streams):
            stream.close("the server stops")
        self._inbox.put(None)
        self._thread.join()

    async def submit(self, chat: ChatRequest) -> Stream:
        """Hands a request to the engine.

        Raises:
          ApiError: 429 when too many are waiting, before an image is decoded; 503 when the server stops; 400
            when an image can't be read, or the prompt is larger than the engine's buckets.
        """
        stream = Stream(chat, self._leave)
        self._admit(chat.samples)
        try:
            request = await asyncio.to_thread(self._request, chat, stream)
        except UserError as error:
            self._release(chat.samples)
            message = str(error).removeprefix(f"row {ID}: ")
            raise ApiError(400, message, param="messages", code="too_long") from None
        except BaseException:
            self._release(chat.samples)
            raise
        stream.chat = dataclasses.replace(chat, pictures=())  # what was sent is large, and no longer needed
        with self._lock:
            stream.request = request
            self._streams.add(stream)
            self._inbox.put(request)
        if self.closing:  # since it was admitted
            stream.send("fault", 0, _stopping())
        return stream

    def _admit(self, samples: int) -> None:
        if self.closing:
            raise _stopping()
        with self._lock:
            most = self.limits.slots + self.limits.waiting
            if self.busy + samples > most:
                message = f"{self.busy} conversations are at work or wait, {most} is the most; try again soon"
                raise ApiError(429, message, code="too_many_requests")
            self.busy += samples

    def _release(self, samples: int) -> None:
        with self._lock:
            self.busy -= samples

    def _leave(self, stream: Stream, reason: str) -> None:
        """Stops counting the conversations of a stream that nobody reads, and removes them from the queue."""
        with self._lock:
            if stream not in self._streams:
                return  # all have ended
            self._streams.discard(stream)
            self.busy -= stream.running
        self._inbox.discard(stream.request)
        if not self.closing:
            logging.warning("a request of %d conversations is stopped: %s", stream.running, reason)

    def _request(self, chat: ChatRequest, stream: Stream) -> Request:
        sent = [picture.read() for picture in chat.pictures] or [Image.new("RGB", BLANK, "white")]
        images = [resize_image(picture, *self.pixels) for picture in sent]
        kind = "video" if chat.video else "vqa"
        row = question_row(images, chat.question, chat.options, kind, id=ID)
        try:
            seconds = frame_times(self.settings, len(images), chat.fps, chat.video)
        except ConfigError as error:
            raise ApiError(400, str(error), param="fps") from None

        def session() -> DrawingSession:
            return DrawingSession(
                images,
                chat.question,
                question_type=row.question_type,
                options=row.options,
                settings=self.settings,
                captions=chat.captions,
                video=chat.video,
                seconds=seconds,
            )

        def end(sample: int, trajectory: Any) -> None:
            with self._lock:
                if stream in self._streams:  # else the client left or the engine failed: they are released
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
                if self.closing:
                    return
                time.sleep(RESTART_SECONDS)

    def _fail(self) -> None:
        with self._lock:  # requests that are still read stay counted
            streams, self._streams = list(self._streams), set()
            self.busy -= sum(stream.running for stream in streams)
            self._inbox.clear()
        for stream in streams:
            with contextlib.suppress(Cancelled):  # its client left
                stream.send("fault", 0, ApiError(503, "the model failed; try again", code="engine_failed"))


def _stopping() -> ApiError:
    return ApiError(503, "the server stops", code="stopping")
