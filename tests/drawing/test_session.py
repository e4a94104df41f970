"""One conversation: prompts, replies, errors, limits, and that it can be pickled and replayed."""

import pickle
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vilasr_jax.drawing import DrawingSession, DrawingSettings
from vilasr_jax.errors import ConfigError, ImageError


def draw(*items: str, action: str = "Path Tracer") -> str:
    return f"<think> so </think> Action: {action}\n```json\n[{', '.join(items)}]\n```"


def line(label: str = "1", end: int = 42, index: int = 1) -> str:
    return (
        f'{{"index": {index}, "start_point_2d": [14, 14], "end_point_2d": [{end}, 14], "label": "{label}"}}'
    )


ANSWER = "<think> so </think> Action: Answer\n<answer> B </answer>"


def session(*sizes, **changes) -> DrawingSession:
    images = [Image.new("RGB", size, "white") for size in sizes or [(140, 84)]]
    return DrawingSession(images, "Where?", options="ABCD", settings=DrawingSettings(**changes))


def texts(message) -> str:
    return "".join(part.get("text", "<image>") for part in message["content"])


def test_published_prompt_names_tools_format_and_size():
    system, user = session().messages
    said = texts(system)
    for fact in ("Object Mapper", "Path Tracer", "bbox_2d", "start_point_2d", "end_point_2d", "140", "84"):
        assert fact in said
    for fact in ("<think>", "Action: Answer", "<answer>", "```json"):
        assert fact in said
    assert texts(user).startswith(
        "<image>The index of the given image is 1 (width: 140, height: 84).\nWhere?"
    )
    assert texts(user).endswith("Answer with the option's letter from the given choices directly.")


def test_each_image_has_its_own_size():
    """Fault 11: the prompt gave one size for all images of a row."""
    user = texts(session((140, 84), (56, 28)).messages[1])
    assert "<image>The index of the given image is 1 (width: 140, height: 84).\n" in user
    assert "<image>The index of the given image is 2 (width: 56, height: 28).\n" in user


def film(**changes) -> DrawingSession:
    frames, how = [Image.new("RGB", (56, 28))] * 3, DrawingSettings(**changes)
    captions = ("", "Later:", "")
    return DrawingSession(
        frames, "What moves?", settings=how, video=True, captions=captions, seconds=(0, 0.25, 7)
    )


@pytest.mark.parametrize("actions", ["published", "tool_call"])
def test_times_of_frames_are_before_them(actions):
    """For a model that states them, and in no other words of any."""
    stated = film(actions=actions, timestamp="<{seconds:.1f} seconds>")
    system, user = map(texts, stated.messages)
    for before in ("<0.0 seconds><image>", "Later:\n<0.2 seconds><image>", ".\n<7.0 seconds><image>"):
        assert before in user
    assert "These are frames from a video, numbered from 1 to 3. " in system
    plain = [texts(message) for message in film(actions=actions).messages]
    assert [system, re.sub("<[0-9.]+ seconds>", "", user)] == plain
    picture = DrawingSession(stated.images, "?", settings=stated.settings, seconds=(0, 1, 2))  # no video
    system, user = map(texts, picture.messages)
    assert "seconds" not in user and "video" not in system


def test_video_prompt():
    frames = [Image.new("RGB", (56, 28))] * 16
    s = DrawingSession(frames, "How far?", question_type="numerical", video=True)
    assert "These are frames from a video, numbered from 1 to 16." in texts(s.messages[0])
    assert texts(s.messages[1]).endswith("using a single word or phrase (e.g., 42 or 3.14).")


def test_drawn_turn():
    s = session()
    reply = s.step(draw(line()))
    assert (reply.done, reply.drawn, reply.error, reply.message["role"]) == (False, 1, None, "user")
    assert texts(reply.message) == (
        "<image>The index of the given image is 2 (width: 140, height: 84).\n"
        "Continue your reasoning. After each tool use, critically evaluate the visualization "
        "and adjust if needed:"
    )
    assert reply.message["content"][0]["image"] is s.images[1]
    reply = s.step(draw(line(end=70, index=2)))
    assert s.events[1]["corrected"] == 1 and s.events[1]["drawn"] == [3]
    reply = s.step(ANSWER)
    assert (reply.done, reply.stop_reason, s.answer, reply.message) == (True, "answer", "B", None)
    assert s.step(draw(line())).stop_reason == "answer" and len(s.events) == 3


def test_errors_are_reported_and_recorded():
    """Fault 7: an error ended or silently discarded the turn."""
    s = session()
    reply = s.step(draw(line(index=4)))
    assert reply.error == "item 1: there is no image 4, only 1 to 1" and not reply.done and reply.drawn == 0
    assert reply.error in texts(reply.message) and s.events[0]["error"] == reply.error
    reply = s.step(draw('{"index": 1, "bbox_2d": [1, 2], "label": "x"}', line()))
    assert reply.error == "item 1: bbox_2d needs 4 numbers" and reply.drawn == 1
    assert texts(reply.message).startswith("<image>")


