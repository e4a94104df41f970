"""The web application: the chat completions API, the page, and their access checks."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from importlib.resources import files
from typing import Any, TypeVar

from absl import logging
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from vilasr_jax.serve.limits import ApiError, Limits
from vilasr_jax.serve.middleware import Gate
from vilasr_jax.serve.replies import BETWEEN, Replies, picture, turn_markdown, turn_record
from vilasr_jax.serve.requests import ANSWER_ONLY, MARKDOWN, read_chat_request
from vilasr_jax.serve.worker import Event, Stream, Worker

PAGE = {
    "/": ("vilasr_jax.serve", "page.html", "text/html"),
    "/page.js": ("vilasr_jax.serve", "page.js", "text/javascript"),
    "/page.css": ("vilasr_jax.serve", "page.css", "text/css"),
    "/theme.js": ("vilasr_jax.report", "theme.js", "text/javascript"),
    "/dom.js": ("vilasr_jax.report", "dom.js", "text/javascript"),
    "/turns.js": ("vilasr_jax.report", "turns.js", "text/javascript"),
    "/style.css": ("vilasr_jax.report", "style.css", "text/css"),
}
GUARDS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' data: blob:; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}

T = TypeVar("T")
LIVE = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}  # no proxy may hold a stream back


def make_app(
    worker: Worker,
    name: str,
    *,
    limits: Limits | None = None,
    token: str = "",
    hosts: Sequence[str] = ("*",),
    samples: Sequence[dict[str, Any]] = (),
    cors: Sequence[str] = (),
) -> Starlette:
    """The application around a started worker.

    Args:
      worker: answers the requests.
      name: the model's name; `NAME:answer` gives the bare answer as content, `NAME:markdown` Markdown with
        the drawn pictures.
      limits: of a request.
      token: what clients must send as `Authorization: Bearer TOKEN`; "" for none.
      hosts: host names under which it may be reached ("*": any).
      samples: questions the page offers, each {"question", "options", "image": a data URL}.
      cors: origins whose pages may call the API, such as "https://chat.example" ("*": any).
    """
    return _Server(worker, name, limits or Limits(), token, samples).app(hosts, cors)


class _Server:
    def __init__(self, worker: Worker, name: str, limits: Limits, token: str, samples: Sequence[dict]):
        self.worker, self.limits, self.token, self.samples = worker, limits, token, list(samples)
        self.models = (name, name + ANSWER_ONLY, name + MARKDOWN)

    def app(self, hosts: Sequence[str], cors: Sequence[str]) -> Starlette:
        routes = [Route(path, self.page) for path in PAGE]
        routes += [
            Route("/v1/models", self.list_models),
            Route("/v1/models/{model}", self.one_model),
            Route("/v1/chat/completions", self.complete, methods=["POST"]),
            Route("/samples", self.list_samples),
            Route("/health", self.health),
        ]
        handlers: dict[Any, Callable[..., Awaitable[Response]]]  # each gets errors of its own class
        handlers = {
            ApiError: _refuse,
            HTTPException: _refuse_http,
            ClientDisconnect: _gone,
            Exception: _fault,
        }
        middleware = [Middleware(Gate, hosts=hosts)]
        if cors:
            headers, methods = ("Authorization", "Content-Type"), ("GET", "POST")
            middleware.append(
                Middleware(CORSMiddleware, allow_origins=cors, allow_methods=methods, allow_headers=headers)
            )
        return Starlette(routes=routes, middleware=middleware, exception_handlers=handlers)

    async def page(self, request: Request) -> Response:
        package, name, kind = PAGE[request.url.path]
        text = files(package).joinpath("assets", name).read_text(encoding="utf-8")
        return Response(text, media_type=kind, headers=GUARDS)

    async def health(self, request: Request) -> Response:
        most = self.limits.slots + self.limits.waiting
        return _json({"status": "ok", "conversations": self.worker.busy, "most": most})

    async def list_samples(self, request: Request) -> Response:
        self.check_token(request)
        limits = {
            "images": self.limits.images,
            "pixels": self.limits.image_pixels,
            "bytes": self.limits.body_bytes,
        }
        return _json({"samples": self.samples, "limits": limits})

    async def list_models(self, request: Request) -> Response:
        self.check_token(request)
        return _json({"object": "list", "data": [_model(name) for name in self.models]})

    async def one_model(self, request: Request) -> Response:
        self.check_token(request)
        name = request.path_params["model"]
        if name not in self.models:
            raise ApiError(404, f"no model {name[:80]!r} here", param="model", code="model_not_found")
        return _json(_model(name))

    async def complete(self, request: Request) -> Response:
        self.check_token(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise ApiError(415, "send the request as Content-Type: application/json")
        body = await self.read_body(request)
        chat = await asyncio.to_thread(read_chat_request, body, self.models, self.limits)
        del body
        stream = await self.worker.submit(chat)
        chat = stream.chat  # without its images
        events = stream.events(self.limits.seconds)
        if chat.stream:
            lines = server_sent(Replies(chat, self.worker.cut), events)
            after = BackgroundTask(stream.close, "its client left")  # perhaps before the first line
            return StreamingResponse(lines, media_type="text/event-stream", headers=LIVE, background=after)
        ended = await while_connected(request, all_ended(stream, events))
        return _json(await asyncio.to_thread(Replies(chat, self.worker.cut).reply, ended))

    async def read_body(self, request: Request) -> bytes:
        """The request's body, if it is small enough and comes soon enough."""
        parts, size = [], 0
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                async for part in request.stream():
                    size += len(part)
                    if size > self.limits.body_bytes:
                        most = f"{self.limits.body_bytes / 2**20:g} MiB"
                        message = f"the request is larger than {most}; send smaller images"
                        raise ApiError(413, message, code="too_large")
                    parts.append(part)
        except TimeoutError:
            raise ApiError(408, "the request's body did not arrive in time") from None
        return b"".join(parts)

    def check_token(self, request: Request) -> None:
        if not self.token:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(given.strip().encode(), self.token.encode())
        if scheme.lower() != "bearer" or not same:
            raise ApiError(
                401, "send the server's token: Authorization: Bearer TOKEN", code="invalid_api_key"
            )


