"""What chat and evaluation clients need: bare answers, Markdown, earlier turns, other origins."""

import base64
import io
import json
import re

import httpx2 as httpx
import pytest
from PIL import Image

from tests.serve.conftest import TURNS, Served, messages, picture
from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.serve import ApiError, Limits
from vilasr_jax.serve.requests import read_chat_request

MODELS = ("maze", "maze:answer", "maze:markdown")


def post(served, headers=None, **fields):
    url = f"{served.url}/v1/chat/completions"
    reply = httpx.post(url, json=fields, headers=headers, trust_env=False, verify=False, timeout=30)
    return reply.json()["choices"][0] if reply.status_code == 200 else reply.json()


def read(sent, history="refuse", images=4):
    body = json.dumps({"messages": sent}).encode()
    return read_chat_request(body, MODELS, Limits(history=history, images=images))


def test_max_tokens_of_a_bare_answer_are_those_of_the_answer(served):
    choice = post(served, model="maze:answer", messages=messages(), max_tokens=16)
    assert (choice["message"]["content"], choice["finish_reason"]) == ("B", "stop")
    assert served.engine.requests[-1].max_new_tokens is None
    post(served, model="maze", messages=messages(), max_tokens=16)
    assert served.engine.requests[-1].max_new_tokens == 16


def test_a_long_bare_answer_is_cut(served, monkeypatch):
    turns = [*TURNS[:2], TURNS[2].replace(" B ", "to the left")]
    monkeypatch.setitem(type(served.engine).answer.__globals__, "TURNS", turns)
    choice = post(served, model="maze:answer", messages=messages(), max_tokens=6)
    assert (choice["message"]["content"], choice["finish_reason"]) == ("to the", "length")


@pytest.mark.parametrize("stream", [False, True])
def test_markdown_shows_thoughts_drawings_and_answer(served, stream):
    fields = {"model": "maze:markdown", "messages": messages(), "stream": stream}
    if stream:
        url = f"{served.url}/v1/chat/completions"
        lines = httpx.post(url, json=fields, trust_env=False, verify=False).text.splitlines()
        chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
        text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    else:
        text = post(served, **fields)["message"]["content"]
    parts = text.split("\n\n")
    assert parts[0] == "It goes right." and parts[-2:] == ["There it ends.", "**B**"]
    assert "<think>" not in text and "```" not in text
    drawn = [part for part in parts if part.startswith("![picture ")]
    assert [part[:12] for part in drawn] == ["![picture 2]", "![picture 3]"]
    data = drawn[0].partition("base64,")[2].rstrip(")")
    assert Image.open(io.BytesIO(base64.b64decode(data))).size == (112, 84)


CHAT = [
    {"role": "system", "content": "Be short."},
    *messages("Where is the door?"),
    {"role": "assistant", "content": "<think> x </think> Action: Answer\n<answer> left </answer>"},
    {"role": "user", "content": "And the lamp?"},
]


def test_earlier_turns_are_refused_with_the_flag_to_change_that():
    with pytest.raises(ApiError, match="--history=fold"):
        read(CHAT)


def test_earlier_turns_are_folded_into_the_question():
    chat = read(CHAT, "fold")
    lines = ["Be short.", "Earlier question: Where is the door?", "Earlier answer: left", "And the lamp?"]
    assert chat.question.splitlines() == lines and len(chat.pictures) == 1


def test_earlier_turns_are_ignored_except_for_the_picture():
    chat = read(CHAT, "ignore")
    assert chat.question.splitlines() == ["Be short.", "And the lamp?"] and len(chat.pictures) == 1
    own = [*CHAT[:3], *messages("And here?", picture(56, 56))]
    chat = read(own, "ignore")
    assert [one.url for one in chat.pictures] == [picture(56, 56)] and "And here?" in chat.question


@pytest.mark.parametrize("history", ["fold", "ignore"])
def test_a_picture_in_a_message_of_its_own_is_no_chat(history):
    image = [{"type": "image_url", "image_url": {"url": picture()}}]
    parts = [{"role": "user", "content": "What is left of the door?"}, {"role": "user", "content": image}]
    for sent in (parts, parts[::-1], [parts[0], CHAT[0], parts[1]]):
        chat = read(sent, history)
        assert chat.question.splitlines()[-1] == "What is left of the door?" and len(chat.pictures) == 1
        assert (chat.question, chat.captions) == (read(sent).question, ())
    later = read([*messages("A lamp?", picture(56, 56)), CHAT[2], *parts], history)
    before = ["Earlier question: A lamp?", "Earlier answer: left"] if history == "fold" else []
    assert later.question.splitlines() == [*before, "What is left of the door?"]
    urls = [picture(56, 56), picture()] if history == "fold" else [picture()]
    assert [one.url for one in later.pictures] == urls


