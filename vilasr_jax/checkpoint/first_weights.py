"""The note of a run on the weights that it began with, so that it never reads others in their place.

`model.init_from` may name what moves: `runs/a` is its last finished stage, `hf://ORG/NAME` the newest commit.
A run notes the stage and step, or the commit, and a digest of the files, when it begins.
"""

import hashlib
from collections.abc import Sequence

from etils import epath

from vilasr_jax.checkpoint.hf_config import read_json
from vilasr_jax.errors import MissingCheckpointError
from vilasr_jax.files import write_json

NOTE = "model/init_from.json"  # in a workdir
_PIECES, _PIECE = 16, 4096  # of each file, evenly spaced: the digest of a large model needs no minutes


def note_first_weights(workdir: epath.PathLike, address: str, files: Sequence[epath.Path]) -> None:
    """Notes the address, which can't move, and the files of the weights."""
    write_json(epath.Path(workdir) / NOTE, {"address": address, "digest": digest(files)})


def noted_address(workdir: epath.PathLike, given: str) -> str:
    """The address that the run began with; `given` where it noted none, as earlier versions."""
    path = epath.Path(workdir) / NOTE
    return read_json(path)["address"] if path.exists() else given


def check_first_weights(workdir: epath.PathLike, files: Sequence[epath.Path]) -> None:
    """Raises MissingCheckpointError where these are not the weights that the run began with."""
    path = epath.Path(workdir) / NOTE
    if path.exists() and digest(files) != (note := read_json(path))["digest"]:
        raise MissingCheckpointError(
            f"{note['address']}: its weights have changed since {workdir} began with them; put those back, "
            "or choose another --workdir"
        )


def digest(files: Sequence[epath.Path]) -> str:
    """A digest of the lengths of files, and of pieces of each."""
    found = hashlib.sha256()
    for path in sorted(files, key=str):
        length = path.stat().length
        found.update(f"{path.name} {length}\n".encode())
        with path.open("rb") as file:
            for piece in range(_PIECES):
                file.seek(max(0, length - _PIECE) * piece // (_PIECES - 1))
                found.update(file.read(_PIECE))
    return found.hexdigest()
