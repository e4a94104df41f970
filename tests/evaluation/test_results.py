"""Results files: written shard by shard in the published layout, scored again without a model, compared."""

import doctest
import json

import numpy as np
import pytest
from PIL import Image

from tests import tiny
from vilasr_jax import files
from vilasr_jax.bench.learn import _right
from vilasr_jax.drawing import DrawingSession, DrawingSettings, joined
from vilasr_jax.errors import DataError
from vilasr_jax.evaluation import ResultsFile, compare, read_results, result_line, score_lines, summarize
from vilasr_jax.evaluation.benchmarks import SPAR_GROUPS, VSI_TYPES, benchmark_table, row_weights
from vilasr_jax.evaluation.compare import sign_flip_p
from vilasr_jax.evaluation.intervals import mcnemar
from vilasr_jax.evaluation.score_file import SKIPPED, _prediction
from vilasr_jax.processing import encode_conversation
from vilasr_jax.rewards import score as reward_of
from vilasr_jax.rollout import Trajectory, messages_of
from vilasr_jax.tasks import Row
from vilasr_jax.tasks.importers.sharegpt import read_sharegpt
from vilasr_jax.tasks.rows import question_record

BOX = (
    "<think> I look at <image> and <|im_end|> too. </think> Action: Object Mapper\n```json\n"
    '[{"index": 1, "bbox_2d": [2, 3, 20, 20], "label": "S"}]\n```'
)
ANSWER = "<think> So. </think> Action: Answer\n<answer> B </answer>"


def trajectory(number=0, texts=(BOX, ANSWER), sample: int = 0, answer: str = "B", **meta) -> Trajectory:
    """A conversation about two images, its ids as a rollout would have them."""
    images = tuple(Image.new("RGB", size, "teal") for size in ((56, 28), (28, 56)))
    row = Row(f"row-{number}", "Which?", answer, "multiple choice", ("A. x", "B. y"), images, "vqa", meta)
    session = row.session(DrawingSettings(prompt="short"))
    messages = session.messages
    for text in texts:
        messages.append({"role": "assistant", "content": text})
        reply = session.step(text)
        if reply.message:
            messages.append(reply.message)
    encoded = encode_conversation(tiny.tokenizer(), messages)
    right = float(session.answer == answer)
    return Trajectory(
        f"{row.id}/{sample}",
        encoded.ids,
        encoded.loss_mask,
        np.zeros(len(encoded.ids), np.float32),
        list(session.images),
        session.events,
        session.stop_reason,
        2,
        len(encoded.images),
        question_record(row),
        {"accuracy": right, "format": 1.0, "total": right},
    )


def line_of(t: Trajectory, image_folder=None) -> dict:
    return result_line(t, tiny.tokenizer(), stage="rl", model_id="tiny/rl", image_folder=image_folder)


def test_messages_are_read_back_from_the_ids():
    t = trajectory()
    messages = messages_of(t, tiny.tokenizer())
    assert [m["role"] for m in messages] == ["system", "user", "assistant", "user", "assistant"]
    said = [joined(m, "#") for m in messages if m["role"] == "assistant"]
    assert said == [BOX, ANSWER]  # what looks like a special token in the text stays text
    kinds = [[part["type"] for part in m["content"]] for m in messages if m["role"] == "user"]
    assert kinds[0].count("image") == 2 and kinds[1].count("image") == 1
    assert joined({"content": [{"type": "image"}, {"type": "text", "text": "a <image>"}]}, "<image>") == (
        "<image>a < image>"
    )


def test_a_line_has_the_published_layout(tmp_path):
    published = ["question", "options", "problem_type", "original_question_type", "data_type"]
    published += ["image_path", "answer", "grid_size", "conversations", "model_output", "model_id"]
    published += ["sample_dir"]
    line = line_of(trajectory(original_question_type="MSR"), tmp_path / "images")
    assert list(line)[: len(published)] == published
    assert line["model_output"] == ANSWER and line["problem_type"] == "multiple choice"
    assert [m["role"] for m in line["conversations"]] == ["system", "user", "assistant", "user", "assistant"]
    system, opening, said, drawn, _ = line["conversations"]
    assert isinstance(system["content"], str) and said["content"] == BOX
    assert [part["type"] for part in opening["content"]] == ["image", "image", "text"]
    assert opening["content"][2]["text"].count("<|vision_start|><|image_pad|><|vision_end|>") == 2
    paths = [p["image"] for m in (opening, drawn) for p in m["content"] if p["type"] == "image"]
    assert paths == [f"images/row-0-0_{k}.png" for k in (1, 2, 3)]
    assert all((tmp_path / path).exists() for path in paths)
    assert (line["prediction"], line["score"], line["correct"], line["sample"]) == ("B", 1.0, True, 0)
    json.dumps(line)


