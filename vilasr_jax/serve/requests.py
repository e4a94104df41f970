"""Reads a chat completion request: what the client asks for, or the 4xx that says why not."""

from __future__ import annotations

import base64
import binascii
import io
import json
import math
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from vilasr_jax.errors import ImageError
from vilasr_jax.processing import load_image, smart_resize
from vilasr_jax.serve.limits import ApiError, Limits

ANSWER_ONLY = ":answer"  # after a model's name: `content` is the bare answer
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
# What would change the answer if it were ignored, and the values that ask for nothing.
REFUSED: dict[str, tuple] = {
    "audio": (None,),
    "frequency_penalty": (None, 0),
    "function_call": (None, "none"),
    "functions": (None, []),
    "logit_bias": (None, {}),
    "logprobs": (None, False),
    "presence_penalty": (None, 0),
    "response_format": (None, {"type": "text"}),
    "stop": (None, []),
    "tool_choice": (None, "none", "auto"),
    "tools": (None, []),
    "top_logprobs": (None, 0),
}


@dataclass(frozen=True)
class Ask:
    """One request, checked.

    Attributes:
      model: the name the client used.
      images: RGB, as sent.
      question, options: what is asked.
      samples: conversations wanted (`n`).
      temperature, top_p: None where the server's own are to be used.
      max_tokens: sampled tokens of a conversation; None: the server's limit.
      seed: of the first sample.
      stream, include_usage: how to answer.
    """

    model: str
    images: tuple[Image.Image, ...]
    question: str
    options: tuple[str, ...] = ()
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


def read_ask(body: bytes, models: Sequence[str], limits: Limits) -> Ask:
    """Reads a request's body.

    Raises:
      ApiError: 400 with the field that is wrong, 404 for a model that is not served.
    """
    value = _json(body)
    if not isinstance(value, dict):
        raise ApiError(400, "the body must be a JSON object", code="invalid_json")
    model = _field(value, "model", str, models[0])
    if model not in models:
        message = f"no model {model[:80]!r} here; there are: {', '.join(models)}"
        raise ApiError(404, message, param="model", code="model_not_found")
    for name, idle in REFUSED.items():
        if value.get(name) not in idle:
            message = f"{name} is not supported; leave it out"
            raise ApiError(400, message, param=name, code="unsupported_parameter")
    images, question = _messages(value.get("messages"), limits)
    options = value.get("options") or []
    if not isinstance(options, list) or not all(isinstance(o, str) and o.strip() for o in options):
        raise ApiError(400, "options must be a list of strings, the choices", param="options")
    if len(options) > limits.options or sum(map(len, options)) > limits.text:
        raise ApiError(400, f"more than {limits.options} options, or too long ones", param="options")
    tokens = value.get("max_completion_tokens")
    name = "max_tokens" if tokens is None else "max_completion_tokens"
    stream = bool(_field(value, "stream", bool, False))
    extra = _field(value, "stream_options", dict, {})
    return Ask(
        model=model,
        images=images,
        question=question,
        options=tuple(_clean(option) for option in options),
        samples=_number(value, "n", 1, limits.samples, whole=True) or 1,
        temperature=_number(value, "temperature", 0, 2),
        top_p=_number(value, "top_p", 1e-6, 1),
        max_tokens=_number(value, name, 1, 1 << 30, whole=True),
        seed=_seed(value),
        stream=stream,
        include_usage=stream and extra.get("include_usage") is True,
    )


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        line = "too deeply nested" if isinstance(error, RecursionError) else " ".join(str(error).split())
        raise ApiError(400, f"the body is no JSON ({line[:120]})", code="invalid_json") from None


def _field(value: dict, name: str, kind: type, default: Any) -> Any:
    got = value.get(name)
    if got is None:
        return default
    if not isinstance(got, kind):
        raise ApiError(400, f"{name} must be a {kind.__name__}", param=name)
    return got


def _number(value: dict, name: str, low: float, high: float, whole: bool = False) -> Any:
    got = value.get(name)
    if got is None:
        return None
    kinds = int if whole else (int, float)
    if not isinstance(got, kinds) or isinstance(got, bool) or not low <= got <= high or math.isnan(got):
        kind = "whole number" if whole else "number"
        raise ApiError(400, f"{name} must be a {kind} from {low:g} to {high:g}", param=name)
    return got


