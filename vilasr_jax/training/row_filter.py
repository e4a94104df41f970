"""Filters stored rows and training examples that can't be used.

A row is left out when it can't be read, its images can't be decoded, its text can't be adapted to the resized
images, or it is longer than any training row. That depends on the row and the job's limits alone, so a
resumed run has the same rows in the same order. `usable` checks one row; all else here calls it.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from absl import logging

from vilasr_jax.errors import DataError, UserError
from vilasr_jax.files import write_json
from vilasr_jax.parallel import from_writer, gather_results, is_writer
from vilasr_jax.processing import Encoded
from vilasr_jax.tasks.rows import Source
from vilasr_jax.tasks.stored import check_unchanged

T = TypeVar("T")
FOLDER = "left_out"  # in a workdir: a file for each key of config.data, and for each stage
TRIES = 1000  # consecutive unusable examples before a stage gives up
LOGGED = 5  # rows left out that the log names
SAMPLE = 32  # examples of a source that are looked at before a stage begins; all of a smaller one
MOST_UNUSABLE = 3  # examples of the sample that may be unusable


def usable(rows: Source[T], number: int, check: Callable[[T], None]) -> T | DataError:
    """A row or example that can be read and passes `check`, else the DataError that says why not.

    Whatever reading and checking raise is the row's fault, except errors of the configuration and of the
    machine (memory, the operating system): those are raised.
    """
    try:
        row = rows[number]
        check(row)
        return row
    except DataError as error:
        return error
    except (UserError, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        logging.debug("row %d can't be used", number, exc_info=True)
        return DataError(f"{type(error).__name__}: {error}")


def usable_everywhere(
    rows: Source[T], numbers: Sequence[int], check: Callable[[T], None]
) -> list[T | DataError]:
    """`usable` of some rows; one that any process can't use, none uses. Every process must call this."""
    mine: list[T | DataError] = []

    def check_all() -> list[tuple[int, str]]:
        for number in numbers:
            one = usable(rows, number, check)
            mine.append(one)
        return [(place, str(error)) for place, error in enumerate(mine) if isinstance(error, DataError)]

    for part in reversed(gather_results(check_all)):  # the first process's reason counts
        for place, reason in part:
            mine[place] = DataError(reason)
    return mine


def usable_rows(
    rows: Source[Any],
    check: Callable[[Any], None],
    *,
    name: str,
    folder: Path,
    limits: Any,
    purpose: str = "used",
    begun: bool = False,
    folders: Sequence[str] = (),
) -> list[int]:
    """Returns the numbers of the rows that can be used; a note names the others.

    The note, {"rows", "count", "left_out": [{"number", "id", "reason"}]}, is saved in `folder` and read from
    there when rows and limits are the same. Every process checks a part of the rows; all must call this.

    Args:
      rows: stored rows, with an `id`.
      check: raises, saying what is wrong, for a row that can't be used (see `usable`).
      name: of the rows, for messages: "config.data.traces".
      folder: the run's; the note goes to `<folder>/left_out/<last part of the name>.json`.
      limits: JSON-able, all else that the answer depends on; "data" is the digest of the rows' content.
      purpose: what the rows are for, for messages: "used as questions", "trained on".
      begun: the stage is in progress; the note of the same data stays, so that it resumes in the same order.
      folders: those that hold the rows.

    Raises:
      DataError: no row can be used, or the data has changed since the stage began.
    """
    path = folder / FOLDER / f"{name.rpartition('.')[2]}.json"
    key = json.loads(json.dumps({"rows": len(rows), "limits": limits}))
    saved = from_writer(lambda: json.loads(path.read_text()) if path.exists() else {})
    if begun and saved:
        check_unchanged(name, saved["limits"].get("data"), key["limits"].get("data"), folders)
    if not (begun and saved) and {k: saved.get(k) for k in key} != key:
        mine = range(jax.process_index(), len(rows), jax.process_count())

        def check_all() -> list[dict[str, Any]]:
            with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:
                return [line for line in pool.map(lambda n: _refusal(rows, n, check), mine) if line]

        found = [line for part in gather_results(check_all) for line in part]
        found.sort(key=lambda line: line["number"])
        saved = {**key, "count": len(found), "left_out": found}
        if is_writer():
            write_json(path, saved)
    if saved["count"]:
        logging.warning("%s: %d of %d rows are left out (%s):", name, saved["count"], len(rows), path)
    for line in saved["left_out"][:LOGGED]:
        named = line["reason"].startswith(f"row {line['id']}")
        logging.warning("  %s", line["reason"] if named else f"row {line['id']}: {line['reason']}")
    if saved["count"] == len(rows):
        reason = saved["left_out"][0]["reason"]
        raise DataError(f"{name}: none of {len(rows)} rows can be {purpose}; the first: {reason}")
    gone = {line["number"] for line in saved["left_out"]}
    return [number for number in range(len(rows)) if number not in gone]