def test_the_file_grows_by_complete_shards(tmp_path):
    lines = [line_of(trajectory(n)) for n in range(7)]
    full = ResultsFile(tmp_path / "full", 3)
    assert full.begin() == 0
    full.append(lines)
    broken = ResultsFile(tmp_path / "broken", 3)
    broken.begin()
    broken.append(lines[:3])
    for half in (json.dumps(lines[3]) + "\n" + json.dumps(lines[4])[:40], "{", json.dumps(lines[3]) + "\n"):
        with broken.path.open("a") as file:
            file.write(half)
        assert ResultsFile(tmp_path / "broken", 3).begin() == 3
    broken.append(lines[3:])
    assert broken.path.read_bytes() == full.path.read_bytes() and broken.read() == lines


def test_summary_over_samples():
    samples = [(n, s, "B" if n + s < 2 else "A") for n in range(3) for s in (0, 1)]
    lines = [line_of(trajectory(n, sample=s, answer=right)) for n, s, right in samples]
    scores = summarize(lines)  # right: 2 of 2, 1 of 2, 0 of 2
    assert scores["accuracy"] == pytest.approx(0.5) and scores["n"] == 3 and scores["samples"] == 2
    assert scores["pass_at_k"] == pytest.approx({"1": 0.5, "2": 2 / 3})
    assert scores["drawings"] == 1 and scores["drew"] == 1 and "pass_at_k" not in summarize(lines[::2])


# ------------------------------------------------------------------------------------------------------------
# anyone's results
# ------------------------------------------------------------------------------------------------------------


def published(kind: str, said: str, answer: str, of: str, number: int = 0) -> dict:
    return {
        "question": f"{of} {number}",
        "problem_type": kind,
        "answer": answer,
        "original_question_type": of,
        "image_path": ["1.png"],
        "conversations": [],
        "model_output": said,
        "model_id": "x",
        "sample_dir": None,
    }


