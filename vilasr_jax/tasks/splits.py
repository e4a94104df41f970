"""Splits by content: the hash of a row's content decides its split, whatever the seed."""

import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

from vilasr_jax.errors import ConfigError

SLICES = 16
SPLITS: dict[str, range] = {
    "train": range(0, 8),
    "perception": range(8, 10),
    "rl": range(10, 13),
    "val": range(13, 14),
    "test": range(14, 15),
    "ood": range(15, 16),
}
_TRIES = 10_000

T = TypeVar("T")


def content_hash(content: Any) -> str:
    """16 hex digits of a hash of the content's `repr`."""
    return hashlib.sha256(repr(content).encode()).hexdigest()[:16]


def in_split(digest: str, split: str) -> bool:
    """Whether content with this hash belongs to the split."""
    return int(digest, 16) % SLICES in SPLITS[split]


def check_split(task: str, split: str) -> None:
    """Raises ConfigError for a split that does not exist."""
    if split not in SPLITS:
        raise ConfigError(f"{task} split {split!r} does not exist; there are {', '.join(SPLITS)}")


def first_in_split(propose: Callable[[], T | None], digest: Callable[[T], str], split: str) -> T:
    """The first proposal that is one (not None) and belongs to the split.

    Raises:
      ConfigError: none of 10,000 does: the task's settings leave too few contents.
    """
    for _ in range(_TRIES):
        found = propose()
        if found is not None and in_split(digest(found), split):
            return found
    raise ConfigError(f"no content of split {split!r} found in {_TRIES:,} tries; loosen the task's settings")