def _refusal(rows: Source[Any], number: int, check: Callable[[Any], None]) -> dict[str, Any] | None:
    error = usable(rows, number, check)
    if not isinstance(error, DataError):
        return None
    row = usable(rows, number, lambda row: None)
    return {"number": number, "id": getattr(row, "id", f"number {number}"), "reason": str(error)}


def read_notes(folder: Path) -> dict[str, dict[str, Any]]:
    """What a run left out of each key of config.data and of each stage's examples.

    {name: {"count", "first": [ids]}}, and "rows", of how many, for a key of config.data.
    """
    notes = {}
    for path in sorted((folder / FOLDER).glob("*.json")):
        note = json.loads(path.read_text())
        known = {key: note[key] for key in ("rows", "count") if key in note}
        notes[path.stem] = {**known, "first": [line["id"] for line in note["left_out"][:LOGGED]]}
    return notes


def sample_numbers(source: Source[Any]) -> list[int]:
    """The numbers of some examples of a source, the same at each call; all of a small source."""
    count = min(SAMPLE, len(source))
    return sorted(np.random.default_rng(0).choice(len(source), count, replace=False).tolist())


def check_sample(sample: Mapping[int, Encoded | DataError]) -> None:
    """Checks a sample of a source's examples, by number, before a stage's first step.

    Raises:
      DataError: all or many can't be created or are too long; the source is not what was configured.
    """
    reasons = [f"example {n}: {error}" for n, error in sample.items() if isinstance(error, DataError)]
    if len(reasons) > MOST_UNUSABLE or (reasons and len(reasons) == len(sample)):
        raise DataError(
            f"{len(reasons)} of {len(sample)} examples looked at can't be trained on; {reasons[0]}"
        )


@dataclasses.dataclass(frozen=True)
class SkipUnusable:
    """Training examples; one that can't be created or is too long is replaced by the next usable one.

    Which one that is depends on the examples alone. Its `replaced` names the others: {"id", "reason"}.
    """

    source: Source[Encoded]
    check: Callable[[Encoded], None]
    name: str = "example"

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Encoded:
        replaced: list[dict[str, str]] = []
        tries = min(len(self), TRIES)
        for number in range(int(index), int(index) + tries):
            place = number % len(self)
            example = usable(self.source, place, self.check)
            if not isinstance(example, DataError):
                return dataclasses.replace(example, replaced=replaced) if replaced else example
            replaced.append({"id": f"{self.name} {place}", "reason": str(example)})
        raise DataError(f"none of {tries} examples can be trained on; the last: {replaced[-1]['reason']}")


class ReplacedExamples:
    """The examples that a stage replaced while it trained: `left_out/<stage>.json`, its count and names.

    Args:
      folder: the run's.
      stage: the stage's name.
      done: steps that are saved; what later ones replaced is found again.
    """

    def __init__(self, folder: Path, stage: str, done: int):
        self.path = folder / FOLDER / f"{stage}.json"
        lines = from_writer(
            lambda: json.loads(self.path.read_text())["left_out"] if self.path.exists() else []
        )
        self.lines = {line["id"]: line for line in lines if line["step"] <= done}

    def add(self, step: int, replaced: Sequence[Mapping[str, str]]) -> None:
        """Notes what a step's batch replaced, over all hosts; each example once."""
        known = len(self.lines)
        for line in sorted(replaced, key=lambda line: line["id"]):
            if line["id"] not in self.lines:
                self.lines[line["id"]] = {**line, "step": step}
                if len(self.lines) <= LOGGED:
                    logging.warning("left out: %s: %s", line["id"], line["reason"])
        if len(self.lines) > known and is_writer():
            write_json(self.path, {"count": len(self.lines), "left_out": list(self.lines.values())})
