"""What `vilasr push` uploads. JAX is imported only to read which stages of a run are finished."""

from __future__ import annotations

from etils import epath

from vilasr_jax.checkpoint.hf_config import read_json
from vilasr_jax.errors import CheckpointError
from vilasr_jax.model_card import NOTE
from vilasr_jax.workdir import read_job


def exported_folder(source: epath.PathLike) -> tuple[epath.Path, str]:
    """The Hugging Face folder to upload, and words for its model: that of a workdir, or `source` itself.

    Raises:
      CheckpointError: the workdir has finished a stage since its export.
    """
    root = epath.Path(source)
    folder = root / "hf" if (root / "hf" / "config.json").exists() else root
    of = read_json(folder / NOTE) if (folder / NOTE).exists() else {}
    words = f"the stage {of['stage']}, step {of['step']}" if of.keys() >= {"stage", "step"} else "a model"
    if folder != root and (root / "config.json").exists():
        from vilasr_jax.training.stage_folders import StageFolders

        last = StageFolders(read_job(root), root).last()
        if of.get("stage") != last:
            raise CheckpointError(
                f"{folder} holds {words}, and the last finished stage of {root} is {last}; to upload that: "
                f"vilasr convert to-hf {root} DST, then push DST; to upload the other: push {folder}"
            )
    return folder, words