async def all_ended(stream: Stream, events: AsyncGenerator[Event]) -> list[Any]:
    """The trajectories in the order of their samples."""
    ended: dict[int, Any] = {}
    async with contextlib.aclosing(events):
        async for event in events:
            if event.kind == "end":
                ended[event.sample] = event.value
    return [ended[n] for n in range(stream.chat.samples)]


async def while_connected(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled at once when the client leaves.

    Raises:
      ClientDisconnect: it has left.
    """

    async def left() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    working, leaving = asyncio.ensure_future(work), asyncio.ensure_future(left())
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def server_sent(replies: Replies, events: AsyncGenerator[Event]) -> AsyncIterator[str]:
    """A request's events as server-sent chunks; an error after the first one is a chunk of its own."""
    chat, ended = replies.chat, []
    turns = [0] * chat.samples  # sent so far
    new = [True] * chat.samples  # whether a turn is about to begin
    try:
        async with contextlib.aclosing(events):
            for sample in range(chat.samples):
                yield _line(replies.chunk(sample, {"role": "assistant", "content": ""}))
            async for kind, sample, value in events:
                if kind == "tokens" and not (chat.answer_only or chat.markdown):
                    text = (BETWEEN if new[sample] and turns[sample] else "") + value
                    new[sample] = False
                    yield _line(replies.chunk(sample, {"content": text}))
                elif kind == "turn":
                    turn, drawn = value
                    turns[sample] += 1
                    new[sample] = True
                    pairs = list(zip(turn["drawn"], drawn, strict=True))
                    images = await asyncio.to_thread(_pictures, pairs)
                    delta: dict[str, Any] = {"turn": turn_record(turns[sample], turn), "images": images}
                    if chat.markdown:
                        text = turn_markdown(turn, images)
                        delta = {"content": text if turns[sample] == 1 else BETWEEN + text}
                    yield _line(replies.chunk(sample, delta))
                elif kind == "end":
                    ended.append(value)
                    yield _line(replies.last_chunk(sample, value))
        if chat.include_usage:
            yield _line(replies.usage_chunk(ended))
        yield "data: [DONE]\n\n"
    except ApiError as error:
        yield _line(error.body())


def _pictures(pairs: list[tuple[Any, Any]]) -> list[Any]:
    return [picture(*pair) for pair in pairs]


def _line(value: dict[str, Any]) -> str:
    return f"data: {json.dumps(value, separators=(',', ':'))}\n\n"


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "vilasr_jax"}


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(json.dumps(value), status, headers, "application/json")


async def _refuse(request: Request, error: ApiError) -> Response:
    headers = {429: {"Retry-After": "2"}, 401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "5"}}
    return _json(error.body(), error.status, headers=headers.get(error.status))


async def _refuse_http(request: Request, error: HTTPException) -> Response:
    message = {404: f"there is nothing at {request.url.path[:80]}", 405: "that method is not allowed here"}
    refusal = ApiError(error.status_code, message.get(error.status_code, error.detail))
    return _json(refusal.body(), error.status_code, headers=error.headers)


async def _gone(request: Request, error: ClientDisconnect) -> Response:
    return Response(status_code=499)  # nobody reads it


async def _fault(request: Request, error: Exception) -> Response:
    logging.error("request to %s failed", request.url.path, exc_info=error)
    return _json(ApiError(500, "a fault of the server; its log says more").body(), 500)
