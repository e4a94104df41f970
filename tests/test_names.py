"""Names and words: tests are named by short sentences, and text uses the words of the field."""

import ast
import re
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOST = 60  # characters of a test's name
WORDS = (
    "anew",
    "asked",
    "asker",
    "beside",
    "facts",
    "follow",
    "follows",
    "go on",
    "goes on",
    "hear",
    "held_out",
    "keep",
    "lie",
    "lies",
    "look_up",
    "made",
    "own_sampling",
    "share",
    "shares",
    "sift",
    "so many",
    "stand",
    "stands",
    "take",
    "taken",
    "takes",
    "telling",
    "together",
    "told",
    "took",
    "whole",
)
# `jnp.take`, `take_along_axis`, `keep_checkpoints_without_metrics` are names of libraries.
PATTERN = re.compile(
    rf"(?<![a-z])(?<!jnp\.)(?:{'|'.join(WORDS)})(?![a-z]|_along_axis|_checkpoints_)", re.IGNORECASE
)

# Ordinary senses, keys of old files, values of configs: the list only ever gets shorter.
ALLOWED: dict[str, dict[str, int]] = {
    "vilasr_jax/bench/input.py": {"made": 2, "taken": 2, "together": 1},
    "vilasr_jax/bench/sft.py": {"share": 4},
    "vilasr_jax/config/renamed.py": {"made": 2, "own_sampling": 1, "share": 9},
    "vilasr_jax/config/training.py": {"keep": 2},
    "vilasr_jax/drawing/prompts.py": {"take": 1},
    "vilasr_jax/evaluation/score_file.py": {"asked": 2},
    "vilasr_jax/report/sections.py": {"asked": 1},
    "vilasr_jax/tasks/multiview/questions.py": {"stands": 1},
    "vilasr_jax/tasks/pipeline.py": {"taken": 2},
    "tests/config/test_renamed.py": {"made": 3, "own_sampling": 2, "share": 8},
    "tests/launch/fake_cloud.py": {"keep": 1},
    "tests/processing/test_images.py": {"shares": 1},
    "tests/processing/test_packing.py": {"taken": 1},
    "tests/report/conftest.py": {"goes on": 1},
    "tests/tasks/importers/test_formats.py": {"follow": 1},
    "tests/tasks/published/make_published.py": {"follow": 1},
    "tests/tasks/stored_rows.py": {"made": 1},
    "tests/training/test_imported_rows.py": {"asked": 2},
    "tests/tasks/test_rescale_recordings.py": {"go on": 1, "lies": 2},
    "tests/test_cli.py": {"share": 2},
}


def files(folder: str) -> list[Path]:
    """Python files below a folder of the repository."""
    return [path for path in sorted((ROOT / folder).rglob("*.py")) if path != Path(__file__)]


def test_names_of_tests_are_short():
    names = [
        node.name
        for path in files("tests")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and node.name.startswith("test_")
    ]
    assert len(names) > 400 and [name for name in names if len(name) > MOST] == []


def test_text_uses_the_words_of_the_field():
    """In names, comments, docstrings and messages. `ALLOWED`: prompts, keys of old files, ordinary senses."""
    found = {}
    for folder in ("vilasr_jax", "tests"):
        for path in files(folder):
            if words := Counter(word.lower() for word in PATTERN.findall(path.read_text())):
                found[path.relative_to(ROOT).as_posix()] = dict(words)
    assert found == ALLOWED
