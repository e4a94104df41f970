"""Encodes conversations as token ids: the ChatML template, with a mask of the assistant's tokens.

Messages are Hugging Face's: `{"role": "system" | "user" | "assistant", "content": str | [part, ...]}`, a part
being `{"type": "text", "text": str}` or `{"type": "image", "image": PIL.Image}` (RGB, already resized).
A message is

    <|im_start|>role\\n ... <|im_end|>\\n

and nothing is added to its text: a trailing line break is the message's own. Assistant text is tokenised by
itself, so that a conversation's ids are exactly its prompt, the assistant's ids and the turns between them,
joined.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from vilasr_jax.errors import DataError
from vilasr_jax.models.family import Grid
from vilasr_jax.processing.images import image_grid
from vilasr_jax.processing.tokenizer import SpecialTokens, Tokenizer


@dataclasses.dataclass(frozen=True)
class Encoded:
    """A conversation, or a piece of one, as ids.

    Attributes:
      ids: [t] int32.
      loss_mask: [t] bool, True where the assistant wrote this token (its `<|im_end|>` included).
      images: the images of the pad tokens in `ids`, in order.
      special: the tokenizer's special tokens and model family; `collate` finds the images' places by them.
      extras: per-token arrays [t] (advantages, logprobs ...), padded with zeros by `collate`.
      grids: frames, patch rows and patch columns of each image; computed here where they are not given.
      replaced: the unusable examples that this one replaces, see `training.row_filter`.
    """

    ids: np.ndarray
    loss_mask: np.ndarray
    images: Sequence[Image.Image]
    special: SpecialTokens
    extras: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    grids: Sequence[Grid] = ()
    replaced: Sequence[Mapping[str, Any]] = ()

    def __post_init__(self):
        if len(self.grids) != len(self.images):
            spec = self.special.family.images
            object.__setattr__(self, "grids", [image_grid(image, spec) for image in self.images])

    def __len__(self) -> int:
        return len(self.ids)


def join(pieces: Sequence[Encoded]) -> Encoded:
    """Concatenates pieces; each must have the same extras."""
    extras = {name: np.concatenate([piece.extras[name] for piece in pieces]) for name in pieces[0].extras}
    return Encoded(
        np.concatenate([piece.ids for piece in pieces]),
        np.concatenate([piece.loss_mask for piece in pieces]),
        [image for piece in pieces for image in piece.images],
        pieces[0].special,
        extras,
        [grid for piece in pieces for grid in piece.grids],
    )


class _Writer:
    """Collects text and special tokens; adjacent text is tokenised as one."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer, self.special = tokenizer, tokenizer.special
        self.chat = tokenizer.special.family.chat
        self.ids: list[int] = []
        self.loss_mask: list[bool] = []
        self.images: list[Image.Image] = []
        self.grids: list[Grid] = []
        self.pending = ""

    def token(self, *ids: int, sampled: bool = False) -> None:
        self.flush()
        self.ids.extend(ids)
        self.loss_mask.extend([sampled] * len(ids))

    def flush(self) -> None:
        if self.pending:
            text, self.pending = self.pending, ""
            self.token(*self.tokenizer.encode(text))

    def body(self, content: str | Sequence[Mapping], where: str) -> None:
        """Text and images of a system or user message."""
        parts: Sequence[Mapping] = (
            [{"type": "text", "text": content}] if isinstance(content, str) else content
        )
        for part in parts:
            if part.get("type") == "text":
                self.pending += part["text"]
            elif part.get("type") == "image":
                spec = self.special.family.images
                grid = image_grid(part["image"], spec)
                self.token(self.special.vision_start)
                self.token(*[self.special.image_pad] * (grid[1] * grid[2] // spec.merge_unit))
                self.token(self.special.vision_end)
                self.images.append(part["image"])
                self.grids.append(grid)
            else:
                raise DataError(f"{where}: a content part is text or image, not {part.get('type')!r}")

    def open(self, role: str) -> None:
        """The start of a message, up to its text."""
        self.token(self.special.im_start)
        self.pending += self.chat.header(role)

    def done(self) -> Encoded:
        self.flush()
        return Encoded(
            np.array(self.ids, np.int32),
            np.array(self.loss_mask, bool),
            self.images,
            self.special,
            grids=self.grids,
        )


def encode_conversation(
    tokenizer: Tokenizer, messages: Sequence[Mapping], *, add_generation_prompt: bool = False
) -> Encoded:
    """Encodes a conversation; the family's default system message is added where there is none.

    Args:
      tokenizer: the model's.
      messages: as in the module's description.
      add_generation_prompt: end with `<|im_start|>assistant\\n`, for the model to continue.

    Raises:
      DataError: an unknown role or content part, or an image in an assistant message.
    """
    writer = _Writer(tokenizer)
    special = tokenizer.special
    default = special.family.default_system
    if default is not None and (not messages or messages[0]["role"] != "system"):
        messages = [{"role": "system", "content": default}, *messages]
    for number, message in enumerate(messages):
        role, where = message["role"], f"message {number}"
        if role not in writer.chat.roles:
            raise DataError(f"{where}: the role is one of {', '.join(writer.chat.roles)}, not {role!r}")
        writer.open(role)
        if role == "assistant":
            writer.flush()
            writer.token(
                *tokenizer.encode(_plain_text(message["content"], where)), special.im_end, sampled=True
            )
        else:
            writer.body(message["content"], where)
            writer.token(special.im_end)
        writer.pending += writer.chat.after_message
    if add_generation_prompt:
        writer.open("assistant")
    return writer.done()


def encode_turn(tokenizer: Tokenizer, message: Mapping, *, closed: bool) -> Encoded:
    """Encodes what is between two assistant turns: the end of one, a user message, the start of the next.

    Args:
      tokenizer: the model's.
      message: the user message.
      closed: the model itself wrote `<|im_end|>`; else (cut off at a limit) it is added here, without loss.

    Raises:
      DataError: not a user message.
    """
    if message["role"] != "user":
        raise DataError(f"a turn answers the assistant with a user message, not {message['role']!r}")
    writer = _Writer(tokenizer)
    special = tokenizer.special
    if not closed:
        writer.token(special.im_end)
    writer.pending += writer.chat.after_message
    writer.open("user")
    writer.body(message["content"], "the user message")
    writer.token(special.im_end)
    writer.pending += writer.chat.after_message
    writer.open("assistant")
    return writer.done()


def _plain_text(content: str | Sequence[Mapping], where: str) -> str:
    if isinstance(content, str):
        return content
    if any(part.get("type") != "text" for part in content):
        raise DataError(f"{where}: an assistant message holds text only")
    return "".join(part["text"] for part in content)
