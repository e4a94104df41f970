"""Files that are either whole or not there."""

import json
from typing import Any

from etils import epath


def write_json(path: epath.PathLike, value: Any) -> None:
    """Writes a JSON file, local or `gs://`, in one step; NumPy scalars become numbers.

    Raises:
      OSError: it can't be written; an older file of that name is untouched.
    """
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.parent / f"{path.name}.draft"
    draft.write_text(json.dumps(value, indent=2, ensure_ascii=False, default=float) + "\n")
    draft.replace(path)
