"""Base class of action formats."""

from collections.abc import Sequence
from typing import Any, ClassVar

from vilasr_jax.drawing.actions import ParsedTurn
from vilasr_jax.drawing.prompts import PromptSet, Size, index_text
from vilasr_jax.drawing.tools import Tool


class ActionFormat:
    """A form in which a model writes actions and reads their results."""

    id: ClassVar[str]  # what settings and records call it
    first: ClassVar[int] = 1  # by which calls name the first image; words count from 1
    index_name: ClassVar[str] = "image"  # what errors call that number

    def check(self, prompts: PromptSet, tools: Sequence[Tool], side: int | None) -> None:
        """Raises ConfigError for words that do not fit the tools, or the unit of coordinates."""

    def system(
        self, prompts: PromptSet, tools: Sequence[Tool], sizes: Sequence[Size], video: bool, side: int | None
    ) -> str:
        """The system prompt, for images of these sizes (width, height); `side` is that of `in_units`."""
        raise NotImplementedError

    def index_text(self, prompts: PromptSet, number: int, size: Size, drawn: bool = False) -> str:
        """The line after image `number` (from 1), given or drawn."""
        return index_text(prompts, number, size, drawn)

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
