"""Questions about a user's own pictures, with the boxes and lines that answer them: JSON or CSV.

A row of `train.jsonl`, next to a folder with the pictures (coordinates are pixels of the stored picture):

    {"image": "images/hall.jpg", "question": "What is left of the door?", "answer": "a lamp",
     "options": ["a lamp", "a chair"], "boxes": [{"box": [410, 80, 620, 700], "label": "door"}],
     "lines": [{"line": [500, 400, 300, 410], "label": "1"}], "thoughts": ["...", "...", "..."]}

`image` may be a list, and a box or line then says which ("image": 2). Options, boxes, lines and thoughts
(one before each drawing, one before the answer) are optional; a row without boxes and lines is a question
without a trace. Frames of a video, in order, are such a list with "data_type": "video", and may have their
times ("seconds": [0, 0.5, 1]).

Read as well: LLaVA's JSON (`conversations`), ms-swift's (`messages`, `images` and `objects` with `ref` and
`bbox`; `<bbox>` in a text only where the boxes are pixels), and CSV with the keys above as columns, or x1,
y1, x2, y2 and label for one box.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from etils import epath

from vilasr_jax.errors import DataError, did_you_mean
from vilasr_jax.tasks.importers.fields import Draft, image_paths_of, question_type_of, text_of
from vilasr_jax.tasks.importers.items import NOT_UTF8, OTHER_BYTES, Item, read_items
from vilasr_jax.tasks.importers.marks import Marked, Marks
from vilasr_jax.tasks.importers.sharegpt import read_messages
from vilasr_jax.tasks.options import lettered, own_letter, without_letter
from vilasr_jax.tasks.rows import VIDEO_TYPES
from vilasr_jax.tasks.stored import IMAGE_MARK

KEYS = (
    *("id", "image", "question", "answer", "options", "boxes", "lines", "thoughts", "question_type"),
    *("data_type", "seconds"),
)
_CORNERS = ("x1", "y1", "x2", "y2")
_LETTER = re.compile(r"\(?([A-Za-z])\)?\.?\Z")
_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?\Z|[-+]?\.\d+\Z")
_PLACEHOLDER = re.compile(r"<(ref-object|bbox)>")  # of ms-swift
_PLACES = {"boxes": ("box", "bbox", "bbox_2d"), "lines": ("line",)}


def read_own_items(path: epath.Path) -> Iterator[Item]:
    """The questions of a file; a LLaVA or ms-swift conversation of several gives an item for each."""
    if path.suffix.lower() in (".csv", ".tsv"):
        yield from _csv_items(path)
        return
    for item in read_items(path):
        if item.value is None or not {"conversations", "messages"} & item.value.keys():
            yield item
            continue
        try:
            for value in _turns(item.value):
                yield Item(item.line, value, None, item.at)
        except DataError as error:
            yield Item(item.line, None, str(error), item.at)


def read_own_picture(item: Mapping[str, Any], source: str) -> Draft:
    """One question as a row; its boxes and lines become a recorded conversation when it is stored."""
    if unknown := [key for key in item if key not in KEYS]:
        raise DataError(f"unknown key {unknown[0]!r}{did_you_mean(unknown[0], KEYS)}")
    answer, (options, letters) = text_of(item, "answer").strip(), _options(item.get("options"))
    if options:
        answer = _option_letter(answer, options, letters)
    kind = "multiple choice" if options else "numerical" if _NUMBER.match(answer) else "free-form"
    if item.get("question_type") is not None:
        kind = question_type_of(item, "question_type")
    thoughts = item.get("thoughts") or []
    if not isinstance(thoughts, list) or not all(isinstance(text, str) for text in thoughts):
        raise DataError(f"thoughts is {thoughts!r}; a list of texts is needed")
    paths = image_paths_of(item, "image")
    boxes, lines = (_marks(item.get(key), key, len(paths)) for key in ("boxes", "lines"))
    data_type = str(item.get("data_type") or "vqa")
    return Draft(
        question=text_of(item, "question").replace(IMAGE_MARK, "").strip(),
        answer=answer,
        question_type=kind,
        options=options,
        image_paths=paths,
        data_type=data_type,
        marks=Marks(boxes, lines, tuple(thoughts)) if boxes or lines else None,
        seconds=_seconds(item.get("seconds"), len(paths), data_type),
    )


def _seconds(value: Any, frames: int, data_type: str) -> tuple[float, ...]:
    """The times of a video's frames."""
    if value is None or value == "" or value == []:
        return ()
    if not isinstance(value, list) or not all(_is_number(time) and time >= 0 for time in value):
        raise DataError(f"seconds is {value!r}; a list of times is needed, one a frame")
    if len(value) != frames or value != sorted(value):
        raise DataError(f"seconds is {value!r}; the row has {frames} frames, each later than the one before")
    if data_type not in VIDEO_TYPES:
        raise DataError('seconds are the times of a video\'s frames; such a row has "data_type": "video"')
    return tuple(map(float, value))


