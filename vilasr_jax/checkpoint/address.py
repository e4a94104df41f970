"""Where a checkpoint is: `DIR`, `RUN:STAGE` or `RUN:STAGE@STEP`, local or `gs://`, or `hf://ORG/NAME`."""

import dataclasses
import os
import re

from etils import epath

from vilasr_jax.checkpoint.folders import check_reachable
from vilasr_jax.checkpoint.hub import SCHEME, download
from vilasr_jax.errors import CheckpointError, MissingCheckpointError

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
        raise MissingCheckpointError(f"{folder}: no such folder{hint}; {EXPECTED}")
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
