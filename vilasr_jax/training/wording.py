"""The prompt of a run's conversations: `config.drawing.prompt`, and the copy in its workdir.

A prompt that isn't built in is copied into the workdir when the run begins and read from there later, so that
all stages and later uses of the model have the same wording.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from absl import logging

from vilasr_jax.config import DataSection, JobConfig
from vilasr_jax.drawing.prompts import FILE, PROMPTS, PromptSet, agree, own_parts, read_prompts
from vilasr_jax.errors import ConfigError
from vilasr_jax.files import write_json

PUBLISHED = "published"
OURS = "vilasr_jax"  # earlier versions called it "published"


def job_prompts(job: JobConfig, workdir: Path) -> PromptSet:
    """The prompt of a run.

    `config.drawing.prompt` is the name of a built-in prompt, "published" (the prompt of the imported traces
    that `config.data` names), or a path: a prompt file, or a folder of imported or synthesized conversations.

    Raises:
      ConfigError: there is no such prompt.
    """
    given = job.drawing.prompt
    if given in PROMPTS:
        return PROMPTS[given]
    if (workdir / FILE).exists():
        return read_prompts(workdir / FILE)
    if given == PUBLISHED:
        if _is_older(workdir):
            logging.info("%s: its prompt, then called %r, is now %r", workdir, PUBLISHED, OURS)
            return PROMPTS[OURS]
        return _published(job.data)
    if not Path(given).exists():
        raise ConfigError(
            f"config.drawing.prompt={given!r}: choose {', '.join(PROMPTS)}, {PUBLISHED}, a prompt file, or a "
            "folder of imported conversations; there is no such file"
        )
    return read_prompts(given)


def _published(data: DataSection) -> PromptSet:
    """The prompt of the imported traces; of several folders, the one that shows most of it."""
    if gone := [folder for folder in trace_folders(data) if not Path(folder).exists()]:
        raise ConfigError(
            f"config.drawing.prompt={PUBLISHED!r} is read from imported traces, and {gone[0]} is not there; "
            "import them (`vilasr data import cold_start SRC DST`), or set config.data.root to where they are"
        )
    found: dict[str, PromptSet] = {}
    for folder in trace_folders(data):
        if (Path(folder) / FILE).exists() and (prompts := read_prompts(folder)).name not in PROMPTS:
            found[folder] = prompts
    if not found:
        raise ConfigError(
            f"config.drawing.prompt={PUBLISHED!r}: the published prompt is not part of vilasr_jax; it is "
            "read from imported traces. Name a folder of `vilasr data import cold_start SRC DST` in "
            "config.data.traces or as config.drawing.prompt=DST, or choose our own words: 'vilasr_jax', "
            f"which was called {PUBLISHED!r} before"
        )
    fullest = max(found, key=lambda folder: own_parts(found[folder]))
    for folder, prompts in found.items():
        if not agree(prompts, found[fullest]):
            raise ConfigError(
                f"config.drawing.prompt={PUBLISHED!r}: {folder} and {fullest} have different prompts; name "
                "one of them"
            )
    return found[fullest]


def trace_folders(data: DataSection) -> list[str]:
    """The folders of recorded conversations that a job names."""
    keys = [f.name for f in dataclasses.fields(data) if f.name.endswith("traces")]
    return [folder for key in keys for folder in data.folders(key)]


def save_prompts(job: JobConfig, workdir: Path) -> None:
    """Copies the words of a new run's prompt into its workdir, unless it is a built-in prompt."""
    prompts = job_prompts(job, workdir)
    if job.drawing.prompt not in PROMPTS:
        write_json(workdir / FILE, dataclasses.asdict(prompts))


def same_prompt(job: JobConfig, workdir: Path, before: str | None) -> bool:
    """Whether a job's prompt is the one that a workdir, whose config calls it `before`, was begun with.

    A path that no longer exists counts as the same: the words are in the workdir.
    """
    given = job.drawing.prompt
    if given == before:
        return True
    if _is_older(workdir):
        return {given, before} <= {PUBLISHED, OURS}
    if given in PROMPTS or before in PROMPTS or not (workdir / FILE).exists():
        return False
    try:
        now = _published(job.data) if given == PUBLISHED else read_prompts(given)
    except ConfigError:
        return True
    return now.sha256 == read_prompts(workdir / FILE).sha256


def _is_older(workdir: Path) -> bool:
    """Whether a run began when the built-in prompt `OURS` was called "published"."""
    if (workdir / FILE).exists():
        return False
    try:
        return _prompt_of(json.loads((workdir / "config.json").read_text())) == PUBLISHED
    except (OSError, ValueError):
        return False


def _prompt_of(config: Any) -> Any:
    drawing = config.get("drawing") if isinstance(config, dict) else None
    return drawing.get("prompt") if isinstance(drawing, dict) else None


def warn_other_wording(prompts: PromptSet, folders: Iterable[str]) -> None:
    """Warns when recorded conversations have another prompt than the run."""
    for folder in folders:
        file = Path(folder) / FILE
        if file.exists() and not agree(theirs := read_prompts(file), prompts):
            logging.warning(
                "%s was recorded with another prompt (%s) than this run asks with (%s): the model would be "
                "trained on one wording and sampled with another; config.drawing.prompt=%s uses theirs",
                folder,
                theirs.name,
                prompts.name,
                folder,
            )
