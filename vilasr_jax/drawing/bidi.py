"""The order in which a text's characters are drawn from left to right: Unicode's bidirectional algorithm.

Annex 9 of the Unicode standard for one line, without its invisible control characters: levels of embedding
(even: from left to right, odd: from right to left) are given to characters, and runs of a level are reversed.
"""

import itertools
import unicodedata

_PAIRS = {opening: closing for opening, closing in ("()", "[]", "{}", "<>", "«»", "‹›", "≤≥", "⟨⟩")}
_MIRRORED = {**_PAIRS, **{closing: opening for opening, closing in _PAIRS.items()}}
_BRACKETS = ("(", "[", "{")  # what counts as a pair; others are only mirrored
_DEEPEST = 63  # brackets within brackets, as in the standard (BD16)
_KINDS = ("L", "R", "AL", "EN", "AN", "ES", "ET", "CS")  # what matters; all else is neutral, "N"


def visual_order(text: str) -> str:
    """The characters of a text from left to right; marks above and below a letter stay with it.

    >>> visual_order("red שלום 12") == "red 12 םולש"
    True
    """
    letters: list[str] = []
    for character in text:
        if letters and unicodedata.combining(character):
            letters[-1] += character
        else:
            letters.append(character)
    found = [unicodedata.bidirectional(letter[0]) for letter in letters]
    kinds = [kind if kind in _KINDS else "N" for kind in found]
    if not {"R", "AL", "AN"} & set(kinds):
        return text
    base = next((int(kind != "L") for kind in kinds if kind in ("L", "R", "AL")), 0)
    sides = _sides(letters, _numbers(kinds, "LR"[base]), "LR"[base])
    level = {"L": 2 * base, "R": 1, "EN": 2, "AN": 2}
    levels = [level[side] for side in sides]
    drawn = [
        _MIRRORED.get(letter[0], letter[0]) + letter[1:] if number % 2 else letter
        for letter, number in zip(letters, levels, strict=True)
    ]
    places = list(range(len(letters)))
    for least in (2, 1):
        high = [number >= least for number in levels]
        runs = itertools.groupby(places, high.__getitem__)
        places = [place for turn, run in runs for place in (reversed(list(run)) if turn else run)]
    return "".join(drawn[place] for place in places)


def _numbers(kinds: list[str], base: str) -> list[str]:
    """Signs inside and next to numbers become parts of them; a number after "L" becomes "L" (W2 to W7)."""
    kinds, strong = list(kinds), base
    for at, kind in enumerate(kinds):
        if kind in ("L", "R", "AL"):
            strong = kind
        elif kind == "EN" and strong == "AL":
            kinds[at] = "AN"
    kinds = ["R" if kind == "AL" else kind for kind in kinds]
    for at in range(1, len(kinds) - 1):  # one separator inside a number: 1.5
        left, sign, right = kinds[at - 1 : at + 2]
        if left == right and (left, sign) in (("EN", "CS"), ("EN", "ES"), ("AN", "CS")):
            kinds[at] = left
    start = 0
    for kind, group in itertools.groupby(list(kinds)):  # signs next to a number: $5, 12%
        end = start + len(list(group))
        if kind == "ET" and "EN" in (*kinds[max(start - 1, 0) : start], *kinds[end : end + 1]):
            kinds[start:end] = ["EN"] * (end - start)
        start = end
    strong = base
    for at, kind in enumerate(kinds):
        if kind in ("L", "R"):
            strong = kind
        elif kind == "EN" and strong == "L":
            kinds[at] = "L"
        elif kind in ("ES", "ET", "CS"):
            kinds[at] = "N"
    return kinds


def _sides(letters: list[str], kinds: list[str], base: str) -> list[str]:
    """What is neutral becomes "L" or "R": as a bracket's content, both neighbours, or `base` (N0 to N2)."""
    kinds = list(kinds)

    def side(kind: str) -> str:
        return "R" if kind in ("EN", "AN") else kind

    for opening, closing in _bracket_pairs(letters, kinds):
        inside = {side(kind) for kind in kinds[opening + 1 : closing]} - {"N"}
        before = next((side(kind) for kind in reversed(kinds[:opening]) if kind != "N"), base)
        if inside:
            kinds[opening] = kinds[closing] = base if base in inside or before == base else before
    result, start = list(kinds), 0
    for kind, group in itertools.groupby(kinds):
        end = start + len(list(group))
        if kind == "N":
            left = side(kinds[start - 1]) if start else base
            right = side(kinds[end]) if end < len(kinds) else base
            result[start:end] = [left if left == right else base] * (end - start)
        start = end
    return result


def _bracket_pairs(letters: list[str], kinds: list[str]) -> list[tuple[int, int]]:
    """Positions of matching brackets, sorted by the opening one."""
    pairs: list[tuple[int, int]] = []
    waiting: list[tuple[str, int]] = []
    for at, letter in enumerate(letters):
        if kinds[at] == "N" and letter in _BRACKETS:
            if len(waiting) == _DEEPEST:
                break
            waiting.append((letter, at))
        elif kinds[at] == "N" and (own := _MIRRORED.get(letter)) in _BRACKETS:
            found = next((n for n in range(len(waiting) - 1, -1, -1) if waiting[n][0] == own), None)
            if found is not None:
                pairs.append((waiting[found][1], at))
                del waiting[found:]
    return sorted(pairs)
