"""Extracts the prompt of recorded conversations from their texts.

Text that is the same in all conversations, except for sizes, numbers and the question, becomes a template. It
is used only if it reproduces nearly all conversations: system text, first user message and drawn turns.
Options count where they can be separated from the question; user turns without an image do not.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vilasr_jax.drawing.prompts import PROMPTS, PromptSet, before_text, index_text, question_text, system_text
from vilasr_jax.drawing.sizes import Frame, stated_sizes
from vilasr_jax.drawing.tools import PUBLISHED, get_tools
from vilasr_jax.errors import DataError
from vilasr_jax.models import default_family
from vilasr_jax.processing import image_size
from vilasr_jax.tasks.rescale_recordings import IMAGE_MARK, frames_of
from vilasr_jax.tasks.stored import StoredRow

NAME = "imported"
AGREE = 0.95  # fraction of the conversations that the template must reproduce
_SUFFIXES = {  # the published prompt's sentence for a kind of answer
    "multiple choice": "Answer with the option's letter from the given choices directly.",
    "numerical": "Please answer the question using a single word or phrase (e.g., 42 or 3.14).",
}
_VIDEO = re.compile(r"frames? (?:from|of) (?:a|the) video", re.IGNORECASE)
_COUNT = re.compile(r"numbered from 1 to (\d+)|\b(\d+) (?:images|frames|pictures)\b", re.IGNORECASE)
_HEADER = re.compile(r"\s*[#*]*[ \t]*\bquestion\b[ \t#*]*:[ \t]*\n*", re.IGNORECASE)
_LONG_HEADER = re.compile(rf".*?{_HEADER.pattern}|(?:.*\n)?", re.IGNORECASE | re.DOTALL)
_CAPTION_END = re.compile(r"\{height\}\S*")
_LINES = re.compile(r"(?:\n[ \t]*\(?[A-Z]\)?[.:)][ \t][^\n]*){2,}\Z")
_OPTION = re.compile(r"(?<!\w)\(?([A-Z])\)?[.:)][ \t]")
_TITLE = re.compile(r"\s*(?:\b(?:options|choices)\b[ \t]*:\s*)?\Z", re.IGNORECASE)


@dataclass(frozen=True)
class _Record:
    """A conversation's texts as templates."""

    raw: tuple[str, str, tuple[str, ...]]  # system text, first user message, the later ones
    frames: tuple[Frame, ...]
    given: int
    source: str  # the file it is from
    video: bool
    system: str
    before: str
    captions: tuple[str, ...]  # between the given images
    opening: str  # after the last of them
    later: tuple[tuple[str, tuple[str, ...], str], ...]  # before, between and after drawn images
    last: int  # the number of the last of `later`


def extract_prompts(rows: Iterable[StoredRow], source: str) -> tuple[PromptSet | None, dict[str, Any]]:
    """The prompt of recorded conversations, and a note on how many agree with it.

    Args:
      rows: conversations; those whose sizes are unclear are skipped.
      source: what the prompt says of where it is from.

    Returns:
      The prompt, or None where the conversations are not of one wording; and {"rows", "agree", "own": [the
      parts that no conversation shows, which are ours], "unlike": [ids of the first that disagree]}.
    """
    some: dict[str, _Record] = {}
    for row in rows:
        try:
            if row.messages and (record := _record(row)):
                some[row.id] = record
        except DataError:
            continue
    if not some:
        return None, {"rows": 0, "agree": 0, "own": [], "unlike": []}
    prompts, own = _build(list(some.values()), source)
    unlike = [name for name, record in some.items() if not _agrees(prompts, record)]
    agree = len(some) - len(unlike)
    note = {"rows": len(some), "agree": agree, "own": own, "unlike": unlike[:5]}
    return (prompts if agree >= AGREE * len(some) else None), note


def _record(row: StoredRow) -> _Record | None:
    messages = row.messages
    frames = frames_of(messages, [*map(image_size, row.images)])
    first, default = messages[0], default_family().default_system or ""
    system = first["content"] if first["role"] == "system" else default
    users = [message["content"] for message in messages if message["role"] == "user"]
    given = users[0].count(IMAGE_MARK)
    if not given or any(m["role"] == "system" for m in messages[1:]):
        return None
    index, parts = 1, []
    for text in users:
        before, *after = text.split(IMAGE_MARK)
        templates = [_caption(words, index + n, frames[index + n - 1]) for n, words in enumerate(after)]
        index += len(after)
        last = templates.pop() if templates else ""
        parts.append((_counted(before, given), tuple(templates), last))
    video = bool(_VIDEO.search(system + users[0]))
    (before, captions, opening), *later = parts
    return _Record(
        (system, users[0], tuple(users[1:])),
        tuple(frames),
        given,
        row.data_type,
        video,
        _sized(_counted(system, given), frames[0]),
        before,
        captions,
        opening,
        tuple(later),
        len(later) - 1,
    )


