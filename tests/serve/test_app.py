"""The OpenAI-compatible API: the official client, curl, streams, limits, and whatever is sent to it."""

import _thread
import asyncio
import base64
import io
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx2 as httpx
import openai
import pytest
from absl import logging
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.serve.conftest import TURNS, Served, body, messages, picture
from vilasr_jax.config import SamplingSection
from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.serve import Limits, Worker
from vilasr_jax.serve.run import warm_up

JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def http():
    with httpx.Client(trust_env=False, timeout=30, verify=False) as client:
        yield client


def client(served, key="none"):
    http = openai.DefaultHttpxClient(trust_env=False, verify=False)
    return openai.OpenAI(base_url=f"{served.url}/v1", api_key=key, http_client=http, max_retries=0)


def post(served, content, **headers):
    url = f"{served.url}/v1/chat/completions"
    return httpx.post(
        url, content=content, headers={**JSON, **headers}, trust_env=False, verify=False, timeout=30
    )


def opened(url):
    return Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))


def test_openai_client(served):
    api = client(served)
    assert [model.id for model in api.models.list()] == ["maze", "maze:answer", "maze:markdown"]
    assert api.models.retrieve("maze").id == "maze"
    reply = api.chat.completions.create(model="maze", messages=messages(), n=2, seed=3, temperature=0)
    assert [choice.index for choice in reply.choices] == [0, 1]
    message = reply.choices[0].message
    assert message.content == "\n\n".join(TURNS) and reply.choices[0].finish_reason == "stop"
    assert message.answer == "B" and [turn["images"] for turn in message.turns] == [[2], [3], []]
    assert [image["index"] for image in message.images] == [2, 3]
    assert opened(message.images[0]["image_url"]["url"]).size == (112, 84)
    assert reply.usage.completion_tokens == 10 and reply.usage.total_tokens == 17
    bare = api.chat.completions.create(model="maze:answer", messages=messages())
    assert bare.choices[0].message.content == "B"


def test_openai_client_streaming(served):
    stream = client(served).chat.completions.create(
        model="maze", messages=messages(), stream=True, stream_options={"include_usage": True}
    )
    text, images, turns, last, usage = "", [], [], None, None
    for chunk in stream:
        if chunk.usage:
            usage = chunk.usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            extra = choice.delta.model_extra
            images += extra.get("images", [])
            turns += [extra["turn"]] if "turn" in extra else []
            last = choice if choice.finish_reason else last
    assert text == "\n\n".join(TURNS)
    assert [image["index"] for image in images] == [2, 3] and opened(images[1]["image_url"]["url"]).size[
        0
    ] == 112
    assert [turn["number"] for turn in turns] == [1, 2, 3] and turns[0]["calls"][0]["label"] == "way"
    assert last.finish_reason == "stop" and last.delta.model_extra["answer"] == "B"
    assert usage.completion_tokens == 5


def huge():
    """A PNG whose header says 20000 x 20000 pixels, which Pillow refuses to open."""
    data = base64.b64decode(picture().partition(",")[2])
    head = b"IHDR" + (20000).to_bytes(4) * 2 + data[24:29]
    changed = data[:12] + head + zlib.crc32(head).to_bytes(4) + data[33:]
    return "data:image/png;base64," + base64.b64encode(changed).decode()


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
def test_curl(served, tmp_path):
    (tmp_path / "request.json").write_text(body(stream=True))
    command = [
        "curl",
        "-sN",
        "--noproxy",
        "*",
        f"{served.url}/v1/chat/completions",
        "-H",
        f"Content-Type: {JSON['Content-Type']}",
    ]
    out = subprocess.run(
        [*command, "-d", f"@{tmp_path / 'request.json'}"], capture_output=True, text=True, timeout=30
    )
    lines = [line for line in out.stdout.splitlines() if line]
    assert lines[-1] == "data: [DONE]" and all(line.startswith("data: ") for line in lines)
    assert json.loads(lines[-2][6:])["choices"][0]["delta"]["answer"] == "B"


