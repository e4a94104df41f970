"""Config keys and config files of earlier versions, with their present names."""

from __future__ import annotations

import re
from typing import Any

# Config files of earlier versions, and the slice of each size in them.
_OLD_FILES = re.compile(r"(?P<folder>.*/)?(?P<stage>sft|reflect|rl)_(?P<size>3b|7b|32b|72b)\.py")
_OLD_SLICES = {"3b": "v5e-8", "7b": "v5e-32", "32b": "v5p-128", "72b": "v5p-256"}
# Last words of keys.
_KEYS = {
    "final_share": "final_fraction",
    "kept_share": "kept_fraction",
    "own_sampling": "per_request_sampling",
    "share_questions": "allow_same_questions",
    "slip_share": "slip_fraction",
    "stop_share": "stop_fraction",
    "traces_share": "traces_fraction",
    "warmup_share": "warmup_fraction",
}
_FULL_KEYS = {"cold_start.made": "cold_start.dataset"}


def new_config_file(file: str, words: str) -> str | None:
    """What `--config` must say instead of an old file and its words; None for any other file."""
    old = _OLD_FILES.fullmatch(file)
    if old is None:
        return None
    stage, size = old["stage"], old["size"]
    stages = "reflect,rl" if (stage, size) == ("rl", "3b") else stage.replace("sft", "cold_start")
    return f"{old['folder'] or ''}vilasr.py:{size},{words or _OLD_SLICES[size]},{stages}"


def new_key(key: str) -> str | None:
    """The new name of an old dotted key, with "config." in front or without; None for any other key.

    >>> new_key("config.rl.optimizer.warmup_share")
    'config.rl.optimizer.warmup_fraction'
    """
    for old, new in _FULL_KEYS.items():
        if key == old or key.endswith(f".{old}"):
            return key.removesuffix(old) + new
    section, _, last = key.rpartition(".")
    return f"{section}.{_KEYS[last]}" if section and last in _KEYS else None


def with_new_keys(values: dict[str, Any], path: str = "") -> dict[str, Any]:
    """Nested values from a file of an earlier version, by the keys of this one.

    >>> with_new_keys({"cold_start": {"made": "data", "slip_share": 0.5}})
    {'cold_start': {'dataset': 'data', 'slip_fraction': 0.5}}
    """
    renamed = {}
    for key, value in values.items():
        name = f"{path}.{key}" if path else key
        new = new_key(name)
        key = new.rpartition(".")[2] if new else key
        renamed[key] = with_new_keys(value, name) if isinstance(value, dict) else value
    return renamed
