"""Twenty thousand hostile turns through parser, overlay and renderer: no exception, bounded time."""

import random
import statistics
import time

import pytest
from PIL import Image

from vilasr_jax.drawing import TOOLS, DrawingSession, DrawingSettings, get_tools, parse_actions

TURNS = [
    "<think> a </think> Action: Object Mapper\n```json\n"
    '[{"index": 1, "bbox_2d": [10, 20, 90, 40], "label": "x"}]\n```',
    "<think> b </think> Action: Path Tracer\n```json\n"
    '[{"index": 2, "start_point_2d": [14, 42], "end_point_2d": [42, 70], "label": "1"}]\n```',
    '<think> c </think> Action: Zoom\n```json\n{"index": 1, "bbox_2d": [0, 0, 60, 60], "label": "z"}\n```',
    '<think> d </think> Action: Erase\n```json\n{"index": 1, "label": "x"}\n```',
    "<think> e </think> Action: Answer\n<answer> B </answer>",
]
BITS = [
    *"[]{}()<>\"'`,:;-+.\\|/0123456789eE \n\t\x00\x1b\u202e\u200f\ufeff\ud800\U0001f600אب",
    *[
        "NaN",
        "-Infinity",
        "1e308",
        "1e-308",
        "9" * 400,
        "null",
        "True",
        "```json",
        "```",
        "</think>",
        "<answer>",
    ],
    *[
        "<|im_end|>",
        "<|image_pad|>",
        "<|vision_start|>",
        '"index": 1',
        '"label": "',
        "{{}}",
        "%s",
        "\\u0000",
        "\\ud83d",
    ],
]


def mutate(text: str, rng: random.Random) -> str:
    for _ in range(rng.randint(1, 8)):
        at = rng.randint(0, len(text))
        kind = rng.random()
        if kind < 0.5:
            text = (
                text[:at] + rng.choice(BITS) * rng.choice([1, 1, 1, 2, 50]) + text[at + rng.randint(0, 6) :]
            )
        elif kind < 0.7:
            text = text[:at] + text[at + rng.randint(1, 40) :]
        elif kind < 0.9:
            text = text[:at] + text[rng.randint(0, at) : at] * rng.randint(1, 3) + text[at:]
        else:
            text += rng.choice(TURNS)
    return text[:20_000]


def fuzz(count: int, seed: int) -> list[float]:
    rng, tools, times = random.Random(seed), get_tools(tuple(TOOLS)), []
    for _ in range(count):
        text = mutate(rng.choice(TURNS), rng)
        start = time.perf_counter()
        parse_actions(text, tools)
        times.append(time.perf_counter() - start)
    return times


def converse(count: int, seed: int) -> None:
    rng, image = random.Random(seed), Image.new("RGB", (84, 56), "white")
    for number in range(count):
        style = ("clear", "published", "maze")[number % 3]
        settings = DrawingSettings(tools=tuple(TOOLS), style=style, max_images=6, stop_on_repeat=False)
        session = DrawingSession([image], "?", settings=settings)
        while not session.step(mutate(rng.choice(TURNS), rng)).done:
            assert len(session.images) <= 6


def test_some():
    times = fuzz(1000, seed=0)
    converse(100, seed=1)
    assert statistics.median(times) < 0.005


@pytest.mark.slow
def test_twenty_thousand():
    times = fuzz(20_000, seed=2)
    converse(2_000, seed=3)
    assert statistics.median(times) < 0.005 and max(times) < 0.1