@pytest.mark.parametrize(
    "content, status, word",
    [
        ("{", 400, "isn't JSON"),
        ("[" * 100_000, 400, "isn't JSON"),
        ("[]", 400, "object"),
        ("{}", 400, "messages"),
        (body(model="gpt-4o"), 404, "maze"),
        (body(model=3), 400, "model"),
        (body(temperature=9), 400, "temperature"),
        (body(temperature=float("nan")), 400, "temperature"),
        (body(top_p=0), 400, "top_p must be a number from 0.000001 to 1"),
        (body(max_tokens=0), 400, "max_tokens must be an integer from 1 to 1,073,741,824"),
        (body(n=100), 400, "n must be"),
        (body(stop=["x"]), 400, "stop"),
        (body(tools=[{"type": "function"}]), 400, "tools"),
        (body(response_format={"type": "json_object"}), 400, "response_format"),
        (body(options=[1]), 400, "options"),
        (body(stream="yes"), 400, "stream"),
        (body(messages=messages("")), 400, "no text"),
        (body(messages=[{"role": "user", "content": ""}]), 400, "no text"),
        (body(messages=messages() + messages()), 400, "2 user messages"),
        (body(messages=[*messages(), {"role": "assistant", "content": "A"}]), 400, "one question at a time"),
        (body(messages=[{"role": "king", "content": "?"}]), 400, "role must be system, developer or user"),
        (body(messages=messages(url="http://example.org/a.png")), 400, "loads nothing"),
        (body(messages=messages(url="file:///etc/passwd")), 400, "loads nothing"),
        (body(messages=messages(url="data:image/png;base64,@@")), 400, "base64"),
        (body(messages=messages(url="data:image/png;base64,aGVsbG8=")), 400, "no image"),
        (body(messages=messages(url=picture()[:200])), 400, "messages[0].content[0]"),
        (body(messages=messages(url=picture(4000, 10))), 400, "narrow"),
        (
            body(messages=messages(url=picture(2000, 2000))),
            400,
            "2000 x 2000 px are more than 1,000,000 pixels",
        ),
        (body(messages=messages(url=huge())), 400, "it has more than 1,000,000 pixels; shrink it"),
        (body(messages=messages("w" * 3500)), 400, "buckets"),
        (body(messages=messages("w" * 5000)), 400, "4000 characters"),
        ("x" * (2 << 20), 413, "1 MiB"),
    ],
)
def test_bad_requests_are_explained(served, content, status, word):
    reply = post(served, content)
    error = reply.json()["error"]
    assert reply.status_code == status and word in error["message"]
    assert error["type"] == "invalid_request_error" and "\n" not in error["message"]


def test_other_ways_in(served, http):
    url = f"{served.url}/v1/chat/completions"
    assert http.get(url).status_code == 405
    assert http.get(f"{served.url}/nothing").json()["error"]["message"] == "there is nothing at /nothing"
    assert http.post(url, content=body(), headers={"Content-Type": "text/plain"}).status_code == 415
    page = http.get(served.url)
    assert page.status_code == 200 and "default-src 'self'" in page.headers["content-security-policy"]
    assert http.get(f"{served.url}/health").json()["status"] == "ok"


def test_a_hundred_at_once_are_served_or_refused(served):
    with ThreadPoolExecutor(100) as pool:
        replies = list(pool.map(lambda _: post(served, body(messages=messages("pause"))), range(100)))
    codes = [reply.status_code for reply in replies]
    assert set(codes) == {200, 429} and codes.count(200) >= 8
    refused = next(reply for reply in replies if reply.status_code == 429)
    assert refused.headers["retry-after"] and refused.json()["error"]["type"] == "rate_limit_error"
    assert post(served, body()).status_code == 200 and served.worker.busy == 0


def test_the_client_leaves(served):
    before = served.engine.cancelled
    stream = client(served).chat.completions.create(model="maze", messages=messages("slow"), stream=True)
    next(chunk for chunk in stream if chunk.choices[0].delta.content)  # it has begun
    stream.close()
    wait_until(lambda: served.engine.cancelled > before and served.worker.busy == 0)


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_leaves_the_queue(served, http, stream, monkeypatch):
    """Its request is dropped while the engine is busy with others, and never begins."""
    logged = []
    monkeypatch.setattr(logging, "warning", lambda line, *words: logged.append(line % words))
    served.engine.go_on.clear()
    with ThreadPoolExecutor() as pool:
        first = pool.submit(post, served, body(messages=messages("hold")))
        wait_until(lambda: conversations(served) == 1)
        content = body(messages=messages("queued"), n=3, stream=stream)
        with pytest.raises(httpx.ReadTimeout):
            http.post(f"{served.url}/v1/chat/completions", content=content, headers=JSON, timeout=0.5)
        wait_until(lambda: conversations(served) == 1)
        assert not first.done()
        served.engine.go_on.set()
        assert first.result().status_code == 200
    assert post(served, body()).status_code == 200
    assert "queued" not in [request.row["question"] for request in served.engine.requests]
    assert logged == ["a request of 3 conversations is stopped: its client left"]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_leaves_before_the_reply_begins(served, stream):
    sent = [{"type": "http.request", "body": body(messages=messages("hold"), stream=stream).encode()}]
    scope = {"type": "http", "method": "POST", "path": "/v1/chat/completions", "query_string": b""}
    headers = [(b"content-type", b"application/json"), (b"host", b"localhost")]

    async def receive():
        return sent.pop() if sent else {"type": "http.disconnect"}

    async def send(_):
        await asyncio.sleep(0.05)  # the client is gone before the first line

    served.engine.go_on.clear()
    asyncio.run(served.app({**scope, "headers": headers, "asgi": {"spec_version": "2.3"}}, receive, send))
    busy = served.worker.busy
    served.engine.go_on.set()
    assert busy == 0


def conversations(served):
    return httpx.get(f"{served.url}/health", trust_env=False, verify=False).json()["conversations"]


STOPPED = """
import socket
from tests.serve.conftest import Served
from vilasr_jax.serve.run import run_server
served = Served()
served.stack.close()
close = served.worker.close
served.worker.close = lambda: (close(), served.engine.go_on.set())
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
try:
    run_server(served.worker, served.app, listener)
finally:
    print(len(served.engine.requests), served.engine.cancelled)
"""


