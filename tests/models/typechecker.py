"""The type checker of `shapes_run.py`; imports nothing of the package, which the hook is still to import."""

from collections.abc import Callable

from beartype import beartype

SHAPED = ("Bool[", "Float[", "Int[", "Int32[", "Key[", "Shaped[", "Suppressed", "jaxtyping.")


def check(function: Callable) -> Callable:
    """`beartype` for annotations with shapes; others, such as protocols, it can't all read."""
    hints = function.__annotations__
    for name in [name for name, hint in hints.items() if not any(word in str(hint) for word in SHAPED)]:
        del hints[name]
    return beartype(function)
