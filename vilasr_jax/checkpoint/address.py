"""Where a checkpoint is: `DIR`, `RUN:STAGE` or `RUN:STAGE@STEP`, local or `gs://`, or `hf://ORG/NAME`.

Without JAX, so that a command refuses a wrong address at once.
"""

import dataclasses
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from vilasr_jax.checkpoint.folders import check_reachable
from vilasr_jax.checkpoint.hf_config import read_json
from vilasr_jax.checkpoint.hub import SCHEME, download, parse_hub_address
from vilasr_jax.config import TRAINED
from vilasr_jax.errors import CheckpointError, MissingCheckpointError
from vilasr_jax.files import near_path

EXPECTED = (
    "expected a Hugging Face folder, an Orbax folder of `vilasr convert from-hf`, or the workdir of a run "
    "(runs/x, a stage runs/x:rl, or a step runs/x:rl@120), each local or gs://, or hf://ORG/NAME"
)


@dataclasses.dataclass(frozen=True)
class Address:
    """A parsed address.

    Attributes:
      text: as it was given.
      folder: an existing folder; of a model on the hub the local one.
      stage, step: of a run; None where none is named.
    """

    text: str
    folder: epath.Path
    stage: str | None = None
    step: int | None = None

    @property
    def name(self) -> str:
        """A short name of the model: that of its folder, or of the model on the hub."""
        if self.text.startswith(SCHEME):
            return self.text.partition("@")[0].rpartition("/")[2]  # a revision may have slashes
        return (self.folder if "://" in self.text else epath.Path(os.path.abspath(self.folder))).name

    @property
    def config(self) -> Mapping[str, Any]:
        """The config.json of a model or of a run; raises CheckpointError for a folder with none, saying what
        it is."""
        if (self.folder / "config.json").exists():
            values = read_json(self.folder / "config.json")
            if "model_type" in values or "model" in values:
                return values
            what = "its config.json is neither that of a model (no model_type) nor of a run"
        elif (self.folder / "adapter_config.json").exists():
            what = "it holds an adapter (LoRA) only; merge it into its base model and give that folder"
        elif inside := _inside_run(self.folder):
            what = f"is part of the run {inside[0]}; give {inside[1]}"
        elif steps := _saved_steps(self.folder):
            what = f"holds Orbax checkpoints (steps {listed(steps)}), but no config.json of their model"
        else:
            what = "holds no config.json"
        raise CheckpointError(f"{self.folder}: {what}; {EXPECTED}")


def check_address(source: epath.PathLike) -> None:
    """Refuses what `open_checkpoint` can't open as far as that is known without JAX and without a download.

    Raises:
      CheckpointError, MissingCheckpointError: see `parse_address` and `Address.config`.
    """
    if os.fspath(source).startswith(SCHEME):
        parse_hub_address(os.fspath(source))
    else:
        _ = parse_address(source).config


def parse_address(source: epath.PathLike) -> Address:
    """Parses an address; a model of the hub is downloaded.

    Raises:
      CheckpointError: a file, or a step that is no number.
      MissingCheckpointError: there is no such folder, or the model can't be downloaded.
    """
    text = os.fspath(source)
    if text.startswith(SCHEME):
        return Address(text, download(text))
    check_reachable(text)
    folder, stage, step = epath.Path(text), None, None
    if not folder.exists() and (match := re.fullmatch(r"(.+?)(?::(\w*))?(?:@(\w*))?", text)):
        folder, stage, step = epath.Path(match[1]), match[2], match[3]
    if not folder.exists():
        hint = f" (the model of that name on the hub is hf://{text})" if _could_be_on_the_hub(text) else ""
        raise MissingCheckpointError(f"{folder}: no such folder{near_path(folder) or f'{hint}; {EXPECTED}'}")
    if not folder.is_dir():
        inside = (folder.parent / "config.json").exists()
        hint = f"; give its folder, {folder.parent}" if inside else ""
        raise CheckpointError(f"{folder}: is a file{hint}; {EXPECTED}")
    if step is not None and not step.isdigit():
        raise CheckpointError(f"{text}: the step {step!r} is no number; {EXPECTED}")
    if step is not None and stage is None:
        raise CheckpointError(f"{text}: the step {step} of which stage? {EXPECTED}")
    return Address(text, folder, stage, None if step is None else int(step))


def _could_be_on_the_hub(text: str) -> bool:
    return re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", text) is not None


def _inside_run(folder: epath.Path) -> tuple[epath.Path, str] | None:
    """(workdir, address) of a stage's folder, or of one in it."""
    for workdir in list(folder.parents)[:3]:
        stage, *rest = folder.relative_to(workdir).parts
        if stage in TRAINED and (workdir / "config.json").exists():
            step = f"@{rest[1]}" if rest[1:] and rest[1].isdigit() else ""
            return workdir, f"{workdir}:{stage}{step}"
    return None


def _saved_steps(folder: epath.Path) -> list[int]:
    """The steps of Orbax checkpoints; JAX is imported only where there is a folder that may be one."""
    if not any(path.name.isdigit() for path in folder.iterdir()):
        return []
    from vilasr_jax.checkpoint.store import CheckpointStore

    return CheckpointStore(folder).steps()


def listed(steps: Sequence[int]) -> str:
    """Numbers with commas between them."""
    return ", ".join(map(str, steps))
