"""Requests as clients of several APIs send them, and what is refused."""

import base64
import io
import json
import random
import time

import httpx2 as httpx
import numpy as np
import pytest
from PIL import Image

from tests.processing.test_images import METADATA
from tests.serve.conftest import Served, body, messages, picture
from vilasr_jax.drawing import DrawingSession, DrawingSettings
from vilasr_jax.rollout import Trajectory
from vilasr_jax.serve import ApiError, Limits
from vilasr_jax.serve.address import host_names
from vilasr_jax.serve.parameters import NEUTRAL, NO_MATTER, READ
from vilasr_jax.serve.replies import usage
from vilasr_jax.serve.requests import read_chat_request

JSON = {"Content-Type": "application/json"}
RNG = random.Random(3)
PICTURE = Image.frombytes("RGB", (31, 29), RNG.randbytes(31 * 29 * 3))


def _png():
    out = io.BytesIO()
    PICTURE.save(out, "PNG")
    raw = out.getvalue()
    while len(raw) % 3 == 0 or not {"+", "/"} <= set(base64.b64encode(raw).decode()):
        raw += b"\0"  # legal after the end, and makes padding necessary
    return raw


RAW = _png()
PLAIN = base64.b64encode(RAW).decode()
URL = f"data:image/png;base64,{PLAIN}"
TEXT, IMAGE = {"type": "text", "text": "Where?"}, {"type": "image_url", "image_url": {"url": URL}}
USER = {"role": "user", "content": [TEXT, IMAGE]}


def read(sent=None, **fields):
    content = json.dumps({"model": "m", "messages": [USER] if sent is None else sent, **fields})
    return read_chat_request(content.encode(), ("m", "m:answer"), Limits())


def user(*parts):
    return [{"role": "user", "content": list(parts)}]


def refused(*args, **fields):
    with pytest.raises(ApiError) as error:
        _ = read(*args, **fields).images
    assert error.value.status == 400
    return error.value.message


