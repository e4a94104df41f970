"""Folders that appear only when they are complete."""

import contextlib
import importlib.util
import os
from collections.abc import Iterator

from etils import epath

from vilasr_jax.errors import CheckpointError


@contextlib.contextmanager
def complete_folder(path: epath.PathLike, *, overwrite: bool = False) -> Iterator[epath.Path]:
    """Yields a temporary folder next to `path`, renamed to `path` when the block ends without an error.

    Args:
      path: the folder to make, local or `gs://`.
      overwrite: replace an existing folder; it stays untouched until the new one is complete.

    Raises:
      CheckpointError: the folder exists and is not empty, or writing failed (a full disk).
    """
    path = epath.Path(path)
    check_free(path, overwrite=overwrite)
    partial = path.parent / f".{path.name}.partial-{os.getpid()}"
    if partial.exists():
        partial.rmtree()
    try:
        partial.mkdir(parents=True)
        yield partial
        old = path.parent / f".{path.name}.old-{os.getpid()}"
        if path.exists():
            path.rename(old)
        partial.rename(path)
        if old.exists():
            old.rmtree()
    except OSError as error:
        raise CheckpointError(f"{path}: could not be written ({error}); nothing was left there") from error
    finally:
        if partial.exists():
            partial.rmtree()


def check_reachable(path: epath.PathLike) -> None:
    """Raises CheckpointError when `path` is in a bucket and the library that talks to it is not installed."""
    if str(path).startswith("gs://") and importlib.util.find_spec("gcsfs") is None:
        raise CheckpointError(f"{path}: gs:// needs the package gcsfs; run: pip install gcsfs")


def check_free(path: epath.PathLike, *, overwrite: bool = False) -> None:
    """Raises CheckpointError when `path` is a file, or a folder with something in it (unless `overwrite`)."""
    check_reachable(path)
    path = epath.Path(path)
    if path.exists() and not path.is_dir():
        raise CheckpointError(f"{path}: is a file; give a folder")
    if path.exists() and not overwrite and any(path.iterdir()):
        raise CheckpointError(f"{path}: exists and is not empty; give another folder or remove it")
