"""Parses a chat completion request, or raises the 4xx that says what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from vilasr_jax.serve.history import one_question
from vilasr_jax.serve.limits import ApiError, Limits
from vilasr_jax.serve.parameters import check_keys, check_parameters, number, seed, typed
from vilasr_jax.serve.pictures import read_picture

ANSWER_ONLY = ":answer"  # after a model's name: `content` is the bare answer
MARKDOWN = ":markdown"  # after a model's name: `content` is Markdown with the drawn pictures in it
ROLES = ("system", "developer", "user")  # of a question; earlier turns are "user" and "assistant"
TEXT_PARTS = ("text", "input_text")
IMAGE_PARTS = (None, "image_url", "input_image", "image")  # None: some clients write no type
# Fields that are read, or that change no answer; any other one with a value is refused.
MESSAGE_KEYS = ("role", "content", "name", "id")
TEXT_KEYS = ("type", "text", "id", "index", "cache_control")
IMAGE_KEYS = ("type", "image_url", "image", "source", "detail", "id", "index", "cache_control")
URL_KEYS = ("url", "data", "detail", "format", "type", "media_type")
STREAM_KEYS = ("include_usage", "include_obfuscation")
DETAILS = (None, "auto", "high")  # images are read at one size, the server's


@dataclass(frozen=True)
class Picture:
    """An image of a request, not decoded yet.

    Attributes:
      url: as sent.
      here: its place in the request.
      limits: of its pixels.
    """

    url: str
    here: str
    limits: Limits

    def read(self) -> Image.Image:
        """The image in RGB.

        Raises:
          ApiError: 400, it can't be read, or is too large.
        """
        return read_picture(self.url, self.here, self.limits)


@dataclass(frozen=True)
class ChatRequest:
    """One request, checked except for what its images hold.

    Attributes:
      model: the name the client used.
      pictures: in the order in which they were sent.
      question, options: text for the model.
      video: whether the pictures are the frames of a video.
      fps: frames a second of the video; 0: their times are not said.
      captions: the text before each image, where there is more than the question; empty: none.
      samples: conversations wanted (`n`).
      temperature, top_p: None where the server's own are to be used.
      max_tokens: sampled tokens of a conversation, or, of `NAME:answer`, tokens of the answer; None: the
        server's limit.
      seed: of the first sample.
      stream, include_usage: how to answer.
    """

    model: str
    pictures: tuple[Picture, ...]
    question: str
    options: tuple[str, ...] = ()
    captions: tuple[str, ...] = ()
    video: bool = False
    fps: float = 0.0
    samples: int = 1
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    seed: int = 0
    stream: bool = False
    include_usage: bool = False

    @property
    def answer_only(self) -> bool:
        """Whether `content` is to be the bare answer."""
        return self.model.endswith(ANSWER_ONLY)

    @property
    def markdown(self) -> bool:
        """Whether `content` is to be Markdown with pictures."""
        return self.model.endswith(MARKDOWN)

    @property
    def images(self) -> tuple[Image.Image, ...]:
        """The images in RGB, as sent; decoded at each use, with the errors of `Picture.read`."""
        return tuple(picture.read() for picture in self.pictures)


def read_chat_request(body: bytes, models: Sequence[str], limits: Limits) -> ChatRequest:
    """Reads a request's body.

    Raises:
      ApiError: 400 with the field that is wrong, 404 for a model that is not served.
    """
    value = _json(body)
    if not isinstance(value, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_json")
    model = typed(value, "model", str, "") or models[0]
    if model not in models:
        message = f"no model {model[:80]!r} here; there are: {', '.join(models)}"
        raise ApiError(404, message, param="model", code="model_not_found")
    check_parameters(value)
    pictures, captions, question = _messages(one_question(value.get("messages"), limits), limits)
    options = typed(value, "options", list, [])
    if not all(isinstance(o, str) and o.strip() for o in options):
        raise ApiError(400, "options must be a list of strings, the choices", param="options")
    if len(options) > limits.options or sum(map(len, options)) > limits.text:
        raise ApiError(400, f"more than {limits.options} options, or too long ones", param="options")
    video = typed(value, "video", bool, False)
    if video and not pictures:
        raise ApiError(400, "video is true, and there is no image; send its frames as images", param="video")
    tokens = value.get("max_completion_tokens")
    name = "max_tokens" if tokens is None else "max_completion_tokens"
    stream = typed(value, "stream", bool, False)
    extra = typed(value, "stream_options", dict, {})
    check_keys(extra, STREAM_KEYS, "stream_options")
    usage = typed(extra, "include_usage", bool, False)
    return ChatRequest(
        model=model,
        pictures=pictures,
        question=question,
        options=tuple(_clean(option) for option in options),
        captions=captions,
        video=video,
        fps=number(value, "fps", 1e-3, 1e3) or 0.0,
        samples=number(value, "n", 1, limits.samples, integer=True) or 1,
        temperature=number(value, "temperature", 0, 2),
        top_p=number(value, "top_p", 1e-6, 1),
        max_tokens=number(value, name, 1, 1 << 30, integer=True),
        seed=seed(value),
        stream=stream,
        include_usage=stream and usage,
    )


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        line = "too deeply nested" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise ApiError(400, f"the body isn't JSON ({line[:120]})", code="invalid_json") from None


def _messages(messages: Any, limits: Limits) -> tuple[tuple[Picture, ...], tuple[str, ...], str]:
    """The images, the text before each of them and the question; system texts come before the question.

    Several user messages are one question where only one of them holds text, as some clients send an image
    in a message of its own.
    """
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "messages must be a list with one user message", param="messages")
    sent: list[str | Picture] = []  # of the user, in order
    system: list[str] = []
    worded = users = 0
    for at, message in enumerate(messages):
        where = f"messages[{at}]"
        if not isinstance(message, dict):
            raise ApiError(400, f"{where} must be an object with role and content", param=where)
        check_keys(message, MESSAGE_KEYS, where)
        role = message.get("role")
        if role == "assistant" and at == len(messages) - 1 and not message.get("content"):
            continue  # the beginning of an answer, with nothing in it
        if role not in ROLES:
            reason = (
                "the model answers one question at a time, so earlier turns can't be given; a server with "
                "--history=fold or --history=ignore accepts them"
            )
            *known, last = ROLES if limits.history == "refuse" else (*ROLES, "assistant")
            hint = f"role must be {', '.join(known)} or {last}"
            hint = reason if role in ("assistant", "tool", "function") else hint
            raise ApiError(400, f"{where}: {hint}", param=where)
        parts = _parts(message.get("content"), where, limits)
        users += role == "user"
        worded += role == "user" and any(isinstance(part, str) and part.strip() for part in parts)
        for place, part in enumerate(parts):
            here = f"{where}.content[{place}]"
            if isinstance(part, str):
                (sent if role == "user" else system).append(_clean(part))
            elif role != "user":
                raise ApiError(400, f"{here}: only a user message may hold images", param=here)
            elif sum(not isinstance(other, str) for other in sent) == limits.images:
                raise ApiError(400, f"{here}: more than {limits.images} images", param=here)
            else:
                sent.append(part)
    if worded > 1 or not users:
        said = f"there are {users} user messages" + (" with text" if worded > 1 else "")
        raise ApiError(400, f"{said}; give exactly one", param="messages")
    pictures = tuple(part for part in sent if not isinstance(part, str))
    captions, question = _in_order(sent)
    question = "\n".join(text for text in (*system, question) if text)
    if not question and captions:
        reason = (
            "there is no text after the last image, and several come before images: which is the question?"
        )
        raise ApiError(400, f"{reason} Put it last", param="messages")
    if not question:
        raise ApiError(400, "the user message holds no text; add a question", param="messages")
    if len(question) + sum(map(len, captions)) > limits.text:
        raise ApiError(400, f"the question has more than {limits.text} characters", param="messages")
    return pictures, captions, question


def _in_order(sent: Sequence[str | Picture]) -> tuple[tuple[str, ...], str]:
    """The text before each image, and the question: what comes after the last one.

    Where nothing comes after it, and text was sent in one place alone, that is the question: the model reads
    it after its images, wherever it was sent. Of texts in several places none is; the question is empty.
    """
    before: list[list[str]] = [[]]  # one list for each image, and one for the text after the last
    for part in sent:
        if not isinstance(part, str):
            before.append([])
        elif part:
            before[-1].append(part)
    *captions, question = ("\n".join(texts) for texts in before)
    if not question and sum(map(bool, captions)) == 1:
        captions, question = [], "".join(captions)
    return (tuple(captions) if any(captions) else ()), question


def _parts(content: Any, where: str, limits: Limits) -> list[str | Picture]:
    """The texts and images of a message, in the shapes that clients of several APIs send."""
    if content is None:
        return []
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise ApiError(400, f"{where}.content must be a text or a list of parts", param=f"{where}.content")
    parts: list[str | Picture] = []
    for at, part in enumerate(content):
        here = f"{where}.content[{at}]"
        if isinstance(part, str):
            parts.append(part)
            continue
        kind = part.get("type") if isinstance(part, dict) else ""
        url = _url(part, here) if kind in IMAGE_PARTS else None
        if kind in TEXT_PARTS and isinstance(part.get("text"), str):
            check_keys(part, TEXT_KEYS, here)
            parts.append(part["text"])
        elif url is not None:
            parts.append(Picture(url, here, limits))
        elif kind == "image_url":
            raise ApiError(400, f"{here}: image_url.url is missing", param=here)
        else:
            raise ApiError(400, f"{here}: expected a text or an image_url part", param=here)
    return parts


def _url(part: dict, here: str) -> str | None:
    """The data URL of an image's part; None where there is none.

    Raises:
      ApiError: 400, a field of the part is not supported.
    """
    check_keys(part, IMAGE_KEYS, here)
    named = [name for name in ("image_url", "image", "source") if part.get(name)]
    if len(named) > 1:
        raise ApiError(400, f"{here}: {' and '.join(named)} in one part; give one", param=here)
    given, details = (part[named[0]] if named else None), [part.get("detail")]
    if isinstance(given, dict):
        check_keys(given, URL_KEYS, f"{here}.{named[0]}")
        details.append(given.get("detail"))
        given = given.get("url") or given.get("data")
    if not all(detail in DETAILS for detail in details):
        raise ApiError(400, f"{here}: detail must be auto or high", param=here, code="unsupported_parameter")
    return given if isinstance(given, str) else None


def _clean(text: str) -> str:
    """Text that can be encoded: JSON lets half a surrogate pair through."""
    return text.encode("utf-8", "replace").decode().strip()
