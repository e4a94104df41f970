"""The letters of a multiple-choice question's options."""

import re
from collections.abc import Sequence

from vilasr_jax.errors import DataError

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LETTERED = re.compile(r"\(?([A-Z])[.):]\s*(?=\S)")


def lettered(options: Sequence[str]) -> tuple[tuple[str, ...], str]:
    """The options with a letter before each, and their letters.

    They are lettered as they are where the first begins with A, the second with B, and so on; an option may
    begin with some letter and a full stop ("C. elegans").

    Raises:
      DataError: more than 26 options.

    >>> lettered(["left", "right"])
    (('A. left', 'B. right'), 'AB')
    >>> lettered(["A", "B"])[0], lettered(["(A) left", "(B) right"])[0]
    (('A', 'B'), ('(A) left', '(B) right'))
    """
    options, letters = [option.strip() for option in options], _LETTERS[: len(options)]
    if len(letters) < len(options):
        raise DataError(f"options has {len(options)} texts; at most 26 can be lettered")
    if list(options) == list(letters) or "".join(map(own_letter, options)) == letters:
        return tuple(options), letters
    return tuple(f"{letter}. {text}" for letter, text in zip(letters, options, strict=True)), letters


def own_letter(option: str) -> str:
    """The letter that an option begins with; "" where there is none."""
    found = _LETTERED.match(option)
    return found[1] if found else ""


def without_letter(option: str) -> str:
    """The option's text alone."""
    return _LETTERED.sub("", option, count=1)
