"""Scores a results file of any origin, without a model.

A line needs `answer`, `problem_type` (or `question_type`) and `model_output`, the last turn's text; the
answer is the text of its `<answer>` (see `drawing.tagged_answer`), and without one the line scores 0.
Where there is `prediction`, it is the answer itself (null: none). `original_question_type` gives the type;
`id` says which lines answer the same question. Without it, lines with the same words, options, images and
answer do where each has another `sample`; all others are questions of their own.
"""

from __future__ import annotations

import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from vilasr_jax.drawing import tagged_answer
from vilasr_jax.errors import DataError
from vilasr_jax.evaluation.benchmarks import BenchmarkTable, benchmark_table, guess_benchmark, is_typed
from vilasr_jax.evaluation.scorers import READINGS, SCORERS, question_kind
from vilasr_jax.evaluation.summary import sample_scores
from vilasr_jax.files import split_lines
from vilasr_jax.rewards.parse_answer import plain

SKIPPED = "not_asked"  # stop reason of a question that can't be read or is too large for the engine
_NAMELESS = "line "  # begins the key of a line that does not say which question it is about
BENCHMARKS = ("maze", "SpatialEval_spatialreal", "vsi_bench", "spar_bench", "mmsi_bench")


@dataclass(frozen=True)
class ScoredRun:
    """The scores of one results file.

    Attributes:
      label: a name for tables.
      benchmark: which means are computed, see `benchmark_table`; "" for plain ones.
      types: question type of each question, by its key.
      scores: the published score of each of its samples, 0 to 1, by its key.
      lenient: the same in our own kinder reading (see `scorers`).
      kinds: how many lines each scorer scored.
      unanswered: lines without an answer.
      broken: what is wrong with lines that could not be scored and count as wrong, each with its number.
      skipped: lines about questions that the model did not get, which count as wrong.
    """

    label: str
    benchmark: str
    types: Mapping[str, str]
    scores: Mapping[str, Sequence[float]]
    lenient: Mapping[str, Sequence[float]]
    kinds: Mapping[str, int]
    unanswered: int
    broken: Sequence[str] = field(default_factory=tuple)
    skipped: int = 0

    @property
    def means(self) -> dict[str, float]:
        """Each question's mean over its samples."""
        return {key: float(np.mean(own)) for key, own in self.scores.items()}

    @property
    def table(self) -> BenchmarkTable:
        """The benchmark's means."""
        return self._table(self.scores)

    @property
    def lenient_table(self) -> BenchmarkTable:
        """The same means of the lenient scores."""
        return self._table(self.lenient)

    def _table(self, scores: Mapping[str, Sequence[float]]) -> BenchmarkTable:
        rows = [(self.types[key], float(np.mean(own))) for key, own in scores.items()]
        return benchmark_table(self.benchmark, rows)

    def to_dict(self) -> dict[str, Any]:
        """The entry of `scores.json`: the table, the scorers used, and pass@k where there are samples."""
        scorers = {kind: (SCORERS[kind].__doc__ or "").split(";")[0].split("\n")[0] for kind in self.kinds}
        right = [[s == 1 for s in own] for key, own in self.scores.items() if not key.startswith(_NAMELESS)]
        return {
            **self.table.to_dict(),
            "reading": "published",
            "lenient": self.lenient_table.to_dict(),
            "scorers": scorers,
            "scored": dict(self.kinds),
            "unanswered": self.unanswered,
            "counted_as_wrong": len(self.broken),
            **({"lines_not_asked": self.skipped} if self.skipped else {}),
            **sample_scores(right),
        }


