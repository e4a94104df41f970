"""Training data of the tiny tokenizer: the constant phrases of every conversation, and sample texts."""

import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from vilasr_jax.drawing import DrawingSettings, get_tools
from vilasr_jax.drawing.prompts import PROMPTS, get_prompts, system_text
from vilasr_jax.tasks.replay import replay
from vilasr_jax.tasks.trace_text import PIECES

SHORT = DrawingSettings(prompt="short")
LETTERS = "ABCD"
ERRORS = ("the json can't be read", "item ", "there is no image ", "the line starts where it ends")
_SIDE = 999_999  # placeholder of an image's side, which is cut out of the system prompt


def common_phrases(settings: DrawingSettings = SHORT) -> set[str]:
    """Constant phrases of any task's conversation. None holds a number that varies."""
    prompts = get_prompts(settings.prompt)
    phrases = {*PIECES, *ERRORS, *LETTERS}
    phrases.add(prompts.choices.format(options=", ".join(LETTERS)) + prompts.suffixes["multiple choice"])
    for tools in (get_tools(settings.tools), ()):
        phrases |= set(system_text(prompts, tools, [(_SIDE, _SIDE)], False).split(str(_SIDE)))
    for template in (prompts.index, prompts.question, prompts.error, prompts.drawn, prompts.final):
        phrases |= set(re.split(r"\{[a-z]+\}", template))
    return phrases - {""}


def longest_first(phrases: Iterable[str]) -> list[str]:
    """Each phrase once, longest first."""
    return sorted({phrase for phrase in phrases if phrase}, key=lambda phrase: (-len(phrase), phrase))


def sample_texts(family: Any, spec: Any, settings: DrawingSettings, rows: int = 64) -> Iterator[str]:
    """Texts of a family's conversations: expert traces, controls, perception, prompts."""
    text_only = replace(settings, draw=False)
    rng = random.Random(0)
    for seed in range(rows):
        row = family.row(spec, seed)
        yield from message_texts(replay(family.expert_trace(row, rng, seed % 2 == 0), settings))
        yield from message_texts(replay(family.text_trace(row), text_only))
        yield from message_texts(family.perception(spec, seed, settings) or ())
    for variant in PROMPTS:
        session = family.row(spec, 0).session(DrawingSettings(prompt=variant))
        yield from message_texts(session.messages)


def message_texts(messages: Iterable[dict[str, Any]]) -> Iterator[str]:
    """Every text part of a conversation."""
    for message in messages:
        for part in message["content"]:
            if part["type"] == "text":
                yield part["text"]