# Values that would change the answer.
UNSUPPORTED = {
    "frequency_penalty": 1.0,
    "top_k": 1,
    "min_p": 0.5,
    "repetition_penalty": 1.3,
    "best_of": 4,
    "min_tokens": 50,
    "stop_token_ids": [13],
    "bad_words": ["no"],
    "guided_choice": ["A", "B"],
    "guided_json": {},
    "logprobs": True,
    "structured_outputs": {"choice": ["A"]},
    "mm_processor_kwargs": {"max_pixels": 200704},
    "ignore_eos": True,
    "prompt_logprobs": 1,
    "modalities": ["text", "audio"],
    "prediction": {"type": "content", "content": "x"},
    "web_search_options": {},
    "reasoning_effort": "high",
    "stop": ["x"],
    "tools": [{"type": "function"}],
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_a_parameter_that_would_change_the_answer_is_refused(name):
    assert refused(**{name: UNSUPPORTED[name]}) == f"{name} is not supported; leave it out"


def test_neutral_values_are_accepted():
    for name, values in NEUTRAL.items():
        for value in (None, *values):
            assert read(**{name: value}).question == "Where?"
    assert read(**dict.fromkeys(NO_MATTER, "x")).question == "Where?"
    assert read(top_k=-1, min_p=0.0, repetition_penalty=1.0, stop="").question == "Where?"


def test_unknown_parameters_are_refused_with_what_is_near():
    assert "did you mean options?" in refused(option=["A"])
    assert "did you mean temperature?" in refused(temprature=0)
    assert ", ".join(READ) in refused(choices=["A", "B"])
    assert read(option=None).options == ()


def test_any_form_of_an_integer_is_accepted():
    chat = read(n=1.0, max_tokens=512.0, seed=7.0)
    assert (chat.samples, chat.max_tokens, chat.seed) == (1, 512, 7)
    assert type(chat.max_tokens) is type(chat.seed) is int
    for name, value in (("max_tokens", 1.5), ("n", 1.5), ("seed", 0.5), ("seed", float("inf")), ("n", True)):
        assert name in refused(**{name: value})
    assert read(model="").model == read(model=None).model == "m"


@pytest.mark.parametrize(
    "url",
    [
        URL,
        f"data:image/png;base64,{PLAIN.rstrip('=')}",
        f"data:image/png;charset=utf-8;base64,{PLAIN}",
        f"data:;base64,{PLAIN}",
        f"DATA:IMAGE/PNG;BASE64,{PLAIN}",
        f"data:image/png;base64,{base64.encodebytes(RAW).decode()}",
        f"data:image/png;base64, {PLAIN}\n",
        f"data:image/png;base64,{base64.urlsafe_b64encode(RAW).decode()}",
        "data:image/png;base64," + PLAIN.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D"),
        PLAIN,
    ],
)
def test_data_urls_are_read_as_they_are_written(url):
    chat = read(user(TEXT, {"type": "image_url", "image_url": {"url": url}}))
    assert chat.images[0].tobytes() == PICTURE.tobytes()


def test_quoted_base64_is_refused_with_the_cure():
    for data in (f'"{PLAIN}"', repr(PLAIN.encode())):
        said = refused(user(TEXT, {"type": "image_url", "image_url": f"data:image/png;base64,{data}"}))
        assert "there are quotes around it" in said
    assert "loads nothing" in refused(user(TEXT, {"type": "image_url", "image_url": "picture.png"}))


@pytest.mark.parametrize(
    "sent",
    [
        user(TEXT, {"type": "image_url", "image_url": URL}),
        user("Where?", IMAGE),
        user(TEXT, {"type": "image", "image": URL}),
        user(TEXT, {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PLAIN}}),
        user({"type": "input_text", "text": "Where?"}, {"type": "input_image", "image_url": URL}),
        user(TEXT, {"image_url": {"url": URL}}),
        user({**TEXT, "image_url": None}, {**IMAGE, "text": None}),
        [{"role": "user", "content": "Where?"}, *user(IMAGE)],
        [*user(IMAGE), {"role": "user", "content": "Where?"}],
        [{"role": "system", "content": None}, USER],
        [USER, {"role": "assistant", "content": ""}],
        [USER, {"role": "user", "content": None}],
    ],
)
def test_shapes_of_a_request_are_read(sent):
    chat = read(sent)
    assert chat.question == "Where?" and chat.images[0].tobytes() == PICTURE.tobytes() and not chat.captions


EXTRAS = {"tool_calls": None, "refusal": None, "audio": None, "function_call": None, "annotations": []}


@pytest.mark.parametrize(
    "sent",
    [
        [{**USER, "name": "ann", **EXTRAS}],  # what clients' message types dump
        [{"role": "system", "content": "", "name": None}, USER],
        user({**TEXT, "cache_control": {"type": "ephemeral"}}, IMAGE),
        user(TEXT, {"type": "image_url", "image_url": {"url": URL, "detail": "high", "format": None}}),
        user(TEXT, {"type": "input_image", "image_url": URL, "detail": "auto", "file_id": None}),
        user(TEXT, {"type": "image_url", "image_url": {"url": URL, "detail": None}}),
    ],
)
def test_fields_that_change_nothing_are_accepted(sent):
    assert read(sent).question == "Where?"


URL_LOW = {"type": "image_url", "image_url": {"url": URL, "detail": "low"}}


