"""Limits of a server, and the error of a refused request."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds on one request and on all requests at once, and what is done with earlier turns."""

    slots: int = 8  # conversations answered at once
    max_tokens: int = 0  # of a conversation, its prompt included; 0: as the model's settings say
    waiting: int = 24  # conversations that may wait for a slot; one more is refused with 429
    seconds: float = 300.0  # for a request, waiting included
    body_bytes: int = 24 << 20
    body_seconds: float = 30.0  # until a body has arrived
    images: int = 4  # a request, such as the frames of a video
    history: str = "refuse"  # earlier turns of a chat, see `history.one_question`
    image_pixels: int = 40_000_000  # of one image as sent; it is shrunk for the model
    text: int = 4_000  # characters of the question
    options: int = 26
    samples: int = 8  # `n`


class ApiError(Exception):
    """A refused request; its body has the shape that OpenAI clients read.

    Attributes:
      status: the HTTP status, 4xx or 5xx.
      message: what was wrong and what to do, one line.
      param: the field it is about.
      code: a short name of the case, for programs.
    """

    def __init__(self, status: int, message: str, *, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def body(self) -> dict:
        """`{"error": {...}}`."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        kind = "rate_limit_error" if self.status == 429 else kind
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}