def _seed(value: dict) -> int:
    got = _field(value, "seed", int, None)
    return secrets.randbelow(1 << 30) if got is None or isinstance(got, bool) else got % (1 << 30)


def _messages(messages: Any, limits: Limits) -> tuple[tuple[Image.Image, ...], str]:
    """The images and the question of the one user message; system texts stand before the question."""
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "messages must be a list with one user message", param="messages")
    images: list[Image.Image] = []
    words: list[str] = []
    users = 0
    for at, message in enumerate(messages):
        where = f"messages[{at}]"
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("system", "developer", "user"):
            told = "the model answers one question at a time, so earlier turns can't be given"
            hint = told if role in ("assistant", "tool", "function") else "role must be system or user"
            raise ApiError(400, f"{where}: {hint}", param=where)
        users += role == "user"
        for number, part in enumerate(_parts(message.get("content"), where)):
            here = f"{where}.content[{number}]"
            if isinstance(part, str):
                words.append(part)
            elif role != "user":
                raise ApiError(400, f"{here}: only a user message may hold images", param=here)
            elif len(images) == limits.images:
                raise ApiError(400, f"{here}: more than {limits.images} images", param=here)
            else:
                images.append(_image(part, here, limits))
    question = "\n".join(_clean(word) for word in words if word.strip())
    if users != 1:
        raise ApiError(400, f"there are {users} user messages; give exactly one", param="messages")
    if not images:
        raise ApiError(400, "the user message holds no image; add an image_url part", param="messages")
    if not question:
        raise ApiError(400, "the user message holds no text; add a question", param="messages")
    if len(question) > limits.text:
        raise ApiError(400, f"the question has more than {limits.text} characters", param="messages")
    return tuple(images), question


def _parts(content: Any, where: str) -> list[str | dict]:
    """The texts, and the `image_url` objects, of a message."""
    if isinstance(content, str):
        return [content]
    if not isinstance(content, list):
        raise ApiError(400, f"{where}.content must be a text or a list of parts", param=f"{where}.content")
    parts: list[str | dict] = []
    for number, part in enumerate(content):
        here = f"{where}.content[{number}]"
        kind = part.get("type") if isinstance(part, dict) else None
        if kind == "text" and isinstance(part.get("text"), str):
            parts.append(part["text"])
        elif kind == "image_url" and isinstance(part.get("image_url"), dict):
            parts.append(part["image_url"])
        else:
            raise ApiError(400, f"{here}: expected a text or an image_url part", param=here)
    return parts


def _image(part: dict, here: str, limits: Limits) -> Image.Image:
    url = part.get("url")
    if not isinstance(url, str):
        raise ApiError(400, f"{here}: image_url.url is missing", param=here)
    if not url.startswith("data:"):
        hint = "this server loads nothing from elsewhere; send the image itself as data:image/png;base64,..."
        raise ApiError(400, f"{here}: {hint}", param=here, code="remote_image")

    def bad(words: str) -> ApiError:
        return ApiError(400, f"{here}: {words}", param=here, code="invalid_image")

    head, comma, data = url.partition(",")
    if not comma or not head.endswith(";base64"):
        raise bad("expected data:image/...;base64,...")
    try:
        raw = base64.b64decode(data.encode("ascii", "replace"), validate=True)
        with Image.open(io.BytesIO(raw), formats=FORMATS) as opened:
            width, height = opened.size
        if width * height > limits.image_pixels:
            raise ImageError(f"{width} x {height} px are more than {limits.image_pixels:,} pixels; shrink it")
        image = load_image(raw)
        smart_resize(image.height, image.width)
    except binascii.Error:
        raise bad("its base64 is broken") from None
    except ImageError as error:
        raise bad(str(error)) from None
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError):
        raise bad(f"no image that can be read ({', '.join(FORMATS)})") from None
    return image


def _clean(text: str) -> str:
    """Text that can be encoded: JSON lets half a surrogate pair through."""
    return text.encode("utf-8", "replace").decode().strip()
