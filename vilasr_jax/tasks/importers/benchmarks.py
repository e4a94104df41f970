"""The benchmarks of ViLaSR-eval, all of one layout:

    {"question", "options"?, "problem_type", "image_path", "answer", ...}

and also `original_question_type` (VSI-Bench, SPAR-Bench, MMSI-Bench), `data_type` single_view or
multi_view (SPAR-Bench, MMSI-Bench), `grid_size` (maze). A row of VSI-Bench has 16 frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from vilasr_jax.tasks.importers.fields import (
    Draft,
    answer_of,
    image_paths_of,
    options_of,
    present_fields,
    question_type_of,
    text_of,
)

# Sentences of the question that contradict the form of answer that the prompt names.
_DROPPED = (
    "Your answer can only include one of options A, B, C or D.",
    "Answer using a single number and nothing else.",
)
_BOXES = (
    "\nBounding box coordinates are normalized to a 0-1000 scale, with the origin at the image's top left "
    "corner."
)
_WITH_BOXES = ("position_matching", "camera_motion_infer")


def benchmark_reader(name: str, data_type: str = "") -> Callable[[Mapping[str, Any], str], Draft]:
    """The importer of a benchmark; `data_type` is that of its rows unless they carry their own."""

    def read(item: Mapping[str, Any], source: str) -> Draft:
        paths = image_paths_of(item)
        if data_type:
            kind = data_type
        elif "data_type" in item:
            kind = text_of(item, "data_type")
        else:
            kind = "multi_view" if len(paths) > 1 else "single_view"
        question = text_of(item, "question")
        if name in ("spar_bench", "mmsi_bench"):
            question = _plain_question(question, item.get("original_question_type"))
        return Draft(
            question=question,
            answer=answer_of(item),
            question_type=question_type_of(item, "problem_type"),
            options=options_of(item),
            image_paths=paths,
            data_type=kind,
            meta={"benchmark": name, **present_fields(item, "original_question_type", "grid_size")},
        )

    return read


def _plain_question(question: str, kind: str | None) -> str:
    for sentence in _DROPPED:
        question = question.replace(sentence, "")
    return question.strip() + (_BOXES if kind in _WITH_BOXES else "")
