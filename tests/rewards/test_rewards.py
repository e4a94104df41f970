import doctest

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vilasr_jax.drawing import DrawingSession
from vilasr_jax.errors import ConfigError
from vilasr_jax.rewards import RewardSettings, parse_answer, register, registry, rule, score

BOX = (
    "<think>look</think> Action: Object Mapper\n```json\n"
    '[{"index": 1, "bbox_2d": [2, 3, 9, 9], "label": "S"}]\n```'
)
LINE = (
    "<think>go</think> Action: Path Tracer\n```json\n"
    '[{"index": 2, "start_point_2d": [14, 14], "end_point_2d": [42, 14], "label": "path"}]\n```'
)
ANSWER = "<think>so</think> Action: Answer\n<answer>B</answer>"
DREW = {"drawn": [2], "repeated": 0}
REPEATED = {"drawn": [], "repeated": 1}


def test_published_rule():
    assert score([BOX, LINE, ANSWER], answer="B")["total"] == 1.0
    assert score([BOX, LINE, ANSWER], answer="<answer>B</answer>")["total"] == 1.0
    wrong = score([BOX, LINE, ANSWER], answer="C")
    assert wrong["format"] == 1.0 and wrong["total"] == 0.0  # the form alone earns nothing
    assert score([BOX, "Action: Answer <answer>B</answer>"], answer="B")["total"] == 0.5


@pytest.mark.parametrize(
    ("said", "right", "kind", "want"),
    [
        ("B", "B", "multiple choice", 1.0),
        ("(b).", "B", "multiple choice", 1.0),
        ("B or C", "B", "multiple choice", 0.0),
        ("", "B", "multiple choice", 0.0),
        ("9", "10", "numerical", 0.9),
        ("9.0 m", "10", "regression", 0.9),
        ("4.9", "10", "regression", 0.0),
        ("nan", "10", "regression", 0.0),
        ("1e999", "10", "regression", 0.0),
        ("ten", "10", "numerical", 0.0),
        ("1,000", "1000", "numerical", 1.0),
        ("Left ", "left", "free-form", 1.0),
        ("", "", "free-form", 0.0),
        ("rotate_left:20, move_right:0.3", "move_right:0.3,rotate_left:20", "vci", 1.0),
        ("move_left:0.3", "move_right:0.3,rotate_left:20", "vci", 0.6),
        ("to the left", "move_right:0.3", "vci", 0.0),
    ],
)
def test_accuracy(said, right, kind, want):
    text = f"<think>so</think> Action: Answer\n<answer>{said}</answer>"
    assert score([text], answer=right, question_type=kind)["accuracy"] == pytest.approx(want)


LETTERED = ("A. right", "B. left")


@pytest.mark.parametrize(
    ("said", "right", "options", "want"),
    [
        *(
            (said, right, LETTERED, 1.0)
            for said in ("B", "B. left", "(b) Left")
            for right in ("B. left", "B")
        ),
        *((said, "(B) left", LETTERED, 1.0) for said in ("B", "B.", "B: left", "(B) left")),
        ("A", "B. left", LETTERED, 0.0),
        ("A. right", "B. left", LETTERED, 0.0),
        ("B. right", "B. left", LETTERED, 0.0),  # contradicts itself
        ("B. or C", "B", LETTERED, 0.0),
        ("B", "left", LETTERED, 1.0),
        ("left", "left", LETTERED, 1.0),
        ("A", "left", LETTERED, 0.0),
        ("B", "B. left", ("right", "left"), 1.0),
        ("B. left", "B. left", ("right", "left"), 1.0),
        ("B", "B. left", (), 0.0),  # no options: a text
        ("B. left", "B. left", (), 1.0),
    ],
)
def test_a_right_answer_may_be_a_letter_with_its_text(said, right, options, want):
    text = f"<think>so</think> Action: Answer\n<answer>{said}</answer>"
    assert score([text], answer=right, options=options)["accuracy"] == want