def _options(value: Any) -> tuple[tuple[str, ...], str]:
    """As `lettered`."""
    if value is None or value == "" or value == []:
        return (), ""
    if not isinstance(value, list) or not all(isinstance(text, str) and text.strip() for text in value):
        raise DataError(f"options is {value!r}; a list of texts is needed")
    return lettered(value)


def _option_letter(answer: str, options: Sequence[str], letters: str) -> str:
    """The letter of the right choice: `answer` is its text, with or without its letter, or the letter."""
    texts = list(map(without_letter, options))
    for letter, option, text in zip(letters, options, texts, strict=True):
        if answer.casefold() in (option.casefold(), text.casefold()):
            return letter
    found = _LETTER.match(answer)
    if not found or found[1].upper() not in letters:
        raise DataError(f"answer {answer!r} is none of the options: {', '.join(options)}")
    if found[1].upper() in map(own_letter, texts):
        raise DataError(
            f"answer {answer!r} is the letter of two options ({', '.join(options)}); give its text"
        )
    return found[1].upper()


def _marks(value: Any, key: str, images: int) -> tuple[Marked, ...]:
    """The boxes or lines of a row."""
    if value is None or value == "" or value == []:
        return ()
    if not isinstance(value, list):
        raise DataError(f"{key} is {value!r}; a list is needed")
    found = []
    for number, one in enumerate(value, 1):
        where = f"{key[:-1] if key == 'lines' else 'box'} {number}"
        item = one if isinstance(one, dict) else {"box": one, "line": one}
        place = next((item[name] for name in _PLACES[key] if name in item), None)
        if not isinstance(place, list) or len(place) != 4 or not all(map(_is_number, place)):
            raise DataError(f"{where} is {place!r}; four numbers x1, y1, x2, y2 are needed")
        image = item.get("image", 1)
        if not isinstance(image, int) or not 1 <= image <= images:
            raise DataError(f"{where} is on image {image!r}; the row has {images}")
        label = item.get("label")
        text = str(number) if label is None else str(label)
        found.append(Marked(where, image, tuple(map(float, place)), text, bool(item.get("relative"))))
    return tuple(found)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _csv_items(path: epath.Path) -> Iterator[Item]:
    """The rows of a CSV file with a header; a cell that begins with a bracket is JSON."""
    try:
        text = path.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error})") from None
    table = csv.DictReader(
        io.StringIO(text), dialect="excel-tab" if path.suffix.lower() == ".tsv" else "excel"
    )
    lines = max(1, text.count("\n"))
    try:
        for row in table:
            at = min(1.0, table.line_num / lines)
            try:
                yield Item(table.line_num, _csv_value(row), None, at)
            except DataError as error:
                yield Item(table.line_num, None, str(error), at)
    except csv.Error as error:
        yield Item(table.line_num, None, f"isn't valid CSV ({error})", 1.0)


