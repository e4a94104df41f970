"""A person's options get the letters that the prompt requests."""

import pytest
from PIL import Image

from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.errors import DataError
from vilasr_jax.tasks.rows import question_row


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["left", "right"], "A. left\nB. right"),
        (["C. elegans", "A. thaliana"], "A. C. elegans\nB. A. thaliana"),
        (["A. left", " B. right"], "A. left\nB. right"),
        (["A", "B", "C"], "A, B, C"),
    ],
)
def test_options_of_a_question_are_lettered(given, read):
    row = question_row([Image.new("RGB", (56, 56))], "Which side?", given, "vqa")
    user = row.session(DrawingSettings(prompt="vilasr_jax")).messages[1]
    assert read in "".join(part.get("text", "") for part in user["content"])
    assert row.question_type == "multiple choice"


def test_more_options_than_letters_are_refused():
    with pytest.raises(DataError, match="27 texts; at most 26"):
        question_row([], "Which?", [str(number) for number in range(27)], "vqa")