def test_no_answer_tag_scores_nothing():  # fault 3: the first number or letter counted
    for text in ("<think>12 steps</think> Action: Answer\n12", "12", "B", "Action: Answer B"):
        assert score([text], answer="12", question_type="numerical")["total"] == 0.0
        assert score([text], answer="B")["total"] == 0.0
    assert score([ANSWER, "I am sure"], answer="B")["accuracy"] == 0.0  # only the last turn answers
    assert score([], answer="B")["total"] == 0.0


def test_answer_without_drawing_is_reported_or_refused():  # fault 4
    direct, drawn = score([ANSWER], [{"drawn": []}], answer="B"), score([BOX, ANSWER], [DREW, {}], answer="B")
    assert (direct["drew"], direct["total"]) == (0.0, 1.0) and drawn["drew"] == 1.0
    must = RewardSettings(must_draw=True)
    assert score([ANSWER], [{"drawn": []}], answer="B", settings=must)["total"] == 0.0
    assert score([BOX, ANSWER], [DREW, {}], answer="B", settings=must)["total"] == 1.0


@pytest.mark.parametrize(
    "block",
    [
        "[1,2]",
        "7",
        "null",
        "[null]",
        '[{"index": 1}]',
        "[" * 500,
        "{",
        "[[[]]]",
        '[{"index": 1e400, "bbox_2d": [NaN, 1, 2, 3], "label": "a"}]',
    ],
)
def test_odd_json_never_raises_and_breaks_the_form(block):  # fault 8
    text = f"<think>x</think> Action: Object Mapper\n```json\n{block}\n```"
    got = score([text, ANSWER], answer="B")
    assert got["format"] == 0.0 and got["total"] == 0.5


@pytest.mark.parametrize(
    "turns",
    [
        [BOX.replace("<think>", ""), ANSWER],
        [BOX.replace("Action: Object Mapper", "Object Mapper"), ANSWER],
        [BOX + "<answer>B</answer>", ANSWER],
        [BOX.replace(', "label": "S"', ""), ANSWER],
        [ANSWER, ANSWER],
        [BOX, "<answer>B</answer>"],
    ],
)
def test_form_is_strict(turns):
    assert score(turns, answer="B")["format"] == 0.0


@given(
    st.lists(st.text(max_size=80) | st.sampled_from([BOX, LINE, ANSWER, BOX[:40], ANSWER[:-6]]), max_size=4),
    st.text(max_size=12),
    st.sampled_from(["multiple choice", "numerical", "regression", "vci", "free-form", "?"]),
)
@settings(max_examples=150, deadline=None)
def test_any_text_scores_between_0_and_1(texts, answer, kind):
    got = score(texts, answer=answer, question_type=kind)
    assert all(0.0 <= value <= 1.0 for value in got.values())


def test_drawing_reward_compares_the_last_call_of_each_label():
    meta = {
        "drawings": [
            {"label": "path", "points": [[14, 14], [42, 14]], "tolerance": 5},
            {"label": "S", "points": [[2, 3], [50, 50]], "tolerance": 5},
        ]
    }
    got = score([BOX, LINE, ANSWER], answer="B", meta=meta, settings=RewardSettings(0.5, 0.25, 0.25))
    assert got["drawing"] == 0.5 and got["total"] == pytest.approx(0.875)
    assert "drawing" not in score([BOX, LINE, ANSWER], answer="B", meta=meta)
    nothing_to_compare = score([BOX, ANSWER], answer="B", settings=RewardSettings(drawing_weight=0.5))
    assert nothing_to_compare["drawing"] == 0.0 and nothing_to_compare["total"] == 1.0