def test_ctrl_c_stops_the_server():
    """Clients get a 503; the running conversation is cancelled, and those behind it never begin."""
    process = subprocess.Popen([sys.executable, "-c", STOPPED], stdout=subprocess.PIPE, text=True)
    url = f"http://127.0.0.1:{process.stdout.readline().strip()}/v1/chat/completions"
    ask = partial(httpx.post, url, headers=JSON, trust_env=False, verify=False, timeout=60)
    with ThreadPoolExecutor() as pool:
        replies = [pool.submit(ask, content=body(messages=messages("hold slow"))) for _ in range(4)]
        busy = partial(httpx.get, url.replace("v1/chat/completions", "health"), trust_env=False, verify=False)
        wait_until(lambda: busy().json()["conversations"] == 4, 60)
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "Stopping\n"
        for reply in replies:
            assert reply.result().status_code == 503 and "the server stops" in reply.result().text
    assert process.stdout.read() in ("0 0\n", "1 1\n") and process.wait(60)


def test_ctrl_c_while_shapes_are_compiled(capsys):
    """It is said at once, in the main thread; the compilation of one shape can't be interrupted."""

    class Compiling:
        def warm_up(self, params, note):
            note(0, 2)
            _thread.interrupt_main()
            wait_until(lambda: worker.closing)
            note(1, 2)
            raise AssertionError("compiles on")

    worker = Worker(Compiling(), None, DrawingSettings(), (784, 10**6), SamplingSection(), Limits())
    with pytest.raises(KeyboardInterrupt):
        warm_up(worker)
    assert "Stopping, once this shape is compiled" in capsys.readouterr().out


def test_a_slow_answer_is_a_timeout():
    served = Served(Limits(slots=1, waiting=2, seconds=0.3))
    try:
        reply = post(served, body(messages=messages("slow")))
        assert reply.status_code == 504 and "0.3 seconds" in reply.json()["error"]["message"]
        lines = post(served, body(messages=messages("slow"), stream=True)).text.strip().splitlines()
        assert json.loads(lines[-1][6:])["error"]["code"] == "timeout"
        wait_until(lambda: served.worker.busy == 0)
    finally:
        served.close()


def test_the_engine_fails_and_goes_on(served):
    reply = post(served, body(messages=messages("crash")))
    assert reply.status_code == 503 and "try again" in reply.json()["error"]["message"]
    assert post(served, body()).status_code == 200 and served.worker.busy == 0


def test_a_failure_counts_requests_that_are_still_read(served, monkeypatch):
    """They were released twice: `busy` went below zero, and more were admitted than the limit says."""
    read, reading, go_on = type(served.worker)._request, threading.Event(), threading.Event()

    def slow(worker, chat, stream):
        if "later" in chat.question:
            reading.set()
            go_on.wait(10)
        return read(worker, chat, stream)

    monkeypatch.setattr(type(served.worker), "_request", slow)
    with ThreadPoolExecutor() as pool:
        later = pool.submit(post, served, body(messages=messages("later")))
        assert reading.wait(10)
        assert post(served, body(messages=messages("crash"))).status_code == 503
        assert served.worker.busy == 1
        go_on.set()
        assert later.result().status_code == 200
    wait_until(lambda: served.worker.busy == 0)


def test_token_and_host():
    served = Served(token="s3cret", hosts=("127.0.0.1",))
    try:
        assert post(served, body()).status_code == 401
        assert post(served, body(), Authorization="Bearer wrong").status_code == 401
        assert post(served, body(), Authorization="Bearer s3cret").status_code == 200
        assert post(served, body(), Authorization="Bearer s3cret", Host="evil.example").status_code == 400
        with pytest.raises(openai.AuthenticationError):
            client(served).models.list()
        assert client(served, "s3cret").models.list().data
    finally:
        served.close()


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
VALUES = LEAVES | st.lists(LEAVES, max_size=3) | st.dictionaries(st.text(max_size=4), LEAVES, max_size=2)
FIELDS = ["model", "messages", "n", "seed", "stream", "temperature", "top_p", "max_tokens", "options", "stop"]
PARTS = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url"]) | VALUES, "text": VALUES, "image_url": VALUES}
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "system"]) | VALUES, "content": st.lists(PARTS) | VALUES}
    ),
    max_size=2,
)


@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    fields=st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=3),
    sent=st.none() | MESSAGES,
    cut=st.floats(0.5, 1),
)
def test_no_request_makes_it_fail(served, http, fields, sent, cut):
    text = json.dumps({"messages": messages() if sent is None else sent, **fields})
    for content in (text, text[: int(len(text) * cut)]):
        reply = http.post(f"{served.url}/v1/chat/completions", content=content, headers=JSON)
        assert reply.status_code == 200 or 400 <= reply.status_code < 500, reply.text
        assert reply.status_code == 200 or reply.json()["error"]["message"]


def wait_until(true, seconds=10):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)
