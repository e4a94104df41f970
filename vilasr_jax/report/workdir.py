"""Reads a workdir for the report; missing or incomplete files are left out."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from vilasr_jax.environment import STARTS
from vilasr_jax.errors import DataError

# In the order of the run, with the words that people read.
STAGE_NAMES = {
    "untrained": "Before training",
    "cold_start/perception": "Cold start: seeing",
    "cold_start": "Cold start",
    "reflect": "Reflection",
    "rl": "Reinforcement learning",
    "more_sft": "Control: more fine-tuning instead of RL",
    "direct": "Control: answers at once",
    "text_coordinates": "Control: writes coordinates, draws nothing",
    "blank_image": "Control: picture blanked",
    "ood": "Unfamiliar questions",
}
SAMPLES = "@"  # in the name of conversations that were saved while training: "rl@120", of its step 120
NEWEST = 6  # steps whose saved conversations are shown
INT8 = "_int8"  # what the name of a stage ends with that was evaluated with int8 weights
FUNNEL_STEPS = {
    "sampled": "sampled",
    "parsed": "read without fault",
    "right": "answered right",
    "reflective": "corrected a drawing",
    "kept": "used for training",
}


@dataclass
class Run:
    """A workdir's content. `conversations` are results lines with `folder`, where their images are."""

    path: Path
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    curves: dict[str, dict[str, list[list[float]]]] = field(
        default_factory=dict
    )  # stage -> name -> [step, value]
    funnel: dict[str, Any] = field(default_factory=dict)
    conversations: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    starts: list[dict[str, Any]] = field(default_factory=list)  # see `environment`

    @property
    def scores(self) -> dict[str, dict[str, Any]]:
        """Stage -> its row of the summary table, in the order of the run."""
        stages = self.summary.get("stages")
        rows = {k: v for k, v in stages.items() if isinstance(v, dict)} if isinstance(stages, dict) else {}
        return {name: rows[name] for name in sorted(rows, key=stage_order)}


def stage_order(name: str) -> tuple[int, str]:
    """Sort key: known stages in the order of a run, others after them by name."""
    known, base = list(STAGE_NAMES), name.removesuffix(INT8)
    stage, samples, step = name.partition(SAMPLES)
    if samples and step.isdecimal():  # before the evaluations, the newest first
        return (-1, f"{10**9 - int(step):010}{stage}")
    return (known.index(base) if base in known else len(known), name)


def stage_label(name: str, scores: dict[str, Any] | None = None) -> str:
    """The words for a stage; a control's `scores` add of which stage and step it is."""
    trained, samples, step = name.partition(SAMPLES)
    if samples:
        return f"{stage_label(trained)}: training, step {step}"
    base = name.removesuffix(INT8)
    label = STAGE_NAMES.get(base) or base.replace("_", " ").capitalize()
    model = (scores or {}).get("model")
    if isinstance(model, dict) and model.get("stage") not in (None, base):
        label += f" ({stage_label(str(model['stage'])).lower()}, step {model.get('step')})"
    return label if base == name else f"{label}, int8 weights"


def read_run(workdir: str | Path) -> Run:
    """Reads a workdir; DataError when there is no such folder."""
    path = Path(workdir)
    if not path.is_dir():
        raise DataError(f"{path}: no such folder; give the --workdir of a run")
    run = Run(path)
    run.config = _read_object(path / "config.json", run.notes)
    run.summary = _read_object(path / "summary.json", run.notes)
    if (path / STARTS).is_file():
        run.starts = list(_read_lines(path / STARTS, run.notes))
    run.funnel = _read_object(path / "reflect" / "funnel.json", run.notes)
    for file in [*path.glob("*/metrics.jsonl"), *path.glob("*/perception/metrics.jsonl")]:
        curves = read_curves(file, run.notes)
        if curves:
            run.curves[file.parent.relative_to(path).as_posix()] = curves
    for file in sorted(path.glob("eval/*/results.jsonl"), key=lambda p: stage_order(p.parent.name)):
        for row in _read_lines(file, run.notes):
            run.conversations.append(
                {**row, "stage": row.get("stage") or file.parent.name, "folder": file.parent}
            )
    for file in sorted(path.glob("eval/*/*/results.jsonl")):  # of a benchmark, or of a user's own questions
        stage, name = file.parts[-3:-1]
        for row in _read_lines(file, run.notes):
            run.conversations.append({**row, "stage": stage, "family": name, "folder": file.parent})
    for stage, step, file in _newest_samples(path):
        for row in _read_lines(file, run.notes):
            run.conversations.append({**row, "stage": f"{stage}{SAMPLES}{step}", "folder": file.parent})
    return run


def is_run(folder: Path) -> bool:
    """Whether a run has begun in a folder, which then has the run's config."""
    return "model" in _read_object(folder / "config.json", [])


def _newest_samples(path: Path) -> list[tuple[str, int, Path]]:
    """(stage, step, results file) of the conversations that stages saved last (config.rl.sample_every)."""
    found = []
    for file in path.glob("*/samples/step_*/results.jsonl"):
        step = file.parent.name.removeprefix("step_")
        if step.isdecimal():
            found.append((file.parents[2].name, int(step), file))
    return sorted(found, key=lambda one: one[1])[-NEWEST:]


def read_curves(file: Path, notes: list[str], points: int = 240) -> dict[str, list[list[float]]]:
    """Metric name -> [step, value] pairs in order of step, averaged down to `points`.

    A step written twice (a resumed run) counts as written last.
    """
    series: dict[str, dict[float, float]] = {}
    for row in _read_lines(file, notes):
        step = row.get("step")
        if not _is_number(step):
            continue
        for name, value in row.items():
            if name not in ("step", "time", "cpu_seconds") and _is_number(value):
                series.setdefault(name, {})[step] = value
    return {name: _thin(sorted(pairs.items()), points) for name, pairs in series.items()}


def _thin(pairs: list[tuple[float, float]], points: int) -> list[list[float]]:
    width = -(-len(pairs) // points)
    groups = (pairs[i : i + width] for i in range(0, len(pairs), width))
    return [[group[-1][0], float(f"{sum(v for _, v in group) / len(group):.6g}")] for group in groups]


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300


def mapping(value: Any) -> dict[str, Any]:
    """The value where it is a dict, else an empty one."""
    return value if isinstance(value, dict) else {}


def _read_object(file: Path, notes: list[str]) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        value = json.loads(file.read_text(encoding="utf-8", errors="replace"))
    except ValueError:
        value = None
    if not isinstance(value, dict):
        notes.append(f"{file.name} could not be read")
        return {}
    return value


def _read_lines(file: Path, notes: list[str]) -> Iterator[dict[str, Any]]:
    broken = 0
    with file.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            if not line.strip():
                continue
            try:
                value = json.loads(line)
            except ValueError:
                value = None
            if isinstance(value, dict):
                yield value
            else:
                broken += 1
    if broken:
        notes.append(f"{file.parent.name}/{file.name}: {broken} unreadable lines were left out")
