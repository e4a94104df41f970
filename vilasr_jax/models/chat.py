"""What a model family says about its conversations and its tokenizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True)
class ToolForm:
    """The text by which a model was trained to call functions."""

    system: str  # in the system message; {tools}: a JSON Schema a line
    call: tuple[str, str]  # before and after a call
    result: tuple[str, str]  # before and after what it gives back, in a user message


TOOL_CALLS = ToolForm(
    system=(
        "# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
        "You are provided with function signatures within <tools></tools> XML tags:\n"
        "<tools>\n{tools}\n</tools>\n\n"
        "For each function call, return a json object with function name and arguments within "
        "<tool_call></tool_call> XML tags:\n"
        '<tool_call>\n{"name": <function-name>, "arguments": <args-json-object>}\n</tool_call>'
    ),
    call=("<tool_call>\n", "\n</tool_call>"),
    result=("<tool_response>\n", "\n</tool_response>"),
)


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
      tool_calls: the form of function calls that published weights know; None: they know none.
    """

    marks: Mapping[str, str]
    special_tokens: tuple[str, ...]
    text_tokens: tuple[str, ...]
    split: str
    special_prefix: str
    after_role: str
    after_message: str
    roles: tuple[str, ...] = ("system", "user", "assistant")
    tool_calls: ToolForm | None = None

    def header(self, role: str) -> str:
        """The text between `im_start` and the text of a message."""
        return f"{role}{self.after_role}"