def score_lines(lines: Sequence[Mapping[str, Any] | str], benchmark: str = "", label: str = "") -> ScoredRun:
    """Scores the lines of a results file; one that can't be scored counts as wrong.

    Raises:
      DataError: a line can't be read (it is a text, which says why), or none can be scored.
    """
    types: dict[str, str] = {}
    scores: dict[str, list[float]] = defaultdict(list)
    lenient: dict[str, list[float]] = defaultdict(list)
    kinds: Counter = Counter()
    unanswered, broken = 0, []
    name = label or "the results"
    unread = [f"line {number}: {line}" for number, line in enumerate(lines, 1) if isinstance(line, str)]
    if unread:
        quoted = "; ".join(unread[:3]) + ("; ..." if len(unread) > 3 else "")
        raise DataError(
            f"{name}: {len(unread)} of {len(lines)} lines can't be read ({quoted}); mend the file, or remove "
            "them if they aren't results"
        )
    readable = [line for line in lines if not isinstance(line, str)]
    for number, (key, line) in enumerate(zip(_keys(readable), readable, strict=True), 1):
        types.setdefault(key, str(line.get("original_question_type") or ""))
        try:
            kind = question_kind(str(line.get("problem_type") or line.get("question_type") or ""))
            prediction, truth = _prediction(line), line.get("answer")
            if truth is None:
                raise DataError("answer is missing")
        except DataError as error:
            broken.append(f"line {number}: {error}")
            scores[key].append(0.0)
            lenient[key].append(0.0)
            continue
        scores[key].append(SCORERS[kind](prediction, truth))
        lenient[key].append(READINGS["lenient"][kind](prediction, truth))
        kinds[kind] += 1
        unanswered += prediction is None
    if not kinds:
        why = "; ".join(broken[:2]) or "it is empty"
        raise DataError(f"{name}: no line can be scored ({why})")
    evaluated = [line for line in lines if isinstance(line, dict) and line.get("stop_reason") != SKIPPED]
    metas = [line.get("meta") for line in evaluated]
    found = {str(meta.get("benchmark") or "") for meta in metas if isinstance(meta, dict)}
    said = found.pop() if len(found) == 1 else ""
    known = (
        benchmark
        or said
        or guess_benchmark(filter(None, (line.get("original_question_type") for line in evaluated)))
    )
    if is_typed(known) and (nameless := [key for key, kind in types.items() if not kind]):
        raise DataError(
            f"{name}: {len(nameless)} of {len(types)} questions have no original_question_type, over which "
            f"{known} computes its means; the first: {nameless[0][:80]}"
        )
    skipped = sum(isinstance(line, dict) and line.get("stop_reason") == SKIPPED for line in lines)
    return ScoredRun(label, known, types, scores, lenient, kinds, unanswered, broken, skipped)


def read_results(path: str | os.PathLike, benchmark: str = "") -> ScoredRun:
    """Scores a results file (JSON lines or a JSON list), or the `results.jsonl` of a folder.

    The benchmark is the one given, else what the rows, the folder's name or the question types say.

    Raises:
      DataError: there is no such file, a line of it can't be read, or none can be scored.
    """
    path = Path(path)
    file = path / "results.jsonl" if path.is_dir() else path
    try:
        text = file.read_text(encoding="utf-8-sig", errors="replace")
    except OSError as error:
        raise DataError(f"{file}: can't be read ({error.strerror or error})") from None
    named = [part for part in reversed((*file.parts[:-1], file.stem)) if part in BENCHMARKS]
    run = score_lines(_lines(text), benchmark, str(path))
    if not run.benchmark and named:
        run = score_lines(_lines(text), named[0], str(path))
    return run


def _lines(text: str) -> list[Mapping[str, Any] | str]:
    if text.lstrip()[:1] == "[":
        try:
            return [line if isinstance(line, dict) else "is not an object" for line in json.loads(text)]
        except (ValueError, RecursionError) as error:
            raise DataError(f"the results aren't a valid JSON list ({error})") from None
    return [_line(line) for line in split_lines(text)]


def _line(text: str) -> Mapping[str, Any] | str:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return "isn't valid JSON"
    return line if isinstance(line, dict) else "is not an object"


def _prediction(line: Mapping[str, Any]) -> str | None:
    if "prediction" in line:
        said = line["prediction"]
        return None if said is None else str(said)
    output = line.get("model_output")
    if isinstance(output, list):  # some files have all turns
        output = output[-1] if output else ""
    if not isinstance(output, str):
        raise DataError("has no model_output (the last turn's text) and no prediction")
    return tagged_answer(output)


def _keys(lines: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """The key of each line's question; a line that does not name its question has a key of its own."""
    seen: Counter = Counter()
    for number, line in enumerate(lines, 1):
        if line.get("id") is not None:
            yield str(line["id"])
        elif line.get("question") is None:
            yield f"{_NAMELESS}{number}"
        else:
            words = [line["question"], line.get("options"), line.get("image_path"), plain(line.get("answer"))]
            place = json.dumps([*words, line.get("sample")])
            before = seen[place]  # questions with the same words
            seen[place] += 1
            yield json.dumps([*words, before] if before else words)