def test_scoring_a_published_file(tmp_path):
    lines = [
        published("regression", "<think>.</think>\n<answer> 9 </answer>", "10", "object_counting"),
        published("regression", "10", "10", "object_counting", 1),  # no <answer>: 0, whatever the text says
        published("multiple choice", "<answer>b", "B", "object_rel_direction_easy"),
        published("multiple choice", "<answer>A</answer>", "B", "object_rel_direction_hard"),
    ]
    for name, text in {
        "lines.jsonl": "\n".join(map(json.dumps, lines)) + "\n\n",
        "list.json": json.dumps(lines),
        "vsi_bench/results.jsonl": "\n".join(map(json.dumps, lines)),
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        run = read_results(path)
        means = {key: mean.mean for key, mean in run.table.means.items()}
        assert run.benchmark == "vsi_bench" and run.unanswered == 1 and not run.broken
        assert means == pytest.approx(
            {"object_counting": 0.45, "object_rel_direction": 0.5, "overall": 0.475}
        )
    assert read_results(tmp_path / "vsi_bench").table.overall.mean == pytest.approx(0.475)
    assert read_results(tmp_path / "list.json", "maze").table.overall.mean == pytest.approx(1.9 / 4)
    scores = run.to_dict()
    assert scores["scored"] == {"regression": 2, "multiple choice": 2}
    assert "first characters" in scores["scorers"]["multiple choice"]


def test_our_own_file_scores_the_same_again(tmp_path):
    lines = [line_of(trajectory(n, answer="AB"[n % 2], benchmark="mmsi_bench")) for n in range(4)]
    lines.append(line_of(trajectory(5, texts=(BOX,))))  # ended without an answer
    results = ResultsFile(tmp_path, 5)
    results.begin()
    results.append(lines)
    run = read_results(tmp_path)
    assert [score for own in run.scores.values() for score in own] == [line["score"] for line in lines]
    assert run.table.overall.mean == pytest.approx(2 / 5) and run.unanswered == 1


@pytest.mark.parametrize(
    ("line", "part"),
    [
        ('{"problem_type": "riddle", "answer": "x", "model_output": ""}', "'riddle' is unknown"),
        ('{"problem_type": "vci", "model_output": ""}', "answer is missing"),
        ('{"problem_type": "vci", "answer": "x"}', "no model_output"),
        ('{"problem_type": "vci", "answer": "x", "model_output": 3}', "no model_output"),
    ],
)
def test_lines_that_can_not_be_scored_count_as_wrong(tmp_path, line, part):
    path = tmp_path / "r.jsonl"
    good = json.dumps(published("multiple choice", "<answer>A</answer>", "A", "MSR"))
    path.write_text(f"{good}\n{line}\n")
    run = read_results(path)
    assert run.table.overall.mean == 0.5 and run.table.overall.n == 2 and part in run.broken[0]
    assert run.to_dict()["counted_as_wrong"] == 1
    path.write_text(line)
    with pytest.raises(DataError, match="no line can be scored"):
        read_results(path)
    with pytest.raises(DataError, match=r"none\.jsonl: can't be read"):
        read_results(tmp_path / "none.jsonl")


def test_a_line_without_a_type_stops_a_mean_over_types():
    said = "<answer>B</answer>"
    lines = [published("multiple choice", said, "B", "route_planning", n) for n in range(9)]
    lines.append({**lines[0], "id": "row-99", "original_question_type": None})
    with pytest.raises(DataError, match="1 of 10 questions have no original_question_type"):
        score_lines(lines, "vsi_bench")
    assert score_lines(lines, "maze").table.overall.mean == 1


def test_a_line_without_a_question_does_not_change_others():
    said = "<answer>B</answer>"
    lines = [published("multiple choice", said, "B", "", n) for n in (0, 1) for _ in "ab"]
    lines = [{**line, "id": line["question"]} for line in lines]
    nameless = {"problem_type": "multiple choice", "answer": "B", "prediction": "B"}
    scores = score_lines([*lines, nameless], "maze").to_dict()
    assert scores["samples"] == 2 and scores["pass_at_k"]


def test_lines_with_the_same_words_are_questions_of_their_own():
    """VSI-Bench asks "How many chairs are in this room?" of many rooms, with other answers."""
    said = [(2, 2), (3, 3), (4, 1), (5, 1), (3, 3)]
    lines = [published("regression", f"<answer>{p}</answer>", str(n), "object_counting") for n, p in said]
    for images in (["1.png"], None):
        run = score_lines([{**line, "image_path": images} for line in lines], "vsi_bench")
        assert run.table.overall.n == 5 and run.table.overall.mean == pytest.approx(0.6)
    again = [{**line, "sample": sample} for line in lines for sample in (0, 1)]
    for order in (again, again[::2] + again[1::2]):
        scores = score_lines(order, "vsi_bench").to_dict()
        assert scores["overall"]["n"] == 5 and scores["samples"] == 2


ANSWERED = {  # texts of a last turn, and the answer that all readers find
    "<think> a </think> Action: Answer\n<answer> B </answer>": "B",
    "<think> a </think> Action: Answer\n<answer> A </answer> No: <answer> B </answer>": "A",
    "<think> <answer> A </answer>? no </think> Action: Answer\n<answer> B </answer>": "B",
    "<think> It is <answer> A </answer> </think> Action: Answer": None,
    "<think> It is B. Action: Answer\n<answer> B </answer>": "B",
    "<think> a </think> Action: Answer\n<answer> B": "B",
    "<think> a </think> Action: Answer\n<answer> <answer> B </answer>": "B",
    "<think> a </think> Action: Answer\n<Answer> B </Answer>": None,
    "<think> a </think> Action: Answer\n<answer> B </think>": "B",
    "<think> a </think> Action: Answer\n<answer> B <|im_end|>": "B",
    "<think> a </think> Action: Answer\n<answer> B </answer>\nuser\nNext: <answer> C </answer>": "B",
    "<think> a </think> Action: Answer\n<answer> </answer>": "",
}


@pytest.mark.parametrize("text", ANSWERED)
def test_one_reader_of_answers(text):
    """Rollout, trajectory, reward, results, `eval --answers` and import find the same answer in a text."""
    answer = ANSWERED[text]
    session = DrawingSession([Image.new("RGB", (56, 56))], "?")
    session.step(text)
    done = trajectory(1, texts=(text,))
    done.stop_reason = session.stop_reason
    line = json.loads(json.dumps(line_of(done)))
    assert session.answer == answer == done.answer == line.pop("prediction") == _prediction(line)
    assert reward_of([text], answer="B")["accuracy"] == float(answer == "B")
    messages = [{"role": "user", "content": "<image> ?"}, {"role": "assistant", "content": text}]
    assert read_sharegpt({"conversations": messages, "images": ["1.png"]}, "vqa").answer == (answer or "")


def test_both_readings_are_side_by_side():
    lines = [
        published("multiple choice", f"<answer> {said} </answer>", "B", "MSR", n)
        for n, said in enumerate(["B", "(B) left", "C"])
    ]
    scores = score_lines(lines).to_dict()
    assert scores["reading"] == "published" and scores["overall"]["mean"] == pytest.approx(1 / 3)
    assert scores["lenient"]["overall"]["mean"] == pytest.approx(2 / 3)


def test_a_skipped_row_does_not_hide_the_benchmark():
    lines = [published("multiple choice", "<answer>B", "B", "route_planning", n) for n in range(9)]
    lost = {**published("multiple choice", "", "", "unreadable"), "stop_reason": SKIPPED, "meta": {}}
    run = score_lines([*lines, lost])
    assert run.benchmark == "vsi_bench" and run.skipped == 1
    assert run.table.overall.mean == pytest.approx(0.9)


@pytest.mark.parametrize(("line", "part"), [("{", "isn't valid JSON"), ("[]", "is not an object")])
def test_a_line_that_can_not_be_read_stops_the_score(tmp_path, line, part):
    path = tmp_path / "r.jsonl"
    good = json.dumps(published("multiple choice", "<answer>A</answer>", "A", "MSR"))
    path.write_text(f"{good}\n{line}\n{good}\n")
    with pytest.raises(DataError, match=f"1 of 3 lines can't be read \\(line 2: {part}"):
        read_results(path)
    path.write_text(f"[{good}, 3]")
    with pytest.raises(DataError, match="line 2: is not an object"):
        read_results(path)


@pytest.mark.parametrize("char", ["\u2028", "\u2029", "\x85", "\x0c", "\x1e"])
def test_results_are_split_at_line_feeds_alone(tmp_path, char):
    """Each line is scored, wherever it was written: as our own file, and as one from elsewhere."""
    lines = [
        published("multiple choice", f"so{char}it is <answer>{'AB'[n % 4 == 0]}</answer>", "A", "MSR", n)
        for n in range(40)
    ]
    results = ResultsFile(tmp_path, 40)
    results.begin()
    results.append(lines)
    run = read_results(tmp_path)
    assert run.table.overall.mean == 0.75 and run.table.overall.n == 40 and results.read() == lines
    named = [{"id": str(n), "correct": True, "model_output": char} for n in range(3)]
    ResultsFile(tmp_path / "learn", 3).begin()
    ResultsFile(tmp_path / "learn", 3).append(named)
    assert len(_right(tmp_path / "learn")) == 3
    assert doctest.testmod(files).failed == 0
    path = tmp_path / "elsewhere.jsonl"
    text = "\r\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    path.write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert read_results(path).table.overall.n == 40


# ------------------------------------------------------------------------------------------------------------
# comparison
# ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("benchmark", ["vsi_bench", "spar_bench", "maze"])
def test_row_weights_give_the_overall_mean(benchmark):
    rng = np.random.default_rng(0)
    names = {"vsi_bench": [*VSI_TYPES[:3], "object_rel_direction_easy", "object_rel_direction_hard"]}
    kinds = rng.choice(names.get(benchmark, [kind for own in SPAR_GROUPS.values() for kind in own]), 60)
    scores, weights = rng.random(60), row_weights(benchmark, list(kinds))
    overall = benchmark_table(benchmark, zip(kinds, scores.tolist(), strict=True)).overall.mean
    assert weights.sum() == pytest.approx(1) and weights @ scores == pytest.approx(overall)


def run_of(label: str, right, kinds) -> object:
    lines = [
        {
            "id": n,
            "problem_type": "multiple choice",
            "answer": "A",
            "prediction": "A" if r else "B",
            "original_question_type": kind,
        }
        for n, (r, kind) in enumerate(zip(right, kinds, strict=True))
    ]
    return score_lines(lines, label=label)


def test_comparison_is_paired():
    rng = np.random.default_rng(1)
    kinds = ["MSR"] * 100 + ["Motion"] * 100
    first = rng.random(200) < 0.5
    second = first | (rng.random(200) < 0.3)  # never worse
    table = compare([run_of("a", first, kinds), run_of("b", second, kinds), run_of("a again", first, kinds)])
    overall = table["rows"][-1]
    assert [row["name"] for row in table["rows"]] == ["MSR", "Motion", "overall"] and table["n"] == 200
    better, same = overall["differences"]
    assert better["mean"] == pytest.approx(second.mean() - first.mean())
    assert better["ci95"][0] > 0 and better["p"] < 1e-4
    assert better["p"] == pytest.approx(mcnemar(first, second))
    assert same == {"mean": 0, "ci95": [0, 0], "p": 1.0}


def test_comparison_of_macro_means():
    kinds = ["object_counting"] * 90 + ["route_planning"] * 10
    first = [True] * 45 + [False] * 45 + [False] * 10
    second = [True] * 45 + [False] * 45 + [True] * 10
    table = compare([run_of("a", first, kinds), run_of("b", second, kinds)])
    overall = table["rows"][-1]["differences"][0]
    assert table["benchmark"] == "vsi_bench" and overall["mean"] == pytest.approx(0.5)
    assert overall["p"] < 0.01


def test_a_comparison_pools_the_questions_of_a_group():
    kinds = ["depth_prediction_oc"] * 3 + ["distance_prediction_oo"]
    table = compare([run_of("a", [0, 0, 0, 0], kinds), run_of("b", [1, 1, 0, 0], kinds)])
    low = next(row for row in table["rows"] if row["name"] == "Low")
    assert low["means"][1] == low["differences"][0]["mean"] == pytest.approx(0.5)
    assert table["rows"][-1]["differences"][0]["mean"] == pytest.approx(1 / 3)  # the mean of the types


@pytest.mark.parametrize("benchmark", ["", "spar_bench"])
def test_an_interval_has_a_width_however_few_rows_a_type_has(benchmark):
    """Twelve questions, each of its own type: as wide as if all had one type, where types don't weigh."""
    spar = [kind for own in SPAR_GROUPS.values() for kind in own]
    kinds, second = spar[:12] if benchmark else [f"kind {n}" for n in range(12)], [1, 0] * 6
    own, alike = (
        compare([run_of("a", [0] * 12, some), run_of("b", second, some)])["rows"][-1]["differences"][0]
        for some in (kinds, ["MSR"] * 12)
    )
    assert own["mean"] == pytest.approx(0.5) and own["ci95"] == pytest.approx(alike["ci95"])
    assert own["ci95"] == pytest.approx([0.2045, 0.7955], abs=1e-3)
    always = compare([run_of("a", [0] * 12, kinds), run_of("b", [1] * 12, kinds)])["rows"][-1]
    low, high = always["differences"][0]["ci95"]
    assert low < 0.8 and high == 1


def test_only_common_questions_are_compared():
    kinds = ["MSR"] * 5
    one, other = run_of("a", [1] * 5, kinds), run_of("b", [0] * 3, kinds[:3])
    table = compare([one, other])
    assert table["n"] == 3 and table["left_out"] == 2
    with pytest.raises(DataError, match="no common question"):
        compare([one, score_lines([published("multiple choice", "<answer>A", "A", "MSR")], label="c")])
    with pytest.raises(DataError, match="at least two"):
        compare([one])


def test_sign_flips_agree_with_the_exact_test():
    rng = np.random.default_rng(2)
    moved = rng.choice([-1.0, 1.0], 40, p=[0.3, 0.7])
    exact = mcnemar(moved < 0, moved > 0)
    assert sign_flip_p(moved) == pytest.approx(exact, abs=0.01)
