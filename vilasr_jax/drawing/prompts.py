"""The texts of a drawing conversation that are not the model's or the question's.

Two sets are built in: "vilasr_jax", and "short" with the same content in few words, for tiny models. Any
other, like the published one, is read from a file: `vilasr data import` writes the one of recorded
conversations to `prompt.json` in the imported folder.
"""

import dataclasses
import functools
import hashlib
import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from etils import epath

from vilasr_jax.drawing.numbers import blanked, sentences, short
from vilasr_jax.drawing.sizes import stated_sizes
from vilasr_jax.drawing.tools import Tool
from vilasr_jax.errors import ConfigError, DataError

Size = tuple[int, int]
FILE = "prompt.json"
_PIXELS = "Coordinates are absolute pixels, "
_RELATIVE = "Coordinates run from 0 to {side} over the width and over the height of an image, "
_AXES = "x to the right and y down from the top left corner."
_OURS = re.compile(re.escape(_PIXELS) + "|" + re.escape(_RELATIVE).replace(r"\{side\}", r"\d+"))
_LAST = re.compile(rf"\n{_RELATIVE.replace('{side}', '[0-9]+')}{re.escape(_AXES)}\Z")  # after other words
_NAMES_PLACES = r"\b(?:coordinates?|bbox\w*|bounding|box(?:es)?|points?)\b"
_SAYS_PIXELS = re.compile(rf"(?=.*{_NAMES_PLACES}).*?((?:\b[a-z]+ )?\b(?:pixel|px)s?\b)", re.IGNORECASE)
_SAYS_RELATIVE = re.compile(
    rf"(?=.*{_NAMES_PLACES}).*?(\bnormali[sz]ed\b|\b0(?:\.0)? ?(?:-|–|to|and|,) ?(?:1,?000|999|1(?:\.0)?)\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class PromptSet:
    """The texts of a prompt. Templates have the named fields; `{images}` describes the images given."""

    system: str  # also {width} and {height} of the first image, and their {count}
    system_without_tools: str
    tool: str  # one enabled tool: {name}, {purpose}, {example}
    one_image: str
    images: str
    video: str
    index: str  # after each image
    drawn: str  # ends a drawn turn
    question: str
    error: str
    final: str  # the last allowed turn
    choices: str
    suffixes: dict[str, str]
    system_video: str = ""  # in place of `system` for a video; empty: the same
    before: str = ""  # opens the first user message; {count}
    before_video: str = ""
    before_drawn: str = ""  # opens a drawn turn
    drawn_index: str | None = None  # after each drawn image; None: `index`
    joint: str = "\n"  # between options; our own sets have ", " between options of one letter
    closing: str = ""  # ends the first user message
    tools: tuple[str, ...] = ()  # the only ones that `system` describes; empty: it lists those enabled
    name: str = ""  # what a score calls it
    source: str = ""  # file that the texts come from

    @property
    def sha256(self) -> str:
        """SHA-256 of the texts, in hexadecimal digits."""
        words = {
            key: value for key, value in dataclasses.asdict(self).items() if key not in ("name", "source")
        }
        return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()


def agree(one: PromptSet, other: PromptSet) -> bool:
    """Whether two sets may come from one prompt.

    Recorded conversations may not show all texts of their prompt; the missing ones are those of "vilasr_jax".
    So a text that equals the one of "vilasr_jax" agrees with any other, except for the system prompt, the
    question and the lines around images, which every conversation shows.
    """
    ours, a, b = (_flat(prompts) for prompts in (PROMPTS["vilasr_jax"], one, other))
    for key in ours.keys() - {"name", "source"}:
        certain = key in ("system", "question", "index", "drawn_index", "before")
        if a[key] != b[key] and (certain or ours[key] not in (a[key], b[key])):
            return False
    return True


def own_parts(prompts: PromptSet) -> int:
    """The number of parts of a set that differ from those of "vilasr_jax"."""
    ours, theirs = _flat(PROMPTS["vilasr_jax"]), _flat(prompts)
    return sum(ours[key] != theirs[key] for key in ours)


def _flat(prompts: PromptSet) -> dict[str, Any]:
    values = dataclasses.asdict(prompts)
    suffixes = {kind: values["suffixes"].get(kind) for kind in PROMPTS["vilasr_jax"].suffixes}
    return {**values, **suffixes, "suffixes": None}


PROMPTS: dict[str, PromptSet] = {
    "vilasr_jax": PromptSet(
        name="vilasr_jax",
        system=(
            "You answer questions about images by reasoning step by step and drawing on the images. "
            "You can use these tools:\n{tools}\n"
            "{images}" + _PIXELS + _AXES + " "
            '"index" is the number of the image to draw on. Each drawn image is given back to you with the '
            "next number; draw a label again to correct it.\n"
            "Output format: in every turn first think, then take one action.\n"
            "To draw:\n<think> your reasoning </think> Action: {names}\n```json\n[the items]\n```\n"
            "To answer:\n<think> your reasoning </think> Action: Answer\n<answer> your answer </answer>"
        ),
        system_without_tools=(
            "You answer questions about images by reasoning step by step. {images}"
            + _PIXELS
            + _AXES
            + "\nOutput format:\n"
            "<think> your reasoning </think> Action: Answer\n<answer> your answer </answer>"
        ),
        tool="- {name}: {purpose}. Its json is a list of items such as {example}.",
        one_image="The image is {width} pixels wide and {height} pixels high. ",
        images="There are {count} images; the width and height of each are given after it. ",
        video="These are frames from a video, numbered from 1 to {count}. ",
        index="The index of the given image is {index} (width: {width}, height: {height}).\n",
        drawn=(
            "Continue your reasoning. After each tool use, critically evaluate the visualization "
            "and adjust if needed:"
        ),
        question="{question}",
        error="The last action could not be carried out in full: {error}.\n",
        final="This is the last turn: no tool may be used any more. Answer the question now.",
        choices="\nOptions:\n{options}",
        suffixes={
            "multiple choice": "\nAnswer with the option's letter from the given choices directly.",
            "numerical": "\nPlease answer the question using a single word or phrase (e.g., 42 or 3.14).",
            "regression": "\nPlease answer the question using a single word or phrase (e.g., 42 or 3.14).",
        },
    ),
    "short": PromptSet(
        name="short",
        system="Think, then draw or answer.{tools}\n{images}",
        system_without_tools="Think, then answer.\n{images}",
        tool="\n{name}: {example}",
        one_image="{width} x {height}",
        images="{count} images",
        video="{count} frames",
        index="image {index}",
        drawn="",
        question="\n{question}",
        error="\nerror: {error}",
        final=" answer now",
        choices=" {options}",
        suffixes={"multiple choice": " Letter?", "numerical": " Number?", "regression": " Number?"},
    ),
}

_WITHOUT_UNIT = tuple(
    text.partition("{")[0] for text in (PROMPTS["short"].system, PROMPTS["short"].system_without_tools)
)


def get_prompts(variant: str | PromptSet) -> PromptSet:
    """The set of this name; a `PromptSet` is returned as it is."""
    if isinstance(variant, PromptSet):
        return variant
    if variant not in PROMPTS:
        raise ConfigError(f"prompt variant {variant!r} does not exist; there are {', '.join(PROMPTS)}")
    return PROMPTS[variant]


def read_prompts(path: str | os.PathLike) -> PromptSet:
    """A set from a JSON file of its fields, or from a folder that holds one as `prompt.json`.

    What the file leaves out is that of "vilasr_jax".

    Raises:
      ConfigError: there is no such file, or it holds something else.
    """
    file = epath.Path(path)
    file = file / FILE if file.is_dir() else file
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except OSError:
        raise ConfigError(f"{file}: no such prompt file; `vilasr data import` of traces writes one") from None
    except ValueError as error:
        raise ConfigError(f"{file}: isn't JSON ({error})") from None
    return _from_dict(values, str(file))


def _from_dict(values: Any, where: str) -> PromptSet:
    base = {**dataclasses.asdict(PROMPTS["vilasr_jax"]), "name": "file"}
    if not isinstance(values, dict) or "system" not in values:
        raise ConfigError(f"{where}: holds no prompt; a key 'system' is needed")
    kinds: dict[str, type | tuple[type, ...]]
    kinds = {"suffixes": dict, "tools": list, "drawn_index": (str, type(None))}
    if unknown := sorted(values.keys() - base.keys()):
        raise ConfigError(f"{where}: no such key {unknown[0]!r}; there are: {', '.join(base)}")
    for key, value in values.items():
        kind = kinds.get(key, str)
        parts = [*value.values()] if kind is dict and isinstance(value, dict) else value
        if not isinstance(value, kind) or any(not isinstance(part, str) for part in parts or ()):
            raise ConfigError(f"{where}: {key} is {value!r}")
    prompts = PromptSet(**{**base, **values, "tools": tuple(values.get("tools", ()))})
    for key, fields in _FIELDS.items():
        try:
            (getattr(prompts, key) or "").format(**dict.fromkeys(fields.split(), ""))
        except (ValueError, KeyError, IndexError, AttributeError) as error:
            raise ConfigError(
                f"{where}: {key} isn't a template of {fields} ({type(error).__name__}: {error}); braces that "
                "are words are doubled"
            ) from None
    return prompts


_FIELDS = {
    **dict.fromkeys(("system", "system_video"), "tools names images width height count"),
    "system_without_tools": "images",
    "tool": "name purpose example",
    "one_image": "width height",
    **dict.fromkeys(("images", "video", "before", "before_video"), "count"),
    **dict.fromkeys(("index", "drawn_index"), "index width height"),
    "question": "question",
    "choices": "options",
    "error": "error",
}


def system_text(
    prompts: PromptSet, tools: Sequence[Tool], sizes: Sequence[Size], video: bool, side: int | None = None
) -> str:
    """The system prompt for these tools and image sizes (width, height).

    `side` is the number of a full side where the model's coordinates are relative; None: they are pixels.
    """
    text = _system_text(prompts, tools, sizes, video)
    return text if side is None else in_units(text, side)


def unit_text(side: int | None) -> str:
    """The sentence that says of which unit coordinates are, see `in_units`."""
    return (_PIXELS if side is None else _RELATIVE.format(side=side)) + _AXES


def in_units(text: str, side: int | None) -> str:
    """A system prompt that says of which unit coordinates are: of `side` a full side, or pixels (None).

    Our own sentence about them is replaced; other words get it as their last, but for our short ones.

    Raises:
      DataError: other words say another unit.
    """
    right = _PIXELS if side is None else _RELATIVE.format(side=side)
    if side is None and (last := _LAST.search(text)):
        return text[: last.start()]
    if _OURS.search(text):
        return _OURS.sub(right, text)
    if text.startswith(_WITHOUT_UNIT):
        return text
    _refuse_other_unit(text, side, "but the model's are {unit}")
    return text if side is None else f"{text.rstrip()}\n{unit_text(side)}"


@functools.lru_cache(maxsize=1024)  # called each time that a row is read
def check_stated_unit(text: str, units: int | None) -> None:
    """Raises DataError for a record's system prompt that says another unit than that of its coordinates.

    `units` is what they are read as: numbers of a full side, or pixels (None).
    """
    _refuse_other_unit(text, units, "which are imported as {unit} (see --coordinates)")


def _refuse_other_unit(text: str, side: int | None, reason: str) -> None:
    """Raises DataError, with the `reason` about the right {unit}, for the first words that say another."""
    for sentence in sentences(text):
        words = blanked(sentence, [size.span for size in stated_sizes(sentence)])
        if said := (_SAYS_RELATIVE if side is None else _SAYS_PIXELS).search(words):
            why = reason.format(unit="pixels" if side is None else f"0 to {side}")
            raise DataError(f"the system prompt says {said[1]!r} of coordinates, {why}: {short(sentence)}")


def check_units(prompts: PromptSet, tools: Sequence[Tool], side: int | None) -> None:
    """Raises ConfigError for words that say another unit of coordinates than the model's, see `in_units`."""
    for video in (False, True):
        try:
            system_text(prompts, tools, [(448, 336)], video, side)
        except DataError as error:
            where = prompts.source or f"prompt {prompts.name!r}"
            raise ConfigError(f"config.drawing.prompt: {where}: {error}; write it without its unit") from None


def _system_text(prompts: PromptSet, tools: Sequence[Tool], sizes: Sequence[Size], video: bool) -> str:
    count = len(sizes)
    images = prompts.video.format(count=count) if video else ""
    if len(set(sizes)) == 1 and (count == 1 or video):
        images += prompts.one_image.format(width=sizes[0][0], height=sizes[0][1])
    elif count and not video:
        images += prompts.images.format(count=count)
    if not tools:
        return prompts.system_without_tools.format(images=images)
    listed = [prompts.tool.format(name=t.name, purpose=t.purpose, example=t.example) for t in tools]
    joint = "\n" if prompts.tool[:1] != "\n" else ""
    names = " or ".join(tool.name for tool in tools)
    width, height = sizes[0] if sizes else (0, 0)
    template = (video and prompts.system_video) or prompts.system
    return template.format(
        tools=joint.join(listed), names=names, images=images, width=width, height=height, count=count
    )


def before_text(prompts: PromptSet, count: int, video: bool) -> str:
    """The start of the first user message about `count` images."""
    return ((video and prompts.before_video) or prompts.before).format(count=count)


def index_text(prompts: PromptSet, index: int, size: Size, drawn: bool = False) -> str:
    """The line after an image, given or drawn."""
    template = prompts.drawn_index if drawn and prompts.drawn_index is not None else prompts.index
    return template.format(index=index, width=size[0], height=size[1])


def question_text(prompts: PromptSet, question: str, question_type: str, options: Sequence[str]) -> str:
    """The question with its options and the suffix of its type (none for free-form)."""
    text = prompts.question.format(question=question)
    if options:
        letters = prompts.name in PROMPTS and all(len(option) == 1 for option in options)
        text += prompts.choices.format(options=(", " if letters else prompts.joint).join(options))
    return text + prompts.suffixes.get(question_type.replace("_", " "), "") + prompts.closing


def check_tools(prompts: PromptSet, tools: Sequence[Tool]) -> None:
    """Raises ConfigError for a tool that the words, which list their tools, do not describe."""
    missing = [tool.id for tool in tools if prompts.tools and tool.id not in prompts.tools]
    if missing:
        raise ConfigError(
            f"config.drawing.tools: the prompt {prompts.name!r} describes {', '.join(prompts.tools)} and not "
            f"{', '.join(missing)}; leave those out, or choose config.drawing.prompt='vilasr_jax'"
        )
