"""Trajectories are stored and read without loss."""

import dataclasses
import io
import json
import re
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests import tiny
from vilasr_jax.drawing import DrawingSession
from vilasr_jax.errors import DataError
from vilasr_jax.rollout import Trajectory


def same(a: Trajectory, b: Trajectory) -> None:
    for field in dataclasses.fields(Trajectory):
        one, other = getattr(a, field.name), getattr(b, field.name)
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype, field.name
            np.testing.assert_array_equal(one, other)
        elif field.name == "images":
            one, other = ([(i.mode, i.size, i.tobytes()) for i in images] for images in (one, other))
            assert one == other
        else:
            assert one == other, field.name


def test_round_trip_of_sampled_conversations():
    for t in tiny.generate(tiny.engine(), tiny.requests(8)):
        t.reward = {"accuracy": 1 / 3, "total": 0.0}
        same(t, Trajectory.from_bytes(t.to_bytes()))


def test_round_trip_of_drawn_turns_and_odd_text():
    session = DrawingSession([tiny.ScriptedSession(1).images[0].resize((112, 84))], "where?")
    texts = [
        '<think> "\ud800 \u2603 \x00" </think> Action: Path Tracer\n```json\n[{"index": 1, '
        '"start_point_2d": [1, 2], "end_point_2d": [30, 40.5], "label": "\u00e9"}]\n```',
        "Action: Object Mapper\n```json\n[{broken\n```",
        "<answer> B </answer>",
    ]
    for text in texts:
        session.step(text)
    assert session.stop_reason == "answer" and len(session.images) == 2
    t = Trajectory(
        id="a/0",
        tokens=np.arange(7, dtype=np.int32),
        loss_mask=np.arange(7) % 2 == 0,
        logprobs=np.array([0, -1e-8, -3.3, -np.float32(1e30), 0, 1, 2], np.float32),
        images=session.images,
        turns=session.events,
        stop_reason="answer",
        base_images=1,
        images_read=2,
        row={"id": "a", "question": "\u4e16\u754c", "meta": {"grid": 3, "ok": True, "x": None}},
    )
    again = Trajectory.from_bytes(t.to_bytes())
    same(t, again)
    assert again.drawings == 1 and again.errors == 1 and again.texts == texts
    assert again.answer == "B"


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
sides = st.integers(1, 3)


@given(st.integers(0, 2**32 - 1), st.lists(st.tuples(sides, sides), max_size=3), plain, st.text(), st.text())
@settings(max_examples=40, deadline=None)
def test_round_trip_of_anything(seed, sizes, meta, text, reason):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(0, 50))
    t = Trajectory(
        id=text,
        tokens=rng.integers(0, 2**31 - 1, count, np.int32),
        loss_mask=rng.random(count) < 0.5,
        logprobs=rng.normal(0, 30, count).astype(np.float32),
        images=[Image.fromarray(rng.integers(0, 255, (7 * h, 5 * w, 3), np.uint8)) for w, h in sizes],
        turns=[{"text": text, "calls": [meta], "error": None, "drawn": [1], "corrected": 0}],
        stop_reason=reason,
        base_images=len(sizes),
        images_read=len(sizes),
        row={"id": text, "meta": meta},
        reward={"total": float(rng.normal())},
    )
    same(t, Trajectory.from_bytes(t.to_bytes()))


def example() -> Trajectory:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (28, 56, 3), np.uint8))
    return Trajectory(
        id="a/0",
        tokens=np.arange(9, dtype=np.int32),
        loss_mask=np.arange(9) % 2 == 0,
        logprobs=np.linspace(-3, 0, 9, dtype=np.float32),
        images=[picture, picture],
        turns=[],
        stop_reason="answer",
        base_images=1,
        images_read=2,
        row={"id": "a", "meta": {}},
    )


def test_archives_of_earlier_versions_are_read():
    t, out = example(), io.BytesIO()
    arrays = ("tokens", "loss_mask", "logprobs")
    plain = {f.name: getattr(t, f.name) for f in dataclasses.fields(t) if f.name not in (*arrays, "images")}
    np.savez_compressed(
        out,
        header=np.frombuffer(json.dumps(plain).encode(), np.uint8),
        **{name: getattr(t, name) for name in arrays},
        **{f"image_{i}": np.asarray(image) for i, image in enumerate(t.images)},
    )
    again = Trajectory.from_bytes(out.getvalue())
    same(t, again)
    again.tokens[0] = 5  # arrays of their own
    for broken in (b"", b"PK nothing", b"{}", out.getvalue()[:80], t.to_bytes()[:-9]):
        with pytest.raises(DataError, match="a stored conversation"):
            Trajectory.from_bytes(broken)


def test_conversations_are_read_in_many_threads():
    """`np.load` failed here within a second on CPython 3.11.0 to 3.11.7 (gh-106905)."""
    jax.numpy.ones(3).block_until_ready()  # its garbage-collection callback is what lets threads in
    small = [Image.new("RGB", (2, 2))] * 8
    t, errors, before = dataclasses.replace(example(), images=small), [], sys.getswitchinterval()
    data, end = t.to_bytes(), time.monotonic() + 3

    def work() -> None:
        kept = []
        while time.monotonic() < end and not errors:
            try:
                again = Trajectory.from_bytes(data)
                kept = [*kept, {name: [value] for name, value in vars(again).items()}][-50:]
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not errors


def test_nothing_that_runs_in_threads_parses_python():
    """The command line alone may: it has one thread when it does."""
    package = Path(__file__).parents[2] / "vilasr_jax"
    wanted = re.compile(r"\bimport ast\b|\bnp\.load\(|literal_eval|numpy\.load")
    found = {
        str(path.relative_to(package)) for path in package.rglob("*.py") if wanted.search(path.read_text())
    }
    assert found <= {"commands.py", "rollout/packed_arrays.py"}  # the second only says why not
