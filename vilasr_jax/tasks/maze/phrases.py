"""Training data of the tiny tokenizer for mazes: constant phrases, and sample texts with every integer."""

import random
from collections.abc import Iterator
from dataclasses import replace

from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.drawing.prompts import PROMPTS, get_prompts
from vilasr_jax.tasks.maze import generate, perception, traces
from vilasr_jax.tasks.maze.generate import make_maze_row
from vilasr_jax.tasks.maze.maze import STEPS
from vilasr_jax.tasks.maze.perception import KINDS, perception_example
from vilasr_jax.tasks.maze.spec import MazeSpec
from vilasr_jax.tasks.replay import replay
from vilasr_jax.tasks.tokenizer_phrases import ERRORS, SHORT, common_phrases, longest_first, message_texts
from vilasr_jax.tasks.trace_text import LINE_PIECES

PHRASES = (
    *LINE_PIECES,
    traces.OPEN,
    traces.WALL,
    traces.ENDS_AT,
    generate.MOVES_START,
    generate.MOVES_END,
    perception.MARKS,
    perception.RING,
    perception.RING_MOVES,
    perception.CELL_MOVES,
    "start",
    "none",
    *(f" {step}" for step in STEPS),
)


def template_phrases(settings: DrawingSettings = SHORT) -> list[str]:
    """Constant phrases of a maze conversation, longest first. No phrase holds a number that varies."""
    return longest_first({*common_phrases(settings), *PHRASES})


def corpus(
    spec: MazeSpec, settings: DrawingSettings = SHORT, *, largest_grid: int = 8, rows: int = 64
) -> Iterator[str]:
    """Sample texts, with every integer a maze of up to `largest_grid` needs: centres, sides, numbers."""
    centres = {
        settings.written((x,), (grid * spec.cell,) * 2)[0]
        for grid in range(2, largest_grid + 1)
        for x in range(spec.cell // 2, grid * spec.cell, spec.cell)
    }
    sides = range(spec.cell * 2, (largest_grid + 1) * spec.cell, spec.cell)
    numbers = range(0, max(64, settings.max_images + 1))
    for number in sorted({*centres, *sides, *numbers}):
        yield str(number)
    yield from ERRORS
    yield get_prompts(settings.prompt).final
    text_only = replace(settings, draw=False)
    rng = random.Random(0)
    for seed in range(rows):
        row = make_maze_row(spec, seed)
        yield from message_texts(replay(traces.expert_trace(row, rng, slip=seed % 2 == 0), settings))
        yield from message_texts(replay(traces.text_trace(row), text_only))
        yield from message_texts(perception_example(spec, seed, settings, (KINDS[seed % len(KINDS)],)))
    for variant in PROMPTS:
        session = make_maze_row(spec, 0).session(DrawingSettings(prompt=variant))
        yield from message_texts(session.messages)
