"""The published folders of these tests, and one question in their layout."""

from pathlib import Path

PUBLISHED = Path(__file__).parent.parent / "published"


PIXELS = (28 * 28, 351_232)


def folder_of(name: str) -> Path:
    return PUBLISHED / ("ViLaSR-data" if name in ("cold_start", "rrs", "rl") else "ViLaSR-eval")


def question(number: int, **changes) -> dict:
    row = {
        "question": f"question {number}?",
        "answer": "A",
        "image_path": ["p.png"],
        "question_type": "multiple choice",
        "options": ["A", "B"],
        "data_type": "vqa",
    }
    return {**row, **changes}
