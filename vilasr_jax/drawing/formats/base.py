"""Base class of action formats."""

from collections.abc import Sequence
from typing import Any, ClassVar

from vilasr_jax.drawing.actions import ParsedTurn
from vilasr_jax.drawing.prompts import PromptSet, Size
from vilasr_jax.drawing.tools import Tool


class ActionFormat:
    """A form in which a model writes actions and reads their results."""

    id: ClassVar[str]  # what settings and records call it
    first: ClassVar[int] = 1  # the number of a conversation's first image

    def check(self, prompts: PromptSet, tools: Sequence[Tool], side: int | None) -> None:
        """Raises ConfigError for words that do not fit the tools, or the unit of coordinates."""

    def system(
        self, prompts: PromptSet, tools: Sequence[Tool], sizes: Sequence[Size], video: bool, side: int | None
    ) -> str:
        """The system prompt, for images of these sizes (width, height); `side` is that of `in_units`."""
        raise NotImplementedError

    def parse(self, text: str, tools: Sequence[Tool], given: int = 1) -> ParsedTurn:
        """Parses one assistant turn about `given` images, which decides whether a call has to name one.

        Never raises; time and memory are linear in `MAX_TEXT` at most.
        """
        raise NotImplementedError

    def reply(self, result: Sequence[Any], words: Any) -> list[Any]:
        """The parts of the user turn after an action: what it gave back, then the words that end the turn."""
        return [*result, words]

    def write(self, text: str, tools: Sequence[Tool]) -> str:
        """A turn of the published form in this one."""
        return text
