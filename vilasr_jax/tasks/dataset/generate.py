"""`vilasr data make`: the task families of a config as TFDS folders, in shards, in parallel, resumable.

    DIR/static/2.0.0/static-train.array_record-00000-of-00010 ... dataset_info.json features.json

Shard k of a split draws its rows from seeds of its own, so its content does not depend on the process that
writes it. Each is written as a draft and then renamed: a stopped run resumes with the missing ones.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vilasr_jax.config import JobConfig, MakeSection
from vilasr_jax.errors import ConfigError
from vilasr_jax.files import write_json, write_records
from vilasr_jax.models import ModelFamily
from vilasr_jax.tasks.registry import get_family
from vilasr_jax.tasks.rescale_recordings import DEFAULT_FAMILY

PLAN = "make.json"
SEEDS = 1 << 24  # of a shard


@dataclass(frozen=True)
class Shard:
    """One file to write."""

    task: str
    section: Any
    split: str
    number: int
    rows: int
    path: Path


def make_data(
    job: JobConfig,
    folder: Path,
    show: Callable[[int, int, str], None] | None = None,
    model_family: ModelFamily = DEFAULT_FAMILY,
) -> dict[str, Any]:
    """Writes the missing datasets of `job.tasks` under `folder`; returns each one's rows and bytes.

    Args:
      job: its `make` section says how many rows and processes.
      folder: the TFDS data_dir.
      show: called as `show(rows done, rows in all, note)`.
      model_family: of the model that reads the images.

    Raises:
      ConfigError: the folder holds rows of other settings, or these can't be.
    """
    sections = {name: _section(job, name, model_family) for name in job.tasks}
    for name, section in sections.items():
        _check_settings(job, name, section)
    plans = {name: _plan(job, name, section, folder) for name, section in sections.items()}
    shards = [shard for plan in plans.values() for shard in plan]
    total = sum(shard.rows for shard in shards)
    missing = [shard for shard in shards if not shard.path.exists()]
    done = total - sum(shard.rows for shard in missing)
    show = show or (lambda *_: None)
    show(done, total, "")
    if job.make.workers <= 1 or len(missing) <= 1:
        finished = (write(shard) for shard in missing)
    else:
        finished = _in_processes(missing, job.make.workers)
    for shard in finished:
        done += shard.rows
        show(done, total, f"{shard.task} {shard.split}")
    return {name: _finish(plan) for name, plan in plans.items()}


def write(shard: Shard) -> Shard:
    """Writes one shard."""
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    from vilasr_jax.tasks.dataset.builder import example, features, split_rows

    family, form = get_family(shard.task), features()
    serializer = ExampleSerializer(form.get_serialized_info())
    rows = split_rows(family, shard.section, shard.split, shard.rows, shard.number * SEEDS)
    examples = (serializer.get_tf_example(form.encode_example(example(family, row))) for row in rows)
    # Deterministic: else a map's order is the process's own.
    write_records(shard.path, (one.SerializeToString(deterministic=True) for one in examples))
    return shard


def _in_processes(shards: list[Shard], workers: int):
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        tasks = [pool.submit(write, shard) for shard in shards]
        try:
            for task in as_completed(tasks):
                yield task.result()
        finally:
            for task in tasks:
                task.cancel()


def _section(job: JobConfig, task: str, model_family: ModelFamily) -> Any:
    """The job's settings of a family, its images as the model reads them; None without a section."""
    family = get_family(task)
    section = getattr(job, family.name, None)
    return None if section is None else family.fitted(section, model_family.images.factor)


def _plan(job: JobConfig, task: str, section: Any, folder: Path) -> list[Shard]:
    """The shards of one family; writes the plan into its folder, or checks that it is the same."""
    from vilasr_jax.tasks.dataset.builder import VERSION

    family = get_family(task)
    home = folder / family.name / VERSION
    counts = _counts(job.make)
    plan = {
        "task": task,
        "settings": None if section is None else dataclasses.asdict(section),
        "rows": counts,
        "shard": job.make.shard,
    }
    plan = json.loads(json.dumps(plan))
    if (home / PLAN).exists():
        theirs = json.loads((home / PLAN).read_text())
        changed = [key for key in plan if theirs.get(key) != plan[key]]
        if changed:
            raise ConfigError(
                f"{home} holds rows of other settings ({changed[0]}: {theirs.get(changed[0])!r} there, "
                f"{plan[changed[0]]!r} now); choose another --workdir"
            )
    else:
        home.mkdir(parents=True, exist_ok=True)
        write_json(home / PLAN, plan)
    shards = []
    for split, count in counts.items():
        files = -(-count // job.make.shard)
        for number in range(files):
            rows = min(job.make.shard, count - number * job.make.shard)
            name = f"{family.name}-{split}.array_record-{number:05d}-of-{files:05d}"
            shards.append(Shard(task, section, split, number, rows, home / name))
    return shards


def _check_settings(job: JobConfig, task: str, section: Any) -> None:
    """Raises ConfigError for impossible settings, before anything is written."""
    family = get_family(task)
    for split in _counts(job.make):
        family.ood(section) if split == "ood" else family.spec(section, split)


def _counts(section: MakeSection) -> dict[str, int]:
    names = ("train", "rl", "val", "test", "ood")
    counts = {name: getattr(section, name) for name in names}
    if min(counts.values()) < 0 or not any(counts.values()) or section.shard < 1 or section.workers < 1:
        raise ConfigError(f"config.make={section}: rows, shard and workers must be positive integers")
    return {name: count for name, count in counts.items() if count}


def _finish(shards: list[Shard]) -> dict[str, Any]:
    """Writes TFDS's own description of a finished dataset, and says how large it is."""
    from tensorflow_datasets.core.naming import ShardedFileTemplate
    from tensorflow_datasets.core.splits import SplitDict, SplitInfo

    from vilasr_jax.tasks.dataset.builder import TaskDataset

    home, name = shards[0].path.parent, get_family(shards[0].task).name
    members = {"name": name, "task": shards[0].task}
    dataset = type(name.title(), (TaskDataset,), members, skip_registration=True)
    # A builder reads what is in its folder, and would write more the second time: it gets a new folder.
    draft = home / "description.draft"
    shutil.rmtree(draft, ignore_errors=True)
    builder = dataset(data_dir=draft, file_format="array_record")
    infos: list[SplitInfo] = []
    rows: dict[str, int] = {}
    total = 0
    for split in dict.fromkeys(shard.split for shard in shards):
        part = [shard for shard in shards if shard.split == split]
        size = sum(shard.path.stat().st_size for shard in part)
        template = ShardedFileTemplate(home, dataset_name=name, split=split, filetype_suffix="array_record")
        infos.append(SplitInfo(split, [shard.rows for shard in part], size, template))
        rows[split] = sum(shard.rows for shard in part)
        total += size
    builder.info.set_splits(SplitDict(infos))
    described = draft / "written"
    described.mkdir(parents=True)
    builder.info.write_to_directory(described)
    # Without dataset_info.json a set counts as unfinished, so it comes last.
    for path in sorted(described.iterdir(), key=lambda path: path.name == "dataset_info.json"):
        path.replace(home / path.name)
    shutil.rmtree(draft)
    return {"folder": str(home), "rows": rows, "bytes": total}