FIVES = ("5", "+5", "5.0", "5.", "5,", "5;", "5 m", "5m", "5th", "5 m²", "5\u00a0m")
NUMBERS = {  # what an answer says, and the number that it starts with
    **dict.fromkeys(FIVES, 5.0),
    "-5": -5.0,
    "\u22125": -5.0,
    "1,200.5": 1200.5,
    "50%": 50.0,
    "1e3": 1000.0,
    ".5": 0.5,
    "3, maybe 4": 3.0,
    **dict.fromkeys(("5 m2", "5 km", "5 mm", "5 bottles", "5 metres", "5 minutes", "5 kg", "5 K"), 5.0),
    "3 chairs, 4 tables": 3.0,
    "3 and no more": 3.0,
}
NONE = (
    "1/2",
    "3/4 m",
    "2½",
    "½",
    "5²",
    "5-6",
    "5 to 6",
    "5\u20136",
    "5 - 6",
    "5~6",
    "3:30",
    "3.14,2",
    "1.200,5",
    "1,5",
    "5.5.5",
    "1 200",
    "1'200",
    "1_200",
    "2*10^3",
    "2x3",
    "0x10",
    "1e",
    "1, 2, 3",
    "3,000,00",
    "5\n6",
    "1e400",
    "inf",
    "1.5 million",
    "3 Billion",
    "5k",
    "5 k",
    "2M",
    "2 dozen",
    "3 hundred",
    "5万",
    "2 + 3",
    "2+3",
    "4 = 4",
    "4 -> 5",
    "2 plus 3",
    "3 by 4",
    "3 and a half",
    "3 meters and a half",
    "3 feet 2 inches",
    "3 feet, 2 inches",
    "6 ft. 2 in",
    "6ft2in",
    "3 m, 20 cm",
    "3 m 20 cm",
    "five",
    "about 5",
    "$5",
    "(5)",
    "--5",
    "-",
    "",
)


@pytest.mark.parametrize("said", [*NUMBERS, *NONE])
def test_no_number_is_cut_out_of_a_longer_one(said):
    assert parse_answer.read_number(said) == NUMBERS.get(said)
    text = f"<think>so</think> Action: Answer\n<answer>{said}</answer>"
    got = score([text], answer="1", question_type="regression")
    assert got["accuracy"] == parse_answer.mean_relative_accuracy(NUMBERS.get(said), 1.0)


def test_repeat_penalty_is_off_by_default():
    events = [DREW, REPEATED, {}, {}]
    assert "repeat" not in score([BOX, BOX, LINE, ANSWER], events, answer="B")
    got = score([BOX, BOX, LINE, ANSWER], events, answer="B", settings=RewardSettings(repeat_penalty=0.4))
    assert got["repeat"] == 0.25 and got["total"] == pytest.approx(0.9)


def test_own_reward_by_name(monkeypatch):
    monkeypatch.setattr(registry, "_REWARDS", dict(registry._REWARDS))

    @register("short")
    def short(done):
        return 1.0 if len(done.turns) < 3 else 1 / 0

    weighted = RewardSettings(extra=(("short", 0.2),))
    assert score([BOX, ANSWER], answer="B", settings=weighted)["total"] == pytest.approx(1.2)
    assert (
        score([BOX, LINE, ANSWER], answer="B", settings=weighted)["short"] == 0.0
    )  # it raised: 0, and the job continues
    with pytest.raises(ConfigError, match="no reward named 'shorter'; there are: accuracy, "):
        score([ANSWER], answer="B", settings=RewardSettings(extra=(("shorter", 1.0),)))
    with pytest.raises(ConfigError, match="registered twice"):
        register("short")(lambda done: 1.0)
    register("short")(short)  # the same one again, as when a cell is run twice


def test_examples_in_docstrings():
    for module in (parse_answer, rule):
        assert doctest.testmod(module).failed == 0


def test_events_of_a_real_session():
    session = DrawingSession([Image.new("RGB", (56, 56))], "Which letter?")
    texts = [BOX, LINE, ANSWER]
    for text in texts:
        session.step(text)
    got = score(
        texts, session.events, answer="B", settings=RewardSettings(repeat_penalty=0.4, must_draw=True)
    )
    assert got == {"accuracy": 1.0, "format": 1.0, "repeat": 0.0, "drew": 1.0, "total": 1.0}
