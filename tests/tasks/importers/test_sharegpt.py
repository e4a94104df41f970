"""Recorded conversations: dialects, tools, and what is said of broken ones."""

import json

import pytest

from vilasr_jax.tasks.importers import import_data, run
from vilasr_jax.tasks.stored import StoredRows


@pytest.mark.parametrize(
    ("change", "part"),
    [
        ({"conversations": []}, "conversations"),
        ({"conversations": [{"role": "user", "content": "<image>?"}]}, "end with the assistant's"),
        ({"images": ["p.png", "p.png"]}, "1 <image>, images 2 paths"),
        ({"conversations": [{"role": "robot", "content": "x"}]}, "role 'robot'"),
        ({"conversations": [{"role": "user"}]}, "message 1"),
        (
            {
                "conversations": [
                    {"role": "user", "content": "?"},
                    {"role": "assistant", "content": "<image>"},
                ]
            },
            "an assistant message holds an image",
        ),
    ],
)
def test_broken_conversations(torn, tmp_path, change, part):
    good = {
        "conversations": [{"role": "user", "content": "<image>?"}, {"role": "assistant", "content": "x"}],
        "images": ["p.png"],
    }
    (torn / "vqa.json").write_text(json.dumps([good, {**good, **change}]))
    assert import_data("cold_start", torn, tmp_path / "out")["broken"] == 1
    assert part in (tmp_path / "out" / run.BROKEN).read_text()


SAID = "<think> a </think> Action: Answer\n<answer> B </answer>"


OPENING = {"role": "user", "content": "<image>\nWhere?"}


DIALECTS = {
    "from and value": {
        "conversations": [{"from": "human", "value": "<image>\nWhere?"}, {"from": "gpt", "value": SAID}]
    },
    "messages": {"messages": [OPENING, {"role": "assistant", "content": SAID}]},
    "human and gpt": {"conversations": [{**OPENING, "role": "human"}, {"role": "gpt", "content": SAID}]},
    "image": {
        "conversations": [OPENING, {"role": "assistant", "content": SAID}],
        "image": "p.png",
        "images": None,
    },
    "parts": {
        "messages": [
            {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "\nWhere?"}]},
            {"role": "assistant", "content": [{"type": "text", "text": SAID}]},
        ]
    },
}


@pytest.mark.parametrize("name", DIALECTS)
def test_dialects_of_sharegpt_are_read_alike(torn, tmp_path, name):
    row = {"images": ["p.png"], **DIALECTS[name]}
    (torn / "vqa.json").write_text(json.dumps([{k: v for k, v in row.items() if v is not None}]))
    assert import_data("cold_start", torn, tmp_path / "out")["rows"] == 1
    (stored,) = StoredRows([tmp_path / "out"])
    assert stored.answer == "B" and len(stored.images) == 1
    assert stored.messages == (OPENING, {"role": "assistant", "content": SAID})


def test_what_a_tool_gives_back_is_a_user_message(torn, tmp_path):
    said = [
        OPENING,
        {"role": "assistant", "content": "x"},
        {"role": "observation", "content": "<image>"},
        {"role": "assistant", "content": SAID},
    ]
    row = {"conversations": said, "images": ["p.png", "p.png"], "system": "Draw."}
    (torn / "vqa.json").write_text(json.dumps([row]))
    import_data("cold_start", torn, tmp_path / "out")
    (stored,) = StoredRows([tmp_path / "out"])
    assert [message["role"] for message in stored.messages] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert stored.messages[0]["content"] == "Draw."
