"""Filters stored rows and training examples that can't be used.

A row is left out when its images can't be decoded, its text can't be adapted to the resized images, or it is
longer than any training row. That depends on the row and the job's limits alone, so a resumed run has
the same rows in the same order.
"""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from absl import logging

from vilasr_jax.errors import DataError
from vilasr_jax.files import write_json
from vilasr_jax.parallel import gather, is_writer
from vilasr_jax.processing import Encoded
from vilasr_jax.tasks.rows import Source

T = TypeVar("T")
FOLDER = "left_out"  # in a workdir: a file for each key of config.data
TRIES = 1000  # examples in a row that may be unusable before a stage gives up
LOGGED = 5  # of those left out
SAMPLE = 32  # examples of a source that are looked at before a stage begins
MOST_UNUSABLE = 0.1  # of them


def usable(rows: Source[T], number: int, check: Callable[[T], None]) -> T | DataError:
    """A row or example that can be read and passes `check`, else the DataError that says why not."""
    try:
        row = rows[number]
        check(row)
        return row
    except DataError as error:
        return error


def usable_rows(
    rows: Source[Any],
    check: Callable[[Any], None],
    *,
    name: str,
    folder: Path,
    limits: Any,
    purpose: str = "used",
    begun: bool = False,
) -> list[int]:
    """Returns the numbers of the rows for which `check` raises no DataError; a note names the others.

    The note, {"rows", "count", "left_out": [{"number", "id", "reason"}]}, is saved in `folder` and read from
    there when rows and limits are the same. Every process checks a part of the rows; all must call this.

    Args:
      rows: stored rows, with an `id`.
      check: raises DataError, naming what is wrong, for a row that can't be used.
      name: of the rows, for messages: "config.data.traces".
      folder: the run's; the note goes to `<folder>/left_out/<last part of the name>.json`.
      limits: JSON-able, all else that the answer depends on.
      purpose: what the rows are for, for messages: "asked", "trained on".
      begun: the stage is in progress; the note stays, so that it resumes in the same order.

    Raises:
      DataError: no row can be used.
    """
    path = folder / FOLDER / f"{name.rpartition('.')[2]}.json"
    key = json.loads(json.dumps({"rows": len(rows), "limits": limits}))
    saved = json.loads(path.read_text()) if path.exists() else {}
    same = {k: saved.get(k) for k in key} == key
    if not same and not (begun and saved.get("rows") == len(rows)):
        mine = range(jax.process_index(), len(rows), jax.process_count())
        with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:
            found = [line for line in pool.map(lambda n: _refusal(rows, n, check), mine) if line]
        found = sorted((line for part in gather(found) for line in part), key=lambda line: line["number"])
        saved = {**key, "count": len(found), "left_out": found}
        if is_writer():
            write_json(path, saved)
    note = {"rows": len(rows), "count": saved["count"], "left_out": saved["left_out"]}
    if note["count"]:
        logging.warning("%s: %d of %d rows are left out (%s):", name, note["count"], len(rows), path)
    for line in note["left_out"][:LOGGED]:
        named = line["reason"].startswith(f"row {line['id']}")
        logging.warning("  %s", line["reason"] if named else f"row {line['id']}: {line['reason']}")
    if note["count"] == len(rows):
        reason = note["left_out"][0]["reason"]
        raise DataError(f"{name}: none of {len(rows)} rows can be {purpose}; the first: {reason}")
    gone = {line["number"] for line in note["left_out"]}
    return [number for number in range(len(rows)) if number not in gone]


def _refusal(rows: Source[Any], number: int, check: Callable[[Any], None]) -> dict[str, Any] | None:
    row = rows[number]
    error = usable([row], 0, check)
    return {"number": number, "id": row.id, "reason": str(error)} if isinstance(error, DataError) else None


def read_notes(folder: Path) -> dict[str, dict[str, Any]]:
    """What a run left out of each key of config.data: {"rows", "count", "first": [ids]}."""
    notes = {}
    for path in sorted((folder / FOLDER).glob("*.json")):
        note = json.loads(path.read_text())
        first = [line["id"] for line in note["left_out"][:LOGGED]]
        notes[path.stem] = {"rows": note["rows"], "count": note["count"], "first": first}
    return notes


def sample_numbers(source: Source[Encoded]) -> list[int]:
    """The numbers of some examples of a source, the same at each call; none of a small source."""
    count = SAMPLE if len(source) >= SAMPLE else 0
    return sorted(np.random.default_rng(0).choice(len(source), count, replace=False).tolist())


def check_sample(sample: Mapping[int, Encoded | DataError]) -> None:
    """Checks a sample of a source's examples, by number, before a stage's first step.

    Raises:
      DataError: more than one in ten can't be created or is too long; the source is not what was configured.
    """
    reasons = [f"example {n}: {error}" for n, error in sample.items() if isinstance(error, DataError)]
    if len(reasons) > len(sample) * MOST_UNUSABLE:
        raise DataError(
            f"{len(reasons)} of {len(sample)} examples looked at can't be trained on; {reasons[0]}"
        )


@dataclasses.dataclass(frozen=True)
class Fitting:
    """Training examples; one that can't be created or is too long is replaced by the next usable one.

    Which one that is depends on the examples alone. The first are named in the log.
    """

    source: Source[Encoded]
    check: Callable[[Encoded], None]
    _logged: set[int] = dataclasses.field(default_factory=set)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Encoded:
        tries = min(len(self), TRIES)
        for number in range(int(index), int(index) + tries):
            place = number % len(self)
            example = usable(self.source, place, self.check)
            if not isinstance(example, DataError):
                return example
            reason = example
            if place not in self._logged and len(self._logged) < LOGGED:
                self._logged.add(place)
                logging.warning("left out: example %d: %s", place, reason)
        raise DataError(f"none of {tries} examples can be trained on; the last: {reason}")
