"""What a host's own work costs: measured on this machine in a few seconds, or given."""

from __future__ import annotations

import dataclasses
import io
import math
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from PIL import Image

from vilasr_jax.checkpoint import CheckpointStore
from vilasr_jax.drawing import DrawingSession, DrawingSettings
from vilasr_jax.errors import ConfigError
from vilasr_jax.models import ModelFamily
from vilasr_jax.processing import (
    Budget,
    Encoded,
    PackedRow,
    collate_packed,
    load_image,
    resize_image,
    size_grid,
    train_tiny_tokenizer,
)
from vilasr_jax.processing.vision_rows import empty_vision, write_image

MEASURED, ASSUMED, GIVEN = "measured on this machine", "assumed", "given"
_TOKENS = 4096  # of the row that is written
_SAVED = 64 << 20  # bytes of the checkpoint that is written
_DRAW = """<think> look </think>
Action: Object Mapper
```json
[{"index": 1, "bbox_2d": [%d, %d, %d, %d], "label": "red chair"}]
```"""


@dataclasses.dataclass(frozen=True)
class HostCosts:
    """Milliseconds of one thread, and bytes per second of a host. The defaults are assumed, not measured."""

    draw_ms: float = 5.0  # a turn read, its image drawn, and the reply written
    decode_ms: float = 10.0  # a stored image decoded and resized
    patch_ms: float = 5.0  # an image cut into patches
    encode_ms: float = 1.0  # 1,000 tokens from text, or to text
    row_ms: float = 1.0  # 1,000 tokens written into a batch
    call_ms: float = 2.0  # a compiled call dispatched
    threads: int = 1  # drawings of a host that run at once; in one process Python runs one at a time
    save_gbs: float = 0.1  # GB per second of a checkpoint, from memory to its files
    copy_gbs: float = 5.0  # GB per second between a host and its chips

    def __post_init__(self):
        for name, value in vars(self).items():
            above = 0 <= value if name.endswith("_ms") else 0 < value
            if not above or value == math.inf:
                raise ConfigError(f"--host_costs: {name}={value:g} must be a number above 0")

    def drawing(self, images: int) -> float:
        """Seconds to read a turn that draws `images`."""
        return images * self.draw_ms / 1000

    def patching(self, images: int) -> float:
        """Seconds to cut images into patches."""
        return images * self.patch_ms / 1000

    def encoding(self, tokens: int) -> float:
        """Seconds from text to tokens, or back."""
        return tokens * self.encode_ms / 1e6

    def writing(self, tokens: int) -> float:
        """Seconds to write tokens into a batch."""
        return tokens * self.row_ms / 1e6


def known_costs(
    given: Mapping[str, float], side: int, family: ModelFamily
) -> tuple[HostCosts, dict[str, str]]:
    """The costs, and the source of each: given, measured here, or assumed where it can't be measured here.

    Args:
      given: by name; nothing is measured where all are given that can be.
      side: pixels of an image.
      family: of the model.
    """
    sources = dict.fromkeys((field.name for field in dataclasses.fields(HostCosts)), ASSUMED)
    measured = (
        {} if sources.keys() - {"call_ms", "threads", "copy_gbs"} <= given.keys() else measure(side, family)
    )
    sources |= dict.fromkeys(measured, MEASURED) | dict.fromkeys(given, GIVEN)
    values: dict[str, Any] = {**measured, **given}
    return HostCosts(**values), sources


def measure(side: int, family: ModelFamily) -> dict[str, float]:
    """The costs that a machine without TPUs can measure, by the time of one of its cores.

    A checkpoint is written to the machine's temporary folder; a bucket may be slower, many cores are faster.
    """
    image = Image.effect_noise((side, side), 50).convert("RGB")
    question = "How far is the red chair from the door, and which of the two is nearer to the window? "
    tokenizer = train_tiny_tokenizer([question], [], 600, family)
    spec = family.images
    grid = size_grid((side, side), spec)
    patches = grid[1] * grid[2]

    def draw() -> None:
        settings = DrawingSettings(prompt="short", max_turns=9, max_images=9)
        session = DrawingSession([image], question, settings=settings)
        for at in range(4):
            session.step(_DRAW % (at, at, at + side // 3, at + side // 2))

    def cut() -> None:
        write_image(empty_vision(1, 1, patches, spec), 0, (0, 0), image, grid, spec)

    stored = io.BytesIO()
    Image.effect_noise((2 * side, 2 * side), 50).convert("RGB").save(stored, "JPEG")

    def decode() -> None:
        resize_image(load_image(stored.getvalue()), max_pixels=side * side, spec=spec)

    text = question * 20
    tokens = len(tokenizer.encode(text))
    budget = Budget(_TOKENS, 1, patches, spec)
    row = PackedRow(budget)
    mask = np.ones(_TOKENS // 4, bool)
    for _ in range(4):
        row.add(Encoded(np.ones(_TOKENS // 4, np.int32), mask, [], tokenizer.special))
    return {
        "draw_ms": 1000 * _least(draw) / 4,
        "decode_ms": 1000 * _least(decode),
        "patch_ms": 1000 * _least(cut),
        "encode_ms": 1e6 * _least(lambda: tokenizer.decode(tokenizer.encode(text))) / (2 * tokens),
        "row_ms": 1e6 * _least(lambda: collate_packed([row], budget)) / _TOKENS,
        "save_gbs": _saving_rate() / 1e9,
    }


def _least(work: Callable[[], object], times: int = 5) -> float:
    """Processor seconds of the fastest of several runs."""
    work()
    found = []
    for _ in range(times):
        began = time.thread_time()
        work()
        found.append(time.thread_time() - began)
    return max(min(found), 1e-9)


def _saving_rate() -> float:
    """Bytes of a checkpoint per second of a core, in addition to what the smallest one needs."""
    values = jnp.asarray(np.random.default_rng(0).standard_normal(_SAVED // 4, np.float32))
    with tempfile.TemporaryDirectory() as folder, CheckpointStore(Path(folder) / "checkpoints") as store:
        seconds = []
        for step, part in enumerate((values[:8], values[:8], values)):  # the first starts threads
            began = time.process_time()
            store.save(step, {"params": {"weights": part}}, wait=True)
            seconds.append(time.process_time() - began)
    return _SAVED / max(seconds[2] - seconds[1], 1e-3)