def _csv_value(row: dict[Any, Any]) -> dict[str, Any]:
    if any(OTHER_BYTES.search(text) for pair in row.items() for text in pair if isinstance(text, str)):
        raise DataError(NOT_UTF8)
    if None in row:
        raise DataError(f"has more cells than the header: {row[None]!r}")
    value: dict[str, Any] = {}
    for key, cell in row.items():
        if cell and cell.strip():
            value[key.strip()] = _cell(key, cell.strip())
    if isinstance(value.get("options"), str):
        value["options"] = [text.strip() for text in value["options"].split("|")]
    given = [value.pop(key) for key in _CORNERS if key in value]
    label = value.pop("label", None)
    if given:
        try:
            box = [float(corner) for corner in given]
        except (TypeError, ValueError):
            raise DataError(f"{', '.join(_CORNERS)} are {given!r}; numbers are needed") from None
        value["boxes"] = [*value.get("boxes", ()), {"box": box, **({"label": label} if label else {})}]
    return value


def _cell(key: str, text: str) -> Any:
    if text[0] not in "[{":
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        if key.strip() in ("question", "answer"):
            return text  # a sentence may begin with a bracket
        raise DataError(f"{key} isn't valid JSON: {text[:60]}") from None


def _turns(item: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The questions of a LLaVA or ms-swift conversation, each with its answer and the boxes it speaks of."""
    messages = [message for message in read_messages(item) if message["role"] != "system"]
    roles = [message["role"] for message in messages]
    if not roles or roles != ["user", "assistant"] * (len(roles) // 2):
        raise DataError("its messages are no questions that are each followed by an answer")
    if any("Action: " in m["content"] and "```json" in m["content"] for m in messages):
        raise DataError("is a recorded drawing conversation; `vilasr data import cold_start` reads it")
    objects = _Objects(item.get("objects"))
    kept = ("boxes", "lines", "options", "thoughts", "question_type", "data_type", "seconds")
    own = {key: item[key] for key in kept if key in item}
    images = item.get("images", item.get("image"))
    for number in range(0, len(messages), 2):
        objects.used = []
        question, answer = (objects.fill(messages[number + k]["content"]) for k in (0, 1))
        value = {
            "image": images,
            "question": question.replace(IMAGE_MARK, "").strip(),
            "answer": answer,
            **own,
        }
        boxes = objects.used or (objects.all if len(messages) == 2 else [])
        if boxes:
            value["boxes"] = [*value.get("boxes", ()), *boxes]
        yield value


class _Objects:
    """ms-swift's `objects`: what replaces the placeholders `<ref-object>` and `<bbox>`, in order."""

    def __init__(self, value: Any):
        value = value if isinstance(value, dict) else {}
        self.refs = [str(ref) for ref in value.get("ref") or ()]
        self.places = list(value.get("bbox") or ())
        kind, images = value.get("bbox_type", "real"), list(value.get("image_id") or ())
        if kind not in ("real", "norm1"):
            raise DataError(f"objects.bbox_type is {kind!r}; there are: real, norm1")
        self.kind, self.all = kind, []
        for number, place in enumerate(self.places):
            box: dict[str, Any] = {"box": place, "relative": kind == "norm1"}
            if number < len(self.refs):
                box["label"] = self.refs[number]
            if number < len(images):
                box["image"] = images[number] + 1 if isinstance(images[number], int) else images[number]
            self.all.append(box)
        self.used: list[dict[str, Any]] = []
        self._next = {"ref-object": 0, "bbox": 0}

    def fill(self, text: str) -> str:
        """The text with its placeholders replaced; the boxes it speaks of are added to `used`."""

        def value(found: re.Match) -> str:
            kind, number = found[1], self._next[found[1]]
            self._next[kind] += 1
            values = self.refs if kind == "ref-object" else self.places
            if number >= len(values):
                raise DataError(f"its texts have more <{kind}> than objects has")
            if kind == "bbox":
                if self.kind == "norm1":
                    raise DataError(
                        "<bbox> in a text needs pixels, of which the drawing is, and bbox_type norm1 gives "
                        "fractions; leave it out of the text, or give pixels (bbox_type real)"
                    )
                self.used.append(self.all[number])
                return f"[{', '.join(map(str, values[number]))}]"
            return values[number]

        return _PLACEHOLDER.sub(value, text)
