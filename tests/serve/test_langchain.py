"""LangChain's client, really installed (the extra [clients]), against the server of a scripted model."""

import pytest

from tests.serve.conftest import messages

langchain = pytest.importorskip("langchain_openai", reason="the extra [clients] is missing")


@pytest.fixture
def chat(served, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")

    def open_chat(model, **fields):
        base = f"{served.url}/v1"
        return langchain.ChatOpenAI(model=model, base_url=base, api_key="none", timeout=60, **fields)

    return open_chat


def test_a_batch_of_bare_answers(chat, served):
    questions = [[("user", messages(f"Which way, {n}?")[0]["content"])] for n in range(5)]
    replies = chat("maze:answer", max_tokens=16, temperature=0).batch(questions, {"max_concurrency": 3})
    assert [reply.content for reply in replies] == ["B"] * 5
    assert replies[0].usage_metadata["output_tokens"] > 0
    assert {request.temperature for request in served.engine.requests[-5:]} == {0}


def test_markdown_streams(chat):
    pieces = [piece.content for piece in chat("maze:markdown").stream([("user", messages()[0]["content"])])]
    text = "".join(pieces)
    assert len(pieces) > 3 and text.startswith("It goes right.") and text.endswith("**B**")


def test_a_refusal_says_why(chat):
    with pytest.raises(Exception, match=r"no model .other. here"):
        chat("other", max_retries=0).invoke([("user", messages()[0]["content"])])
