"""What a model family says about its conversations and its tokenizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class ChatFormat:
    """Special tokens and the text around messages.

    A message is `im_start`, the role and `after_role`, its text, `im_end`, `after_message`; an image is
    `vision_start`, one `image_pad` for each of its tokens, `vision_end`.

    Attributes:
      marks: text of each special token that the program writes or looks for, by field of
        `processing.SpecialTokens` (im_start, im_end, endoftext, vision_start, vision_end, image_pad,
        video_pad).
      special_tokens: all special tokens, in the order of their published ids; the first ends a text.
      text_tokens: added tokens that are ordinary text.
      split: regular expression (Oniguruma) that cuts text into words, for folders with vocab.json alone.
      special_prefix: how a special token begins that a folder lists without saying that it is special.
      after_role: text between a role and its message.
      after_message: text between the end of a message and the next.
      roles: that may write a message.
    """

    marks: Mapping[str, str]
    special_tokens: tuple[str, ...]
    text_tokens: tuple[str, ...]
    split: str
    special_prefix: str
    after_role: str
    after_message: str
    roles: tuple[str, ...] = ("system", "user", "assistant")

    def header(self, role: str) -> str:
        """The text between `im_start` and the text of a message."""
        return f"{role}{self.after_role}"
