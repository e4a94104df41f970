r"""A task of one's own in one file: how many dots are there? Train on it with

    PYTHONPATH=. vilasr train --config=configs/maze_tiny.py --workdir=runs/dots \
        --config.tasks="('tests.tasks.count_dots',)" --config.cold_start.perception_steps=0
"""

import random
from dataclasses import dataclass

from PIL import Image, ImageDraw

from vilasr_jax.tasks import Family, Row, Trace
from vilasr_jax.tasks.splits import content_hash, first_in_split
from vilasr_jax.tasks.trace_text import GOOD, WRONG, answer_turn, box_turn


@dataclass(frozen=True)
class Spec:
    """Dots on a grid of 28-pixel cells."""

    grid: int = 3
    most: int = 4
    split: str = "train"


class CountDots(Family):
    """How many dots; the expert boxes one a turn."""

    name = "dots"
    Spec = Spec
    phrases = (*Family.phrases, "\nHow many dots? Number?", "There are ")

    def row(self, spec, seed):
        rng = random.Random(f"dots {spec} {seed}")
        cells = [(x, y) for y in range(spec.grid) for x in range(spec.grid)]
        dots = first_in_split(
            lambda: sorted(rng.sample(cells, rng.randint(1, spec.most))), content_hash, spec.split
        )
        image = Image.new("RGB", (28 * spec.grid, 28 * spec.grid), "white")
        for x, y in dots:
            ImageDraw.Draw(image).ellipse((28 * x + 6, 28 * y + 6, 28 * x + 21, 28 * y + 21), fill="crimson")
        return Row(
            id=f"dots-{spec.split}-{seed}",
            question="How many dots?",
            answer=str(len(dots)),
            question_type="numerical",
            options=(),
            images=(image,),
            data_type="vqa",
            meta={"family": "dots", "kind": "count", "hash": content_hash(dots)},
            scene=dots,
        )

    def expert_trace(self, row, rng, slip=False):
        turns, judged = [], ""
        slip_at = rng.randrange(len(row.scene)) if slip else -1
        for number, (x, y) in enumerate(row.scene):
            if number == slip_at:
                wrong = (x + 1, y) if x == 0 else (x - 1, y)
                turns.append(box_turn(judged, [(1, _cell(*wrong), number + 1)]))
                judged = WRONG
            turns.append(box_turn(judged, [(1, _cell(x, y), number + 1)]))
            judged = GOOD
        turns.append(answer_turn(f"{judged}There are {row.answer}", row.answer))
        return Trace(row, tuple(turns), (slip_at,) if slip else ())


def _cell(x, y):
    return 28 * x, 28 * y, 28 * x + 28, 28 * y + 28


FAMILY = CountDots()
