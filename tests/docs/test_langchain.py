"""LangChain, really installed, puts held-out questions to `vilasr serve`: its answers and score are ours.

As in `test_commands`, the model is of four training steps, or VILASR_QUICKSTART=DIR, of which right answers
are expected, too.
"""

import pytest

from tests.docs.test_commands import QUICKSTART
from tests.docs.test_commands import folder as folder
from tests.docs.test_commands import server as server
from vilasr_jax.sampler import Sampler
from vilasr_jax.serve.replies import data_url

langchain = pytest.importorskip("langchain_openai", reason="the extra [clients] is missing")
pytestmark = pytest.mark.slow
ROWS = 16


def test_answers_and_score_are_those_of_the_sampler(server, folder, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    sampler = Sampler(folder / "runs" / "quickstart")
    rows = sampler.rows("test", ROWS)
    ours = [conversation.answer or "" for conversation in sampler.sample_rows(rows)]

    def message(row):
        image = {"type": "image_url", "image_url": {"url": data_url(row.images[0])}}
        return [("user", [image, {"type": "text", "text": row.question}])]

    chat = langchain.ChatOpenAI(
        model="quickstart:answer",
        base_url=f"{server}/v1",
        api_key="none",
        temperature=0,
        max_tokens=16,
        timeout=600,
        extra_body={"options": list(rows[0].options)},
    )
    assert all(row.options == rows[0].options for row in rows)
    theirs = [reply.content for reply in chat.batch(list(map(message, rows)), {"max_concurrency": 8})]
    right = [row.answer for row in rows]
    print(f"right: {sum(a == b for a, b in zip(theirs, right, strict=True))} of {ROWS}")
    assert theirs == ours
    assert not QUICKSTART or sum(a == b for a, b in zip(theirs, right, strict=True)) > 0.8 * ROWS
