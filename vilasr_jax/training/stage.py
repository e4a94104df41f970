"""One stage's folder: checkpoints and metrics, and resuming from them."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from tensorboardX import SummaryWriter

from vilasr_jax.checkpoint import CheckpointStore
from vilasr_jax.files import write_text
from vilasr_jax.parallel import is_writer, peak_flops

Pair = tuple[Any, Any]  # (sum, count): means of unequal parts are not biased
JSON_ITEMS = ("data_iter", "recovery")
SCORE = "val_accuracy"  # metric by which the best checkpoint is chosen
SAMPLING, UPDATING = "sampling_seconds", "update_seconds"  # metrics of a step that samples and updates
# Figures that differ from run to run.
TIMED = ("time", "cpu_seconds", "tokens_per_second", "mfu", SAMPLING, UPDATING, "sampled_tokens_per_second")


class Stage:
    """Training steps in a folder.

    Checkpoints are in `<directory>/checkpoints/<step>`; each logged step is a line of `metrics.jsonl` and an
    entry of TensorBoard. A stage is done when its last step is saved. To resume, `begin` restores the newest
    saved step and deletes later metrics; the run then ends with the same weights as without the stop. A
    step after which a run stopped has a line of metrics of its own, so the next line averages fewer.

    Args:
      directory: the stage's folder.
      steps: number of steps; None while it is not known.
      save_every: steps between checkpoints; 0: only the last one.
      title: for bars and messages.
      profile: steps that the JAX profiler traces, from the second on.
    """

    def __init__(self, directory: Path, steps: int | None, save_every: int, title: str, profile: int = 0):
        self.directory, self.steps, self.save_every, self.title = directory, steps, save_every, title
        self.store = CheckpointStore(directory / "checkpoints", newest=2, best=1)
        self.log_also: dict[str, float] = {}  # values added to the next lines of the metrics
        self.flops_per_token = 0.0  # all passes of one trained token; 0: no MFU
        self.profile = profile  # steps to trace, from the second on
        self._tracing = False
        self.window: list[Mapping[str, Pair]] = []
        self._writer: SummaryWriter | None = None
        self._started = self._started_cpu = self._logged = 0.0

    @property
    def done(self) -> bool:
        """Whether the last step is saved; not while the number of steps is not known (None)."""
        if self.steps is None:
            return False
        step = self.store.latest_step()
        return step is not None and step >= self.steps

    @property
    def begun(self) -> bool:
        """Whether any step is saved."""
        return self.store.latest_step() is not None

    def step(self, best: bool = False) -> int | None:
        """The newest saved step; with `best`, that of the best validation score, where steps have one."""
        step = self.store.best_step() if best else None
        return self.store.latest_step() if step is None else step

    def load_params(self, abstract: Any, best: bool = False) -> Any:
        """The parameters of a saved step (see `step`); `abstract` gives shapes and shardings.

        Raises:
          CheckpointError: that step is damaged; no other is read in its place.
        """
        return self.store.restore(self.step(best), {"params": abstract})["params"]

    def begin(self, items: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Returns (steps already done, items): those given, or those of the newest checkpoint."""
        self._started = self._logged = time.monotonic()
        self._started_cpu = time.process_time()
        step = 0
        if self.begun:
            abstract = {
                name: jax.tree.map(_abstract, item) if name not in JSON_ITEMS else None
                for name, item in items.items()
            }
            restored = self.store.restore(None, abstract)
            step, items = restored.step, dict(restored)
        if is_writer():
            path = self.directory / "metrics.jsonl"
            if path.exists():
                lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
                write_text(path, "".join(line for line in lines if json.loads(line)["step"] <= step))
            self.directory.mkdir(parents=True, exist_ok=True)
            self._writer = SummaryWriter(str(self.directory / "tensorboard"), purge_step=step + 1)
        return step, items

    def trace(self, step: int, first: int) -> None:
        """Called before each step: starts and ends the profiler's trace, in `<directory>/profile`.

        The first step of a run compiles, so the trace begins with the second.
        """
        if self.profile and step == first + 1:
            jax.profiler.start_trace(str(self.directory / "profile"))
            self._tracing = True
        elif step == first + 1 + self.profile:
            self._end_trace()

    def _end_trace(self) -> None:
        if self._tracing:
            jax.profiler.stop_trace()
            self._tracing = False

    def note(self, metrics: Mapping[str, Pair]) -> None:
        """Adds a step's (sum, count) pairs (still on the device) to the next `log`."""
        self.window.append(metrics)

    def log(self, step: int, **more: float) -> dict[str, float]:
        """Writes the means of the metrics noted since the last call, and `more` unchanged; returns them.

        Where steps were noted with their "useful_tokens", `tokens_per_second` is the rate of training: over
        all the time since the last call, or over the time of the updates where that was noted. `mfu` is the
        same rate over the device's peak, where that is known.
        """
        window = jax.device_get(self.window)
        self.window = []
        totals: dict[str, list[float]] = {}
        for metrics in window:
            for name, (amount, count) in metrics.items():
                total = totals.setdefault(name, [0.0, 0.0])
                total[0] += float(amount)
                total[1] += float(count)
        means = {name: amount / max(count, 1.0) for name, (amount, count) in totals.items()}
        values = {**means, **{k: float(v) for k, v in {**self.log_also, **more}.items()}}
        now = time.monotonic()
        if SAMPLING in totals:
            values["sampled_tokens_per_second"] = totals["response_tokens"][0] / totals[SAMPLING][0]
        if "useful_tokens" in totals:
            seconds = totals[UPDATING][0] if UPDATING in totals else now - self._logged
            values["tokens_per_second"] = totals["useful_tokens"][0] / max(seconds, 1e-9)
            if self.flops_per_token and (peak := peak_flops()):
                values["mfu"] = values["tokens_per_second"] * self.flops_per_token / peak
        self._logged = now
        if self._writer is not None:
            line = {
                "step": step,
                "time": round(now - self._started, 2),
                "cpu_seconds": round(time.process_time() - self._started_cpu, 2),
                **values,
            }
            with (self.directory / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(line) + "\n")
            for name, value in values.items():
                self._writer.add_scalar(name, value, step)
        return values

    def logged(self, step: int) -> dict[str, float]:
        """The metrics logged last, if they are those of `step`; else none. Other hosts ask the writer."""
        path = self.directory / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        values = json.loads(lines[-1]) if lines else {}
        return values if values.get("step") == step else {}

    def amend(self, step: int, **more: float) -> None:
        """Adds values to the metrics that are logged of the last step, `step`."""
        if self._writer is not None and (values := self.logged(step)):
            path = self.directory / "metrics.jsonl"
            *lines, _ = path.read_text().splitlines()
            write_text(path, "".join(f"{line}\n" for line in [*lines, json.dumps({**values, **more})]))
            for name, value in more.items():
                self._writer.add_scalar(name, value, step)

    def save_due(self, step: int) -> bool:
        """Whether step `step` is to be saved."""
        return step == self.steps or (self.save_every > 0 and step % self.save_every == 0)

    def save(
        self, step: int, items: dict[str, Any], *, score: float | None = None, wait: bool = False
    ) -> None:
        """Saves in the background, the last step before returning; the best score's step stays, too."""
        wait = wait or step == self.steps
        self.store.save(step, items, metadata={"title": self.title}, score=score, wait=wait)

    def close(self) -> None:
        """Flushes what is still being written."""
        self._end_trace()
        self.store.close()
        if self._writer:
            self._writer.close()
            self._writer = None


def _abstract(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
