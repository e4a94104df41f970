"""Broken rows of a file: each is named with its line, and the others are imported."""

import json

import pytest
from etils import epath
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tasks.importers.published import question
from vilasr_jax.errors import DataError
from vilasr_jax.tasks.importers import import_data, items, run
from vilasr_jax.tasks.stored import StoredRows

BROKEN = {
    3: ({"answer": None}, "answer is missing"),
    20: ({"image_path": ["gone/q.png"]}, "image gone/q.png is missing"),
    41: ({"question_type": "riddle"}, "question_type 'riddle' is unknown"),
    77: ({"image_path": ["torn.png"]}, "image torn.png"),
}


NO_JSON = 98


@pytest.mark.parametrize("layout", ["lines", "list"])
def test_five_in_a_hundred_broken(torn, tmp_path, layout):
    texts = [json.dumps(question(n, **BROKEN.get(n, ({},))[0])) for n in range(100)]
    texts[NO_JSON] = texts[NO_JSON].replace('"data_type"', "data_type")
    if layout == "lines":
        file, text = torn / "rl.jsonl", "\n".join(texts)
        line = {n: n + 1 for n in range(100)}
    else:
        file, text = torn / "rl.json", "[\n" + ",\n".join(texts) + "\n]\n"
        line = {n: n + 2 for n in range(100)}
    file.write_text(text)
    index = import_data("rl", torn, tmp_path / "out")
    rows = list(StoredRows([tmp_path / "out"]))
    bad = {*BROKEN, NO_JSON}
    assert index["rows"] == 95 and index["broken"] == 5
    assert [row.question for row in rows] == [f"question {n}?" for n in range(100) if n not in bad]
    lines = (tmp_path / "out" / run.BROKEN).read_text().splitlines()
    assert len(lines) == 5
    for said, number in zip(lines, sorted(bad), strict=True):
        assert said.startswith(f"{file}:{line[number]}: "), said
        assert BROKEN.get(number, (0, "isn't valid JSON"))[1] in said, said


@settings(deadline=None)
@given(st.text(alphabet='[{}],:"\\ab1\n ', max_size=80), st.sampled_from(["", "[", "{"]))
def test_any_file_is_read_or_refused(tmp_path_factory, text, start):
    path = epath.Path(tmp_path_factory.getbasetemp() / "any.json")
    path.write_text(start + text)
    try:
        found = list(items.read_items(path))
    except DataError:
        return
    assert all((item.value is None) != (item.error is None) and 0 <= item.at <= 1 for item in found)
    assert all(1 <= item.line <= text.count("\n") + 1 for item in found)


@pytest.mark.parametrize(
    ("text", "questions", "said"),
    [
        (
            '[{"question": 1},\n{"question": BAD},\n{"id": 3, "question": 3},\n{"question": 4}]',
            [1, 3, 4],
            ":2",
        ),
        ('[{"question": 1},\n{"question": 2},\n', [1, 2], ":3: the list has no end"),
        ('[{"question": 1},\n{"question": 2', [1], ":2: isn't valid JSON"),
        ('[{"question": 1}]\n[{"question": 2}]\n', [1, 2], ":1: isn't valid JSON (the list ends here"),
        ('[{"question": 1, "m": [{"role": "u"}, BAD, {"role": "v"}]},\n{"question": 2}]', [2], ":1"),
        ('[{"question": 1},\n{"question": "2},\n{"question": 3}]', [1, 3], ":2"),
        ('[{"question": 1},\n{"question": BAD, "m": [{"a": 1}, {"a": 2}]}]', [1], "; nothing after it is"),
    ],
    ids=["other first key", "cut off", "cut in an item", "two lists", "nested", "open string", "last"],
)
def test_after_a_broken_item_no_other_is_lost(tmp_path, text, questions, said):
    path = epath.Path(tmp_path / "any.json")
    path.write_text(text)
    found = list(items.read_items(path))
    assert [item.value["question"] for item in found if item.value] == questions
    (broken,) = [item for item in found if item.value is None]
    assert said in f":{broken.line}: {broken.error}"
