"""Questions for reinforcement learning (ViLaSR-data: rl), without traces:

    {"question", "answer", "image_path": [...], "question_type", "options"?, "data_type", "grid_size"}

`answer` may be wrapped in `<answer>`; `data_type` is video, spatial_r1, maze or vqa.
"""

from __future__ import annotations

from collections.abc import Mapping
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


def read_question(item: Mapping[str, Any], source: str) -> Draft:
    """One question as a row."""
    return Draft(
        question=text_of(item, "question"),
        answer=answer_of(item),
        question_type=question_type_of(item, "question_type"),
        options=options_of(item),
        image_paths=image_paths_of(item),
        data_type=text_of(item, "data_type"),
        meta=present_fields(item, "grid_size"),
    )