def test_reasons_to_stop():
    assert session().step("I am thinking.").stop_reason == "no_action"
    assert session().step("I am think", truncated=True).stop_reason == "truncated"
    s = session()
    s.step(draw(line()))
    assert s.step(draw(line())).stop_reason == "repeat"
    s = session(stop_on_repeat=False)
    s.step(draw(line()))
    reply = s.step(draw(line()))
    assert (reply.drawn, reply.error) == (0, "nothing new was drawn") and len(s.images) == 2
    assert s.step(draw(line(), line("2"))).drawn == 1


def test_what_is_not_drawn_for_want_of_room_is_no_correction():
    s = session((140, 84), (140, 84), max_images=4)
    assert s.step(draw(line("a"))).drawn == 1
    reply = s.step(draw(line("a", 70), line("b", index=2)))
    assert reply.drawn == 0 and "image" in reply.error
    assert (s.events[-1]["corrected"], s.events[-1]["drawn"]) == (0, [])


def test_at_the_image_limit_the_answer_is_requested():
    s = session(max_images=3)
    assert "no tool may be used" not in texts(s.step(draw(line("1"))).message)
    reply = s.step(draw(line("2")))
    assert (reply.done, reply.drawn, len(s.images)) == (False, 1, 3)
    assert "no tool may be used" in texts(reply.message)
    assert s.step(ANSWER).stop_reason == "answer" and s.answer == "B"
    s = session(max_images=1)
    reply = s.step(draw(line()))
    assert (reply.done, reply.drawn, reply.error) == (False, 0, "there is no room for another image")
    assert "no tool may be used" in texts(reply.message) and reply.error in texts(reply.message)
    assert (s.step(draw(line())).stop_reason, len(s.images)) == ("image_limit", 1)


def test_last_allowed_turn_is_said():
    s = session(max_turns=3)
    assert "last turn" not in texts(s.step(draw(line("1"))).message)
    assert "no tool may be used" in texts(s.step(draw(line("2"))).message)
    reply = s.step(draw(line("3")))
    assert (reply.done, reply.stop_reason, len(s.images)) == (True, "turn_limit", 3)


def test_text_only_control_has_no_tools():
    s = session(draw=False)
    said = texts(s.messages[0])
    assert "Path Tracer" not in said and "bbox_2d" not in said and "<answer>" in said
    assert s.step(draw(line())).stop_reason == "no_action"
    assert session(draw=False).step(ANSWER).stop_reason == "answer"


def test_short_prompt_is_short():
    s = session(prompt="short")
    assert (
        len(texts(s.messages[0])) < 250
        and texts(s.messages[1]) == "<image>image 1\nWhere? A, B, C, D Letter?"
    )
    assert texts(s.step(draw(line())).message) == "<image>image 2"


def test_pickle_in_the_middle():
    one = session()
    one.step(draw(line("1")))
    two = pickle.loads(pickle.dumps(one))
    a, b = one.step(draw(line("2"))), two.step(draw(line("2")))
    assert texts(a.message) == texts(b.message)
    assert [i.tobytes() for i in one.images] == [i.tobytes() for i in two.images]
    assert one.events == two.events


def test_wrong_settings_and_images():
    with pytest.raises(ConfigError, match="tool 'laser' does not exist"):
        session(tools=("laser",))
    with pytest.raises(ConfigError, match="prompt variant 'long' does not exist"):
        session(prompt="long")
    with pytest.raises(ImageError, match="image 1 has mode L"):
        DrawingSession([Image.new("L", (28, 28))], "?")


_TURN = st.one_of(
    st.text(max_size=60),
    st.builds(
        lambda label, end, index, cut: draw(line(label, end, index))[:cut],
        st.sampled_from(["1", "2", "x{y}", "%s"]),
        st.integers(-300, 300),
        st.integers(-1, 6),
        st.sampled_from([40, 80, 500]),
    ),
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(_TURN, max_size=8))
def test_any_turns(turns):
    s = session(max_turns=6, max_images=5)
    for number, text in enumerate(turns):
        reply = s.step(text, truncated=number % 2 == 0)
        assert (reply.message is None) == reply.done == (s.stop_reason is not None)
    assert len(s.events) <= 6 and len(s.images) <= 6


def test_1000_boxes_survive_relative_coordinates():
    """Pixels as the model writes them, and its text in the very same pixels again."""
    rng = random.Random(0)
    for _ in range(1000):
        width, height = rng.randint(60, 900), rng.randint(60, 900)
        x1, y1 = rng.randrange(width - 20), rng.randrange(height - 20)
        box = (x1, y1, rng.randint(x1 + 10, width), rng.randint(y1 + 10, height))
        conversation = session((width, height), coordinates=1000)
        item = f'{{"index": 1, "bbox_2d": {list(box)}, "label": "cup"}}'
        text = conversation.as_written(draw(item, action="Object Mapper"))
        written = conversation.settings.written(box, (width, height))
        assert f'"bbox_2d": {list(written)}' in text and all(0 <= value <= 1000 for value in written)
        conversation.step(text)
        (call,) = conversation.events[0]["calls"]
        assert tuple(call[name] for name in ("x1", "y1", "x2", "y2")) == box