def test_an_answer_is_dropped_with_its_question():
    long = [*messages("x" * 2500), {"role": "assistant", "content": "<answer> C </answer>"}]
    assert read([*long, CHAT[3]], "fold").question == "And the lamp?"
    assert read([*long, *CHAT[1:]], "fold").question.splitlines() == [
        "Earlier question: Where is the door?",
        "Earlier answer: left",
        "And the lamp?",
    ]


def test_the_newest_pictures_stay_within_the_limit():
    turns = [turn for side in (28, 56, 84) for turn in (*messages("?", picture(side)), CHAT[2])]
    chat = read([*turns, *messages("Now?", picture(112))], "fold", images=3)
    assert [one.url for one in chat.pictures] == [picture(56), picture(84), picture(112)]


def test_drawings_of_earlier_markdown_are_no_text():
    reply = {"role": "assistant", "content": f"It is there.\n\n![picture 2]({picture()})\n\n**B**"}
    chat = read([*CHAT[:2], reply, CHAT[3]], "fold")
    assert "base64" not in chat.question and "**B**" in chat.question


@pytest.mark.parametrize("history", ["fold", "ignore"])
@pytest.mark.parametrize("sent", [7, [], ["x"], [{"role": "user", "content": 3}], [{"role": "assistant"}]])
def test_what_is_no_chat_is_refused_as_before(sent, history):
    with pytest.raises(ApiError):
        read(sent, history)


def test_a_question_without_a_picture_is_answered(served):
    choice = post(
        served, model="maze:answer", messages=[{"role": "user", "content": "A title for this chat?"}]
    )
    assert choice["message"]["content"] == "B"


def test_sixteen_frames_are_read_where_the_flag_allows_them():
    frames = [{"type": "image_url", "image_url": {"url": picture()}}] * 16
    sent = [{"role": "user", "content": [*frames, {"type": "text", "text": "What moves?"}]}]
    assert len(read(sent, images=16).pictures) == 16
    with pytest.raises(ApiError, match="more than 4 images"):
        read(sent)


@pytest.mark.parametrize("video", [True, False])
def test_frames_are_put_in_the_words_of_a_video(served, video):
    frames = [{"type": "image_url", "image_url": {"url": picture()}}] * 3
    sent = [{"role": "user", "content": [*frames, {"type": "text", "text": "What moves?"}]}]
    assert post(served, messages=sent, video=video)["message"]["answer"] == "B"
    request = served.engine.requests[-1]
    said = request.session().messages[0]["content"][0]["text"]
    assert ("These are frames from a video, numbered from 1 to 3." in said) == video
    assert request.row["data_type"] == ("video" if video else "vqa")


def test_frames_have_their_times(served, monkeypatch):
    """For a model that states them; another refuses to leave them out."""
    frames = [{"type": "image_url", "image_url": {"url": picture()}}] * 3
    sent = [{"role": "user", "content": [*frames, {"type": "text", "text": "What moves?"}]}]
    error = post(served, messages=sent, video=True, fps=2)["error"]
    assert "reads no times" in error["message"] and error["param"] == "fps"
    settings = DrawingSettings(timestamp="<{seconds:.1f} seconds>")
    monkeypatch.setattr(served.worker, "settings", settings)
    for fps, times in (({"fps": 4}, ["0.0", "0.2", "0.5"]), ({}, [])):
        assert post(served, messages=sent, video=True, **fps)["message"]["answer"] == "B"
        said = served.engine.requests[-1].session().messages[1]["content"]
        words = "".join(part.get("text", "<image>") for part in said)
        assert re.findall(r"<([\d.]+) seconds><image>", words) == times
    assert "that of a video" in post(served, messages=sent, fps=2)["error"]["message"]
    assert "fps must be a number" in post(served, messages=sent, video=True, fps=-1)["error"]["message"]


def test_a_video_without_frames_is_refused(served):
    text = [{"role": "user", "content": "What moves?"}]
    assert "no image" in post(served, messages=text, video=True)["error"]["message"]
    assert "must be a bool" in post(served, messages=messages(), video=[1])["error"]["message"]


def test_pages_of_other_origins_need_the_flag():
    origin = {"Origin": "https://chat.example"}
    for cors, allowed in (((), None), (("https://chat.example",), "https://chat.example")):
        served = Served(cors=cors)
        try:
            url = f"{served.url}/v1/chat/completions"
            asks = {**origin, "Access-Control-Request-Method": "POST"}
            asks["Access-Control-Request-Headers"] = "authorization,content-type"
            before = httpx.options(url, headers=asks, trust_env=False, verify=False)
            reply = httpx.get(f"{served.url}/v1/models", headers=origin, trust_env=False, verify=False)
            assert before.headers.get("access-control-allow-origin") == allowed
            assert reply.headers.get("access-control-allow-origin") == allowed
            assert (before.status_code == 200) == bool(allowed)
        finally:
            served.close()


def test_options_get_letters(served):
    post(served, messages=messages(), options=["left", "right"])
    user = served.engine.requests[-1].session().messages[1]
    assert "A. left" in str(user) and "B. right" in str(user)