@pytest.mark.parametrize(
    "sent, words",
    [
        (user(TEXT, URL_LOW), "detail must be auto or high"),
        (user(TEXT, {"type": "input_image", "image_url": URL, "detail": "low"}), "detail"),
        (user(TEXT, {**IMAGE, "max_pixels": 50176}), "messages[0].content[1].max_pixels"),
        (user(TEXT, {"type": "image", "image": URL, "min_pixels": 50176}), "min_pixels"),
        (user(TEXT, {"type": "image_url", "image_url": {"url": URL, "min_pixels": 9}}), "min_pixels"),
        (user({**TEXT, "bold": True}, IMAGE), "messages[0].content[0].bold"),
        (user(TEXT, {**IMAGE, "image": URL}), "image_url and image in one part"),
        (user({**TEXT, "image_url": {"url": URL}}, IMAGE), "messages[0].content[0].image_url"),
        ([{**USER, "tool_calls": [{"id": "a"}]}], "messages[0].tool_calls"),
        ([USER, {"role": "assistant", "content": "", "prefix": True}], "messages[1].prefix"),
        (["Where?"], "messages[0] must be an object"),
    ],
)
def test_fields_in_messages_that_would_change_it_are_refused(sent, words):
    assert words in refused(sent)


def test_options_and_stream_options_are_checked():
    for value in ({}, "", False, 0, "AB", {"A": 1}):
        assert "options must be a list" in refused(options=value)
    assert read(options=None).options == read(options=[]).options == ()
    assert "stream_options.include_usag" in refused(stream_options={"include_usag": True})
    assert "include_usage" in refused(stream_options={"include_usage": "yes"})
    options = {"include_usage": True, "include_obfuscation": False, "continuous_usage_stats": False}
    assert read(stream=True, stream_options=options).include_usage


@pytest.mark.parametrize("value", ["abc", [1], {}, True, False, 0.5, float("nan"), float("-inf"), ""])
def test_a_seed_that_is_no_integer_is_refused(value):
    assert refused(seed=value) == "seed must be an integer"


def test_any_integer_is_a_seed():
    assert [read(seed=value).seed for value in (7, 7.0, (1 << 30) + 7, 10**400 << 30)] == [7, 7, 7, 0]


def test_long_texts_that_are_no_picture_are_refused_at_once():
    began = time.process_time()
    for url in ("A" * 64 + " " * 200_000 + "!", " " * 200_000, "data:image/png;base64," + "A\n " * 60_000):
        assert "messages[0].content[1]" in refused(user(TEXT, {"type": "image_url", "image_url": url}))
    assert time.process_time() - began < 1


def test_a_space_inside_base64_is_refused_with_the_cure():
    data = PLAIN.replace("+", " ")  # what a form makes of it
    assert "%2B" in refused(user(TEXT, {"type": "image_url", "image_url": f"data:image/png;base64,{data}"}))


def test_a_picture_with_much_text_in_it_is_read():
    raw, text = METADATA["a large text"][0], {"type": "text", "text": "Where?"}
    url = f"data:image/png;base64,{base64.b64encode(raw).decode()}"
    assert read(user(text, {"type": "image_url", "image_url": url})).images[0].size == (90, 60)
    out = io.BytesIO()
    PICTURE.save(out, "TIFF")  # a kind that Pillow reads, and the server does not
    url = f"data:image/tiff;base64,{base64.b64encode(out.getvalue()).decode()}"
    assert "no image that can be read (PNG" in refused(user(text, {"type": "image_url", "image_url": url}))


def test_text_and_pictures_stay_in_order():
    left, right = ({"type": "text", "text": f"{side} view:"} for side in ("Left", "Right"))
    chat = read([{"role": "system", "content": "Be brief."}, *user(left, IMAGE, right, IMAGE, TEXT)])
    assert (chat.captions, chat.question) == (("Left view:", "Right view:"), "Be brief.\nWhere?")
    assert "which is the question?" in refused(user(left, IMAGE, right, IMAGE))
    sent = [{"role": "system", "content": "Which is larger?"}, *user(left, IMAGE, right, IMAGE)]
    chat = read(sent)
    assert (chat.captions, chat.question) == (("Left view:", "Right view:"), "Which is larger?")
    chat = read([{"role": "system", "content": "Be brief."}, *user(TEXT, IMAGE, IMAGE)])
    assert (chat.captions, chat.question) == ((), "Be brief.\nWhere?")
    chat = read(user(IMAGE, TEXT, IMAGE))
    assert (chat.captions, chat.question) == ((), "Where?")
    white = [Image.new("RGB", (56, 28), "white")] * 2
    for prompt in ("short", "vilasr_jax"):
        session = DrawingSession(
            white, "Where?", settings=DrawingSettings(prompt=prompt), captions=("Left view:", "Right view:")
        )
        content = session.messages[1]["content"]
        kinds = [part.get("text", "IMAGE") for part in content]
        said = "".join(kinds)
        places = [said.index(word) for word in ("Left view:\n", "IMAGE", "\nRight view:\n", "Where?")]
        assert places == sorted(places) and said.count("IMAGE") == 2
        plain = DrawingSession(white, "Where?", settings=DrawingSettings(prompt=prompt))
        without = "".join(part.get("text", "IMAGE") for part in plain.messages[1]["content"])
        assert said.replace("Left view:\n", "").replace("Right view:\n", "").replace(
            "\n", ""
        ) == without.replace("\n", "")


