"""What the tiny tokenizer learns from: constant phrases, and sample texts with every integer."""

import random
import re
from collections.abc import Iterator
from typing import Any

from vilasr_jax.drawing import DrawingSettings, get_tools
from vilasr_jax.drawing.prompts import PROMPTS, get_prompts, system_text
from vilasr_jax.tasks.maze import generate, perception, traces
from vilasr_jax.tasks.maze.generate import LETTERS, STEPS, make_maze_row
from vilasr_jax.tasks.maze.perception import KINDS, perception_example
from vilasr_jax.tasks.maze.spec import MazeSpec
from vilasr_jax.tasks.replay import replay

_SHORT = DrawingSettings(prompt="short")
_SIDE = 999_999  # stands for an image's side, which is cut out of the system prompt
_ERROR_PHRASES = ("the json can't be read", "item ", "there is no image ", "the line starts where it ends")


def template_phrases(settings: DrawingSettings = _SHORT) -> list[str]:
    """Constant phrases of a maze conversation, longest first. No phrase holds a number that varies."""
    prompts = get_prompts(settings.prompt)
    phrases = {
        traces.OPEN_THINK, traces.GOOD, traces.WRONG, traces.OPEN, traces.WALL, traces.DRAW, traces.START,
        traces.END, traces.LABEL, traces.CLOSE, traces.ENDS_AT, traces.ANSWER, traces.CLOSE_ANSWER,
        perception.MARKS, perception.RING, perception.RING_MOVES, perception.CELL_MOVES, "start", "none",
        generate.ASK_MOVES, generate.ASK_END, ", ", "[", " [", ": [", "]", "], ", "]. ", "\n",
        "system\n", "user\n", "assistant\n", *_ERROR_PHRASES,
    }  # fmt: skip
    phrases |= {f" {step}" for step in STEPS} | set(LETTERS)
    phrases.add(prompts.choices.format(options=", ".join(LETTERS)) + prompts.suffixes["multiple choice"])
    for tools in (get_tools(settings.tools), ()):
        phrases |= set(system_text(prompts, tools, [(_SIDE, _SIDE)], False).split(str(_SIDE)))
    for template in (prompts.index, prompts.question, prompts.error, prompts.drawn, prompts.final):
        phrases |= set(re.split(r"\{[a-z]+\}", template))
    return sorted((phrase for phrase in phrases if phrase), key=lambda phrase: (-len(phrase), phrase))


def corpus(
    spec: MazeSpec, settings: DrawingSettings = _SHORT, *, largest_grid: int = 8, rows: int = 64
) -> Iterator[str]:
    """Sample texts, with every integer a maze of up to `largest_grid` needs: centres, sides, numbers."""
    centres = range(spec.cell // 2, largest_grid * spec.cell, spec.cell)
    sides = range(spec.cell * 2, (largest_grid + 1) * spec.cell, spec.cell)
    numbers = range(0, max(64, settings.max_images + 1))
    for number in sorted({*centres, *sides, *numbers}):
        yield str(number)
    yield from _ERROR_PHRASES
    yield get_prompts(settings.prompt).final
    text_only = DrawingSettings(prompt=settings.prompt, draw=False)
    rng = random.Random(0)
    for seed in range(rows):
        row = make_maze_row(spec, seed)
        yield from message_texts(replay(traces.expert_trace(row, rng, slip=seed % 2 == 0), settings))
        yield from message_texts(replay(traces.text_trace(row), text_only))
        yield from message_texts(perception_example(spec, seed, settings, (KINDS[seed % len(KINDS)],)))
    for variant in PROMPTS:
        session = make_maze_row(spec, 0).session(DrawingSettings(prompt=variant))
        yield from message_texts(session.messages)


def message_texts(messages: list[dict[str, Any]]) -> Iterator[str]:
    """Every text part of a conversation."""
    for message in messages:
        for part in message["content"]:
            if part["type"] == "text":
                yield part["text"]
