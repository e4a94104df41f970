"""TFDS builders of the task families.

    import vilasr_jax.tasks.dataset as dataset

    builder = dataset.Static(data_dir="data", config="easy", file_format="array_record")
    builder.download_and_prepare()
    rows = builder.as_data_source(split="train")

`vilasr data make` writes the same files in many processes, and can be stopped and restarted.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from vilasr_jax.tasks.family import Family
from vilasr_jax.tasks.registry import get_family
from vilasr_jax.tasks.rows import TEXT_FIELDS, Row
from vilasr_jax.tasks.scene_family import SceneFamily

VERSION = "2.0.0"  # the first number grows when a seed's rows or traces change
TRACES = ("expert", "slip", "text", "direct")
ROWS = {"train": 1000, "rl": 1000, "val": 256, "test": 512, "ood": 512}  # of a builder used by itself


def features() -> tfds.features.FeaturesDict:
    """What a stored row holds; `meta` is JSON, a trace the assistant's turns."""
    texts = tfds.features.Sequence(tfds.features.Text())
    return tfds.features.FeaturesDict(
        {
            **{name: tfds.features.Text() for name in (*TEXT_FIELDS, "meta")},
            "options": texts,
            "images": tfds.features.Sequence(
                tfds.features.Image(shape=(None, None, 3), encoding_format="png")
            ),
            **{f"{name}_turns": texts for name in TRACES},
        }
    )


def example(family: Family, row: Row) -> dict[str, Any]:
    """The record of a row and its traces, one value per feature. The row's id seeds the traces."""
    rng = random.Random(f"trace {row.id}")
    traces = (
        family.expert_trace(row, rng),
        family.expert_trace(row, rng, slip=True),
        family.text_trace(row),
        family.direct_trace(row),
    )
    return {
        **{name: getattr(row, name) for name in TEXT_FIELDS},
        "meta": json.dumps({**row.meta, "mistakes": traces[1].mistakes}),
        "options": list(row.options),
        "images": [_png(image) for image in row.images],
        **{f"{name}_turns": list(trace.turns) for name, trace in zip(TRACES, traces, strict=True)},
    }


def split_rows(family: Family, section: Any, split: str, count: int, first: int = 0) -> Iterator[Row]:
    """`count` rows of a split, from seed `first` on."""
    if split == "ood":
        yield from family.ood_rows(section, count, first)
    else:
        yield from family.rows(family.spec(section, split), count, first)


def _png(image) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, "PNG")
    file.seek(0)
    return file


class TaskDataset(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]  # TFDS has no types
    """A task family as a dataset; `task` is the family's name, a config is one of its levels."""

    VERSION = tfds.core.Version(VERSION)
    task: str = ""

    def _info(self) -> tfds.core.DatasetInfo:
        description = type(get_family(self.task)).__doc__ or self.task
        return tfds.core.DatasetInfo(builder=self, features=features(), description=description)

    def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
        return {split: self._generate_examples(split, count) for split, count in ROWS.items()}

    def _generate_examples(self, split: str, count: int) -> Iterator[tuple[str, dict[str, Any]]]:
        family = get_family(self.task)
        changes = {"level": self.builder_config.name} if self.builder_config else {}
        specs = family.spec(None, split, **changes)
        rows = family.ood_rows(specs, count) if split == "ood" else family.rows(specs, count)
        for row in rows:
            yield row.id, example(family, row)


def _levels(task: str) -> list[tfds.core.BuilderConfig]:
    family = get_family(task)
    assert isinstance(family, SceneFamily), "families with levels are of scenes"
    return [tfds.core.BuilderConfig(name=level) for level in family.levels]


class Maze(TaskDataset):
    """Mazes."""

    task = "maze"


class Static(TaskDataset):
    """Static pictures."""

    task = "static"
    BUILDER_CONFIGS = _levels("static")


class Video(TaskDataset):
    """Videos."""

    task = "video"
    BUILDER_CONFIGS = _levels("video")


class Multiview(TaskDataset):
    """Rooms seen from several places."""

    task = "multiview"
    BUILDER_CONFIGS = _levels("multiview")