def test_the_prompt_is_counted_once():
    mask = np.array([0, 0, 0, 1, 1, 0, 0, 1], bool)  # a prompt of 3, 2 sampled, 2 shown, 1 sampled
    one, none = (
        Trajectory("r/0", np.zeros(len(m), np.int32), m, np.zeros(len(m)), [], [], "answer", 1, 1, {})
        for m in (mask, np.zeros(3, bool))
    )
    assert usage([one]) == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    assert usage([one, one]) == {"prompt_tokens": 7, "completion_tokens": 6, "total_tokens": 13}
    assert usage([none, one])["prompt_tokens"] == 5 and usage([])["prompt_tokens"] == 0


def test_other_hosts_are_refused_in_json_unless_allowed():
    served = Served(hosts=("127.0.0.1", "::1", "Host.docker.internal:8000", "http://lab.example/"))
    try:
        hosts = {"127.0.0.1:9": 200, "[::1]:8": 200, "Host.docker.internal:8": 200, "lab.example": 200}
        hosts |= {"evil.example": 400}
        for host, status in hosts.items():
            url = f"{served.url}/v1/models"
            reply = httpx.get(url, headers={"Host": host}, trust_env=False, verify=False)
            assert reply.status_code == status
        assert "--allow-host=evil.example" in reply.json()["error"]["message"]
    finally:
        served.close()


def test_allowed_hosts_count_beyond_this_machine_too():
    assert host_names("0.0.0.0") == ("*",) and "*" not in host_names("127.0.0.1")
    names = host_names("0.0.0.0", ["lab.example:8000"])
    assert {"lab.example:8000", "0.0.0.0", "localhost"} <= set(names) and "*" not in names


def test_a_full_server_decodes_no_picture(served, monkeypatch):
    def fail(*_):
        raise AssertionError("a picture was decoded")

    monkeypatch.setattr("vilasr_jax.serve.requests.read_picture", fail)
    monkeypatch.setattr(served.worker, "busy", 8)
    url = f"{served.url}/v1/chat/completions"
    reply = httpx.post(url, content=body(), headers=JSON, trust_env=False, verify=False)
    assert reply.status_code == 429


def test_a_bad_picture_uses_no_slot(served):
    url = f"{served.url}/v1/chat/completions"
    bad = body(messages=messages(url=picture()[:200]))
    for _ in range(10):  # more than there are places
        assert httpx.post(url, content=bad, headers=JSON, trust_env=False, verify=False).status_code == 400
    assert served.worker.busy == 0


def test_too_many_requests_at_once_are_refused_in_json(served, monkeypatch):
    monkeypatch.setattr("vilasr_jax.serve.middleware.MOST_REQUESTS", 0)
    url = f"{served.url}/v1/chat/completions"
    reply = httpx.post(url, content=body(messages=messages()), trust_env=False, verify=False)
    assert reply.status_code == 503 and reply.headers["retry-after"]
    assert reply.json()["error"]["code"] == "too_many_requests"
