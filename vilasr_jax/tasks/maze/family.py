"""Mazes as a task family."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.models import default_family
from vilasr_jax.tasks.family import IS, Family
from vilasr_jax.tasks.maze import route
from vilasr_jax.tasks.maze.generate import make_maze_row
from vilasr_jax.tasks.maze.perception import perception_example
from vilasr_jax.tasks.maze.phrases import PHRASES, corpus
from vilasr_jax.tasks.maze.spec import MazeSpec
from vilasr_jax.tasks.maze.traces import direct_trace, expert_trace, text_trace
from vilasr_jax.tasks.rows import Row, Trace
from vilasr_jax.tasks.tokenizer_phrases import SHORT, sample_texts

OOD_LOOKS = ("thin", "thick", "blueprint", "sand")


class MazeFamily(Family):
    """Where a list of moves ends among walls, and which list leads to a goal."""

    name = "maze"
    Spec = MazeSpec
    phrases = PHRASES

    def spec(self, section: Any, split: str, **changes: Any) -> MazeSpec:
        given: dict[str, Any] = {}
        if section is not None:
            given = dict(
                grid=section.grid,
                cell=section.cell,
                moves=(section.min_moves, section.max_moves),
                wall_density=section.wall_density,
                kinds=section.kinds,
            )
        return MazeSpec(**{**given, "split": split, **changes})

    def fitted(self, section: Any, side: int) -> Any:
        """Cells of some tokens of another family become cells of as many tokens of this one."""
        usual = default_family().images.factor
        if side == usual or section.cell % (side // 2) == 0 or section.cell % usual:
            return section
        return replace(section, cell=section.cell // usual * side)

    def phrases_for(self, section: Any) -> Sequence[str]:
        kinds = self.spec(section, "train").kinds
        return (*PHRASES, *route.PHRASES, IS) if "route" in kinds else PHRASES

    def row(self, spec: MazeSpec, seed: int) -> Row:
        kind = spec.kinds[0] if len(spec.kinds) == 1 else random.Random(f"kind {seed}").choice(spec.kinds)
        return make_maze_row(spec, seed) if kind == "end" else route.make_route_row(spec, seed)

    def expert_trace(self, row: Row, rng: random.Random, slip: bool = False) -> Trace:
        if row.meta["kind"] == "route":
            return route.route_trace(row, rng, slip)
        return expert_trace(row, rng, slip, labels="line")

    def text_trace(self, row: Row) -> Trace:
        return super().text_trace(row) if row.meta["kind"] == "route" else text_trace(row)

    def direct_trace(self, row: Row) -> Trace:
        return super().direct_trace(row) if row.meta["kind"] == "route" else direct_trace(row)

    def perception(self, spec: MazeSpec, seed: int, settings: DrawingSettings) -> list[dict[str, Any]]:
        return perception_example(spec, seed, settings)

    def ood(self, section: Any) -> dict[str, Sequence[MazeSpec]]:
        grid = 6 if section is None else section.ood_grid
        return {
            "bigger grid": (self.spec(section, "ood", grid=grid),),
            "other look": tuple(self.spec(section, "ood", look=look) for look in OOD_LOOKS),
        }

    def corpus(self, section: Any, settings: DrawingSettings = SHORT) -> Iterator[str]:
        for spec in (self.spec(section, "train"), self.ood(section)["bigger grid"][0]):
            yield from corpus(spec, settings)
            if "route" in spec.kinds:
                yield from sample_texts(self, replace(spec, kinds=("route",)), settings, rows=24)


FAMILY = MazeFamily()
