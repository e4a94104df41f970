"""Base class of a task family: it generates rows, expert traces and everything else a job needs."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from vilasr_jax.drawing import DrawingSettings, parse_actions
from vilasr_jax.tasks.rows import Row, Trace
from vilasr_jax.tasks.tokenizer_phrases import ERRORS, SHORT, sample_texts
from vilasr_jax.tasks.trace_text import BOX_PIECES, LINE_PIECES, answer_turn

IS = "The answer is "


class Family:
    """A kind of task. A subclass must give `name`, `Spec`, `row` and `expert_trace`; others have defaults.

    `Spec` is a frozen dataclass of all that a row depends on besides its seed. It has a field `split`; its
    fields that are also fields of the job's section of this name (`config.static`, say) come from there.
    The same spec and seed always give the same row, and a row's content decides its split
    (`tasks.splits`), so no row is in two splits.

    To add a task, write one module that ends with `FAMILY = MyFamily()`, and name the module in
    `config.tasks`.
    """

    name: ClassVar[str]
    Spec: ClassVar[type]
    phrases: ClassVar[Sequence[str]] = (*LINE_PIECES, *BOX_PIECES, IS)  # one token each of the tiny tokenizer

    def spec(self, section: Any, split: str, **changes: Any) -> Any:
        """The specification of a split, from the job's section (None: the defaults)."""
        fields = () if section is None else dataclasses.fields(section)
        given = {field.name: getattr(section, field.name) for field in fields}
        return self.Spec(**{**given, "split": split, **changes})

    def phrases_for(self, section: Any) -> Sequence[str]:
        """Phrases that are one token each of the tiny tokenizer, under these settings."""
        return self.phrases

    def row(self, spec: Any, seed: int) -> Row:
        """The row of a seed. `meta` holds plain values, among them "family", "kind" and "hash"."""
        raise NotImplementedError

    def sourced_row(self, spec: Any, seed: int) -> Row:
        """The row of a seed, its `source` filled in."""
        return dataclasses.replace(self.row(spec, seed), source=(self.name, seed))

    def expert_trace(self, row: Row, rng: random.Random, slip: bool = False) -> Trace:
        """A right conversation; with `slip` one drawing is wrong and is drawn again a turn later."""
        raise NotImplementedError

    def truth(self, row: Row) -> list[dict[str, Any]]:
        """The right boxes and lines, as plain data: what the expert draws. None of a stored row."""
        if row.scene is None:
            return []
        turns = self.expert_trace(row, random.Random(0)).turns
        return [call.to_dict() for text in turns for call in parse_actions(text).calls]

    def text_trace(self, row: Row) -> Trace:
        """Control: what the expert thinks and the coordinates it draws, in one turn without drawing."""
        said, think = "", ""
        for text in self.expert_trace(row, random.Random(0)).turns:
            turn = parse_actions(text)
            places = ", ".join("[{x1}, {y1}, {x2}, {y2}]".format(**call.to_dict()) for call in turn.calls)
            think = turn.think or ""
            said += f"{think} {places}. " if places else ""
        return Trace(row, (answer_turn(said + think.removesuffix("."), row.answer),))

    def direct_trace(self, row: Row) -> Trace:
        """Control: the answer at once."""
        return Trace(row, (answer_turn(IS + row.answer, row.answer),))

    def perception(self, spec: Any, seed: int, settings: DrawingSettings) -> list[dict[str, Any]] | None:
        """Messages of questions about places in the images, for the perception phase; None without."""
        return None

    def fitted(self, section: Any, side: int) -> Any:
        """The section with images whose sides are multiples of a token's, `side` pixels."""
        return section

    def ood(self, section: Any) -> Mapping[str, Sequence[Any]]:
        """Specifications out of distribution, by what differs from the trained ones."""
        return {"unseen": (self.spec(section, "ood"),)}

    def corpus(self, section: Any, settings: DrawingSettings = SHORT) -> Iterator[str]:
        """Sample texts for the tiny tokenizer."""
        yield from map(str, range(max(64, settings.max_images + 1)))
        yield from ERRORS
        for spec in (self.spec(section, "train"), *(specs[0] for specs in self.ood(section).values())):
            yield from sample_texts(self, spec, settings)

    def rows(self, spec: Any, count: int, first: int = 0) -> Iterator[Row]:
        """`count` rows of different content, from seed `first` on."""
        seen: set[str] = set()
        seed = first
        while len(seen) < count:
            row = self.sourced_row(spec, seed)
            seed += 1
            if row.meta["hash"] not in seen:
                seen.add(row.meta["hash"])
                yield row

    def ood_rows(self, section: Any, count: int, first: int = 0) -> list[Row]:
        """`count` rows unlike the trained ones, an equal part of each kind (`meta["unlike"]`)."""
        rows: list[Row] = []
        kinds = self.ood(section)
        for left, (kind, specs) in zip(range(len(kinds), 0, -1), kinds.items(), strict=True):
            size = (count - len(rows)) // left
            each = -(-size // len(specs))
            part = [row for spec in specs for row in self.rows(spec, each, first)]
            rows += [dataclasses.replace(row, meta={**row.meta, "unlike": kind}) for row in part[:size]]
        return rows
