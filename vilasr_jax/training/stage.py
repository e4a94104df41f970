"""One stage's folder: checkpoints, metrics, and where to go on after a stop."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tensorboardX import SummaryWriter

from vilasr_jax.checkpoint import CheckpointStore


class Stage:
    """Steps of training in a folder of their own.

    Checkpoints lie in `<directory>/checkpoints/<step>`; a line a logged step goes to `metrics.jsonl` and
    TensorBoard. A stage is over when its last step is saved. After a stop, `begin` goes back to the newest
    saved step and drops the metrics that came after it, so that the rest runs as it would have without the
    stop.
    """

    def __init__(self, directory: Path, steps: int, save_every: int, title: str):
        self.directory, self.steps, self.save_every, self.title = directory, steps, save_every, title
        self.store = CheckpointStore(directory / "checkpoints", keep=2)
        self.window: list[Mapping[str, Any]] = []
        self._writer: SummaryWriter | None = None
        self._started = self._started_cpu = 0.0

    @property
    def done(self) -> bool:
        """Whether the last step is saved."""
        step = self.store.latest_step()
        return step is not None and step >= self.steps

    def load_params(self, abstract: Any) -> Any:
        """The parameters of the newest checkpoint; `abstract` gives shapes and shardings."""
        return self.store.restore(None, {"params": abstract})["params"]

    def begin(self, items: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Returns (steps already done, items): those given, or those of the newest checkpoint."""
        self._started, self._started_cpu = time.monotonic(), time.process_time()
        step = 0
        if self.store.latest_step() is not None:
            abstract = {
                name: jax.tree.map(_abstract, item) if name != "data_iter" else None
                for name, item in items.items()
            }
            restored = self.store.restore(None, abstract)
            step, items = restored.step, dict(restored)
        path = self.directory / "metrics.jsonl"
        if path.exists():
            lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
            path.write_text("".join(line for line in lines if json.loads(line)["step"] <= step))
        self.directory.mkdir(parents=True, exist_ok=True)
        self._writer = SummaryWriter(str(self.directory / "tensorboard"), purge_step=step + 1)
        return step, items

    def note(self, metrics: Mapping[str, Any]) -> None:
        """Keeps a step's scalars (still on the device) for the next `log`."""
        self.window.append(metrics)

    def log(self, step: int, **more: float) -> dict[str, float]:
        """Writes the means of what was noted since the last time, and `more`."""
        window = jax.device_get(self.window)
        self.window = []
        means = {k: float(np.mean([m[k] for m in window])) for k in (window[0] if window else {})}
        values = {**means, **{k: float(v) for k, v in more.items()}}
        line = {
            "step": step,
            "time": round(time.monotonic() - self._started, 2),
            "cpu_seconds": round(time.process_time() - self._started_cpu, 2),
            **values,
        }
        with (self.directory / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        return values

    def save_due(self, step: int) -> bool:
        """Whether step `step` is to be saved."""
        return step == self.steps or (self.save_every > 0 and step % self.save_every == 0)

    def save(self, step: int, items: dict[str, Any]) -> None:
        """Saves in the background; the last step is waited for."""
        self.store.save(step, items, metadata={"title": self.title}, wait=step == self.steps)

    def close(self) -> None:
        """Flushes what is still being written."""
        self.store.close()
        if self._writer:
            self._writer.close()
            self._writer = None


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