def _braces(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _counted(text: str, count: int) -> str:
    """The text as a template, the number of images left open."""
    parts, at = [], 0
    for match in _COUNT.finditer(text):
        start, end = match.span(1) if match[1] else match.span(2)
        if int(text[start:end]) == count:
            parts += [_braces(text[at:start]), "{count}"]
            at = end
    return "".join([*parts, _braces(text[at:])])


def _sized(template: str, frame: Frame) -> str:
    """A template with the stated size `frame` left open."""
    for size in reversed(stated_sizes(template)):
        if size.frame == frame:
            for span, name in sorted([(size.w, "{width}"), (size.h, "{height}")], reverse=True):
                template = template[: span[0]] + name + template[span[1] :]
    return template


def _caption(text: str, index: int, frame: Frame) -> str:
    """The words after an image as a template: its number and its first stated size left open."""
    text = _braces(text)
    size = next((size for size in stated_sizes(text[:200]) if size.frame == frame and size.named), None)
    if size is None:
        return text
    opened = _sized(text[: size.span[1]], frame)
    head = re.split(rf"(?<!\d){index}(?!\d)", opened[: opened.index("{")])
    if len(head) > 1:
        opened = str(index).join(head[:-1]) + "{index}" + head[-1] + opened[opened.index("{") :]
    return opened + text[size.span[1] :]


def _build(records: list[_Record], source: str) -> tuple[PromptSet, list[str]]:
    """The template that most records have."""
    ours, own = PROMPTS["vilasr_jax"], []
    stills, videos = [r for r in records if not r.video], [r for r in records if r.video]
    between = _most(text for r in records for text in r.captions)
    drawn_between = _most(text for r in records for _, texts, _ in r.later for text in texts)
    openings = [r.opening for r in records]
    drawn = [(last, n == r.last) for r in records for n, (_, _, last) in enumerate(r.later) if last]
    index = between if between is not None else _shared_caption([*openings, *(text for text, _ in drawn)])
    drawn_index = index if drawn_between is None else drawn_between
    if drawn and not (drawn_index and drawn[0][0].startswith(drawn_index)):
        drawn_index = _first_caption(drawn[0][0])
    ends = Counter(text.removeprefix(drawn_index) for text, _ in drawn)
    go_on = ends.most_common(1)[0][0] if ends else None
    only_last = Counter(text.removeprefix(drawn_index) for text, last in drawn if last)
    for text, last in drawn:
        if not last:
            only_last.pop(text.removeprefix(drawn_index), None)
    if go_on is not None:
        only_last.pop(go_on, None)
    final = only_last.most_common(1)[0][0] if only_last else None
    several = len({record.source for record in records}) > 1
    header, closing, block = _question([text.removeprefix(index) for text in openings], several)
    own += ["drawn"] * (go_on is None) + ["final"] * (final is None) + ["error"]
    own += [name for name in ("multiple choice", "numerical") if name not in block["suffixes"]]
    suffixes = {**ours.suffixes, **block["suffixes"]}
    suffixes["regression"] = suffixes["numerical"]
    prompts = dataclasses.replace(
        ours,
        name=NAME,
        source=source,
        tools=PUBLISHED,
        tool="",
        system=_most(r.system for r in stills or videos) or "",
        system_video=_most(r.system for r in videos) or "",
        before=_most(r.before for r in stills or videos) or "",
        before_video=_most(r.before for r in videos) or "",
        before_drawn=_most(before for r in records for before, _, _ in r.later) or "",
        index=index,
        drawn_index=drawn_index,
        drawn=ours.drawn if go_on is None else _plain(go_on),
        final=ours.final if final is None else _plain(final),
        question=f"{header}{{question}}",
        closing=_plain(closing),
        suffixes=suffixes,
        choices=block.get("choices", ours.choices),
        joint=block.get("joint", ours.joint),
    )
    return prompts, own


def _plain(template: str) -> str:
    return template.replace("{{", "{").replace("}}", "}")


def _common(texts: Sequence[str]) -> str:
    """What all texts begin with."""
    first, last = min(texts), max(texts)
    same = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[:same]


def _most(texts: Iterable[str]) -> str | None:
    found = Counter(texts).most_common(1)
    return found[0][0] if found else None


def _first_caption(text: str) -> str:
    """The words up to the one that ends a stated size; nothing where none is stated."""
    end = _CAPTION_END.search(text)
    return text[: end.end()] if end else ""


def _shared_caption(texts: list[str]) -> str:
    """What all texts after an image begin with, if that states a size."""
    shared = _common(texts)
    if "{height}" not in shared:
        return ""
    return shared if len(set(texts)) > 1 else _first_caption(shared)


def _question(texts: list[str], several: bool) -> tuple[str, str, dict[str, Any]]:
    """The text around the question: (before it, after it, {"suffixes", "choices", "joint"}).

    Words that all questions have in common may belong to the questions. Apart from a header and the text
    after a suffix, they count as the prompt's only where the texts are from `several` sources.
    """
    shared = _common(texts)
    header = _LONG_HEADER.match(shared) if several else _HEADER.match(shared)
    opened = header[0] if header else shared[: len(shared) - len(shared.lstrip())]
    rests = [text.removeprefix(opened) for text in texts]
    found: dict[str, Any] = {"suffixes": {}}
    closings, plain = [], [text for text in rests if not any(s in text for s in _SUFFIXES.values())]
    chosen = plain
    for kind, sentence in _SUFFIXES.items():
        heads = [text.partition(sentence) for text in rests if sentence in text]
        spaces = [head[len(head.rstrip()) :] for head, _, _ in heads]
        if heads:
            found["suffixes"][kind] = _plain(_most(spaces) or "") + sentence
            closings += [tail for _, _, tail in heads]
        if heads and kind == "multiple choice":
            chosen = [head[: len(head) - len(s)] for (head, _, _), s in zip(heads, spaces, strict=True)]
    closing = _most(closings)
    if closing is None:
        end = _common([text[::-1] for text in plain])[::-1] if several else ""
        closing = end[end.index("\n") :] if "\n" in end else ""
        chosen = [text.removesuffix(closing) for text in chosen]
    options = [some for text in chosen if (some := _options(text))]
    if options:
        found["choices"] = (_most(head for _, head, _, _ in options) or "") + "{options}"
        found["joint"] = _most(joint for _, _, _, joint in options)
    return opened, closing, found


def _options(text: str) -> tuple[str, str, list[str], str] | None:
    """A text that ends with options, as (question, text before the options, options, text between two)."""
    if lines := _LINES.search(text):
        title = re.search(r"\n[^\n]{0,30}:[ \t]*\Z", text[: lines.start()])
        start = title.start() if title else lines.start()
        first, second, *_ = re.finditer(r"\n[ \t]*", lines[0])
        options = [line.strip(" \t") for line in lines[0].split("\n")[1:]]
        return text[:start], text[start : lines.start()] + first[0], options, second[0]
    marks = list(_OPTION.finditer(text))
    last = max((n for n, mark in enumerate(marks) if mark[1] == "A"), default=len(marks))
    marks = marks[last:]
    if len(marks) < 2 or [ord(mark[1]) - ord("A") for mark in marks] != list(range(len(marks))):
        return None
    starts = [mark.start() for mark in marks]
    heading = _TITLE.search(text, 0, starts[0])
    assert heading is not None, "it matches nothing, too"
    start = heading.start()
    parts = [text[a:b] for a, b in zip(starts, [*starts[1:], len(text)], strict=True)]
    options = [re.sub(r"[,;]?\s*\Z", "", part) for part in parts[:-1]] + parts[-1:]
    return text[:start], text[start : starts[0]], options, parts[0][len(options[0]) :]


def _agrees(prompts: PromptSet, record: _Record) -> bool:
    """Whether the record's own system text, first user message and drawn turns match the template."""
    system, first, later = record.raw
    given = record.frames[: record.given]
    if system != system_text(prompts, get_tools(PUBLISHED), given, record.video):
        return False
    start = before_text(prompts, record.given, record.video) + "".join(
        IMAGE_MARK + index_text(prompts, index, frame) for index, frame in enumerate(given, 1)
    )
    if not (first.startswith(start) and _same_question(prompts, first.removeprefix(start))):
        return False
    index = record.given
    for text in later:
        count = text.count(IMAGE_MARK)
        images = "".join(
            IMAGE_MARK + index_text(prompts, n, record.frames[n - 1], drawn=True)
            for n in range(index + 1, index + 1 + count)
        )
        index += count
        ends = (prompts.drawn, prompts.final)
        if count and text not in [prompts.before_drawn + images + end for end in ends]:
            return False
    return True


def _same_question(prompts: PromptSet, text: str) -> bool:
    """Whether the template reproduces a question's text, with its options where it shows them."""
    kind = next((kind for kind, sentence in _SUFFIXES.items() if sentence in text), "")
    end = prompts.suffixes.get(kind, "") + prompts.closing
    header = prompts.question.format(question="")
    words, _, options, _ = _options(text.removesuffix(end)) or (text.removesuffix(end), "", [], "")
    return text == question_text(prompts, words.removeprefix(header), kind, options)
