"""Hostile turns through parser, overlay and renderer: no exception, bounded time and memory."""

import random
import statistics
import time
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from vilasr_jax.drawing import TOOLS, DrawingSession, DrawingSettings, get_tools, parse_actions
from vilasr_jax.drawing.actions import MAX_ERRORS, MAX_ITEMS
from vilasr_jax.tasks.maze import MazeSpec, expert_trace, make_maze_row

BOX = '{"index": 1, "bbox_2d": [10, 20, 90, 40], "label": "x"}'


def turn(items: str, action: str = "Object Mapper") -> str:
    return f"<think> so </think> Action: {action}\n```json\n{items}\n```"


REAL = [
    turn(f"[{BOX}]"),
    turn('{"index": 1, "bbox_2d": [0, 0, 60, 60], "label": "z"}', "Zoom"),
    turn('{"index": 1, "label": "x"}', "Erase"),
    *(
        text
        for seed in range(12)
        for text in expert_trace(make_maze_row(MazeSpec(), seed), random.Random(seed), slip=True).turns
    ),
]
BITS = [
    *"[]{}()<>\"'`,:;-+.\\|/0123456789eE \n\t\x00\x1b\u202e\u200f\ufeff\ud800\U0001f600אب",
    *("NaN", "-Infinity", "1e308", "1e-308", "-1", "9" * 400, "null", "True", "[0, 0, 0, 0]", "[5, 5, 5, 9]"),
    *("```json", "```", "<think>", "</think>", "<answer>", "</answer>", "Action:", " Path Tracer", BOX),
    *("<|im_end|>", "<|image_pad|>", "<|vision_start|>", '"index": 1', '"label": "', "{{}}", "%s"),
    *("\\u0000", "\\ud83d", "\\x", '"bbox_2d": [', '"start_point_2d": [', "x" * 300),
]


@st.composite
def mutated(draw) -> str:
    """A real turn, cut, doubled and sprinkled with bits."""
    text = draw(st.sampled_from(REAL))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(text)))
        to = draw(st.integers(at, min(len(text), at + 40)))
        bit = draw(st.sampled_from([*BITS, "", text[at:to] * 2]))
        text = text[:at] + bit * draw(st.sampled_from([1, 1, 1, 2, 50])) + text[to:]
    return text[:20_000]


TEXTS = st.one_of(
    mutated(), mutated(), st.text(max_size=400), st.lists(st.sampled_from(BITS), max_size=60).map("".join)
)
ALL = get_tools(tuple(TOOLS))


def check(text: str) -> float:
    """Reads a text with all tools; processor seconds (the least of three where it looks slow)."""
    times = []
    while not times or (times[-1] > 0.05 and len(times) < 3):
        start = time.process_time()
        parsed = parse_actions(text, ALL)
        times.append(time.process_time() - start)
    assert len(parsed.calls) <= MAX_ITEMS and len(parsed.errors) <= MAX_ERRORS
    assert all(len(error) < 120 and error.isprintable() for error in parsed.errors)
    for call in parsed.calls:
        assert call.label.isprintable() and len(call.label) <= 64
        assert all(abs(v) <= 1e6 for v in call.to_dict().values() if isinstance(v, int | float))
    return min(times)


def fuzz(count: int) -> list[float]:
    times = []

    @settings(
        max_examples=count,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(TEXTS)
    def run(text):
        times.append(check(text))

    run()
    return times


def test_some_texts():
    times = fuzz(400)
    assert statistics.median(times) < 0.005 and max(times) < 0.1


@pytest.mark.slow
def test_twenty_thousand_texts():
    times = fuzz(20_000)
    median, worst = 1000 * statistics.median(times), 1000 * max(times)
    print(f"\n{len(times)} texts: median {median:.2f} ms, worst {worst:.1f} ms")
    assert len(times) >= 20_000 and median < 5 and worst < 100


def converse(count: int) -> None:
    rng, image = random.Random(count), Image.new("RGB", (84, 56), "white")

    def text() -> str:
        words = rng.choice(REAL)
        for _ in range(rng.randint(0, 3)):
            at = rng.randint(0, len(words))
            words = words[:at] + rng.choice(BITS) + words[at + rng.randint(0, 20) :]
        return words

    for number in range(count):
        style = ("clear", "published", "maze")[number % 3]
        held = DrawingSettings(tools=tuple(TOOLS), style=style, max_images=6, stop_on_repeat=False)
        session = DrawingSession([image], "?", settings=held)
        while not session.step(text()).done:
            assert len(session.images) <= 6


def test_some_conversations():
    converse(60)


@pytest.mark.slow
def test_two_thousand_conversations():
    converse(2_000)


NASTY = {
    "not a number": turn(f"[{BOX.replace('10', 'NaN')}]"),
    "infinite": turn(f"[{BOX.replace('10', '-Infinity')}]"),
    "huge": turn(f"[{BOX.replace('10', '1e308')}]"),
    "negative": turn(f"[{BOX.replace('10', '-90000')}]"),
    "no area": turn(f"[{BOX.replace('90', '10')}]"),
    "many items": turn("[" + ", ".join([BOX] * 10_000) + "]"),
    "long label": turn(f"[{BOX.replace('x', 'é' * 1_000_000)}]"),
    "long escaped label": turn(f"[{BOX.replace('x', chr(92) + 'u00e9' * 200_000)}]"),
    "control characters": turn(f"[{BOX.replace('x', ''.join(map(chr, range(1, 32))))}]"),
    "right to left": turn(f"[{BOX.replace('x', chr(0x202E) + 'אبγ' + chr(0x2066))}]"),
    "special tokens": turn(f"[{BOX.replace('x', '<|im_end|><|image_pad|>')}]"),
    "deep": turn("[" * 50_000 + "{" * 40_000),
    "one megabyte of fences": "```json\n[{" * 100_000,
    "one megabyte of quotes": turn("['\"" * 300_000),
    "actions without end": "<think></think>" + "Action: Object " * 70_000,
    "a long think": "<think>" + "so " * 300_000 + "</think> Action: Answer\n<answer> B </answer>",
}


@pytest.mark.parametrize("name", NASTY)
def test_nasty_texts_cost_little(name):
    text = NASTY[name]
    assert check(text) < 0.1
    tracemalloc.start()
    parse_actions(text, ALL)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20
    session = DrawingSession([Image.new("RGB", (84, 56))], "?")
    start = time.process_time()
    session.step(text)
    assert time.process_time() - start < 0.3
