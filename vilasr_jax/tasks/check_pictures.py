"""`vilasr data check`: what a model will see of a user's own pictures, before they are imported."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vilasr_jax.errors import DataError
from vilasr_jax.processing import image_size, smart_resize
from vilasr_jax.tasks.importers import Canvas, evaluation_files, read_pictures
from vilasr_jax.tasks.show import show_rows, stored_trace
from vilasr_jax.tasks.stored import StoredRow

Size = tuple[int, int]


def check_pictures(
    source: str, canvas: Canvas, page: Path, count: int, images: str | None = None
) -> dict[str, Any]:
    """Reads all rows as an import would, and writes a page of the first `count` with their drawn targets.

    The rows of a folder's test.jsonl are counted and refused alike; all figures else are of train.jsonl.

    Args:
      source: the folder, or a file of it.
      canvas: how pictures are resized and drawn on.
      page: the HTML page.
      count: rows on it.
      images: where relative paths of pictures start, if not at `source`.

    Returns:
      {"rows", "drawn", "questions", "boxes", "lines", "pictures", "tokens": [least, most] of a picture,
      "sizes": [smallest, largest] of the pictures as the model sees them, "types": {question type: rows},
      "answers": {answer: rows} of the commonest, "texts": the same with an option's text for its letter,
      "test": {file name: rows}, "refused": [lines]}.

    Raises:
      DataError: no row can be used.
    """
    refused: list[str] = []
    shown: list[StoredRow] = []
    sizes: Counter[Size] = Counter()
    marks: Counter[str] = Counter()
    types: Counter[str] = Counter()
    answers: Counter[str] = Counter()
    texts: Counter[str] = Counter()
    drawn = 0
    for row in read_pictures(source, canvas, images):
        if isinstance(row, str):
            refused.append(row)
            continue
        if len(shown) < count:
            shown.append(row)
        for image in row.base_images:
            width, height = image_size(image)
            height, width = smart_resize(
                height, width, canvas.family.images.factor, canvas.min_pixels, canvas.max_pixels
            )
            sizes[width, height] += 1
        said = "".join(message["content"] for message in row.messages if message["role"] == "assistant")
        marks["boxes"] += said.count('"bbox_2d"')
        marks["lines"] += said.count('"start_point_2d"')
        drawn += bool(row.messages)
        types[row.question_type] += 1
        answers[row.answer] += 1
        texts[_answer_text(row)] += 1
    test = {}
    for file in evaluation_files(source):
        found = list(read_pictures(file, canvas, images))
        refused += [row for row in found if isinstance(row, str)]
        test[file.name] = sum(not isinstance(row, str) for row in found)
    rows = sum(types.values())
    if not rows:
        first = refused[0] if refused else "there is none"
        raise DataError(f"{source}: none of {len(refused)} rows can be used; the first: {first}")
    traces = [stored_trace(row, canvas.min_pixels, canvas.max_pixels, canvas.family) for row in shown]
    settings = dataclasses.replace(canvas.settings, max_turns=99)
    title = f"{source}: the first {len(shown)} of {rows:,} rows"
    show_rows([(title, traces)], settings, page, refused, recorded=True)
    ordered = sorted(sizes, key=lambda size: size[0] * size[1])
    unit = canvas.family.images.factor
    return {
        "rows": rows,
        "drawn": drawn,
        "questions": rows - drawn,
        "boxes": marks["boxes"],
        "lines": marks["lines"],
        "pictures": sum(sizes.values()),
        "sizes": [[*ordered[0]], [*ordered[-1]]],
        "tokens": [width * height // unit**2 for width, height in (ordered[0], ordered[-1])],
        "types": dict(types.most_common()),
        "answers": dict(answers.most_common(5)),
        "texts": dict(texts.most_common(5)),
        "test": test,
        "refused": refused,
    }


def print_check(found: dict[str, Any], most: int = 10) -> None:
    """Prints what `check_pictures` found."""
    sides = _from_to(["{} x {}".format(*size) for size in found["sizes"]])
    tokens = _from_to([f"{count:,}" for count in found["tokens"]])
    print(
        f"{found['rows']:,} rows: {found['drawn']:,} with drawings ({found['boxes']:,} boxes, "
        f"{found['lines']:,} lines), {found['questions']:,} questions without"
    )
    print(f"{found['pictures']:,} pictures, which the model sees at {sides} pixels: {tokens} tokens each")
    words = f" (in words: {_counts(found['texts'])})" if found["texts"] != found["answers"] else ""
    print(f"questions: {_counts(found['types'])}; the commonest answers: {_counts(found['answers'])}{words}")
    for name, rows in found["test"].items():
        print(f"{name}: {rows:,} rows")
    refused: Sequence[str] = found["refused"]
    if refused:
        print(f"{len(refused):,} rows are refused:")
        print("\n".join(f"  {' '.join(line.split())}" for line in refused[:most]))
        if len(refused) > most:
            print(f"  ... and {len(refused) - most:,} more, which the page lists")


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{value} {count:,}" for value, count in counts.items())


def _from_to(ends: Sequence[str]) -> str:
    """ "1 to 2", or "1" of two that are alike."""
    return " to ".join(dict.fromkeys(ends))


def _answer_text(row: StoredRow) -> str:
    """The text of the right option; an answer without options is its own."""
    letters = {option.partition(".")[0]: option.partition(".")[2].strip() for option in row.options}
    return letters.get(row.answer) or row.answer
