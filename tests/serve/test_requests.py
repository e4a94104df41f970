"""Requests as clients of several APIs send them, and what is refused."""

import base64
import io
import json
import random
import sys

import httpx2 as httpx
import numpy as np
import pytest
from PIL import Image

from tests.serve.conftest import Served, body, messages
from vilasr_jax import cli
from vilasr_jax.drawing import DrawingSession, DrawingSettings
from vilasr_jax.rollout import Trajectory
from vilasr_jax.serve import ApiError, Limits
from vilasr_jax.serve.parameters import NEUTRAL, NO_MATTER, READ
from vilasr_jax.serve.replies import usage
from vilasr_jax.serve.requests import read_ask

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


def read(asked=None, **fields):
    content = json.dumps({"model": "m", "messages": [USER] if asked is None else asked, **fields})
    return read_ask(content.encode(), ("m", "m:answer"), Limits())


def user(*parts):
    return [{"role": "user", "content": list(parts)}]


def refused(*args, **fields):
    with pytest.raises(ApiError) as error:
        read(*args, **fields)
    assert error.value.status == 400
    return error.value.message


# Values that would change the answer.
ASKING = {
    "frequency_penalty": 1.0, "top_k": 1, "min_p": 0.5, "repetition_penalty": 1.3, "best_of": 4,
    "min_tokens": 50, "stop_token_ids": [13], "bad_words": ["no"], "guided_choice": ["A", "B"],
    "guided_json": {}, "logprobs": True, "structured_outputs": {"choice": ["A"]}, "mm_processor_kwargs":
    {"max_pixels": 200704}, "ignore_eos": True, "prompt_logprobs": 1, "modalities": ["text", "audio"],
    "prediction": {"type": "content", "content": "x"}, "web_search_options": {}, "reasoning_effort":
    "high", "stop": ["x"], "tools": [{"type": "function"}],
}  # fmt: skip


@pytest.mark.parametrize("name", ASKING)
def test_a_parameter_that_would_change_the_answer_is_refused(name):
    assert refused(**{name: ASKING[name]}) == f"{name} is not supported; leave it out"


def test_neutral_values_are_taken():
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


def test_numbers_are_taken_in_any_form_that_is_whole():
    ask = read(n=1.0, max_tokens=512.0, seed=7.0)
    assert (ask.samples, ask.max_tokens, ask.seed) == (1, 512, 7)
    assert type(ask.max_tokens) is type(ask.seed) is int
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
    ask = read(user(TEXT, {"type": "image_url", "image_url": {"url": url}}))
    assert ask.images[0].tobytes() == PICTURE.tobytes()


def test_quoted_base64_is_refused_with_the_cure():
    for data in (f'"{PLAIN}"', repr(PLAIN.encode())):
        said = refused(user(TEXT, {"type": "image_url", "image_url": f"data:image/png;base64,{data}"}))
        assert "quotes stand around it" in said
    assert "loads nothing" in refused(user(TEXT, {"type": "image_url", "image_url": "picture.png"}))


@pytest.mark.parametrize(
    "asked",
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
def test_shapes_of_a_request_are_read(asked):
    ask = read(asked)
    assert ask.question == "Where?" and ask.images[0].tobytes() == PICTURE.tobytes() and not ask.captions


def test_text_and_pictures_keep_their_order():
    left, right = ({"type": "text", "text": f"{side} view:"} for side in ("Left", "Right"))
    ask = read([{"role": "system", "content": "Be brief."}, *user(left, IMAGE, right, IMAGE, TEXT)])
    assert (ask.captions, ask.question) == (("Left view:", "Right view:"), "Be brief.\nWhere?")
    ask = read(user(TEXT, IMAGE, right, IMAGE))
    assert (ask.captions, ask.question) == (("", "Right view:"), "Where?")
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
    served = Served(hosts=("127.0.0.1", "::1", "host.docker.internal"))
    try:
        asked = {"127.0.0.1:9": 200, "[::1]:8": 200, "Host.docker.internal:8": 200, "evil.example": 400}
        for host, status in asked.items():
            url = f"{served.url}/v1/models"
            reply = httpx.get(url, headers={"Host": host}, trust_env=False, verify=False)
            assert reply.status_code == status
        assert "--allow-host=evil.example" in reply.json()["error"]["message"]
    finally:
        served.close()


def test_too_many_requests_at_once_are_refused_in_json(served, monkeypatch):
    monkeypatch.setattr("vilasr_jax.serve.gate.MOST_REQUESTS", 0)
    url = f"{served.url}/v1/chat/completions"
    reply = httpx.post(url, content=body(messages=messages()), trust_env=False, verify=False)
    assert reply.status_code == 503 and reply.headers["retry-after"]
    assert reply.json()["error"]["code"] == "too_many_requests"


def test_serve_without_its_extra_names_the_extra(monkeypatch, capsys):
    find = cli.importlib.util.find_spec
    monkeypatch.setattr(
        cli.importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "starlette" else find(name, *rest),
    )
    with pytest.raises(SystemExit) as stop:
        cli.main(["vilasr", "serve", "runs/nothing"])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.count("\n") == 1
    assert 'starlette; install the extra [serve]: pip install "vilasr-jax[serve]"' in error
    assert "vilasr_jax.serve" in sys.modules  # here it is installed
