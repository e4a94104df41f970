"""The words around a drawing conversation. Two variants: "published" (the shape released weights know) and
"short" (the same facts in few words, for tiny models)."""

from collections.abc import Sequence
from dataclasses import dataclass

from vilasr_jax.drawing.tools import Tool
from vilasr_jax.errors import ConfigError

Size = tuple[int, int]


@dataclass(frozen=True)
class PromptSet:
    """One variant. Templates take the named fields; `{images}` describes the images given."""

    system: str
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


PROMPTS: dict[str, PromptSet] = {
    "published": PromptSet(
        system=(
            "You answer questions about images by reasoning step by step and drawing on the images. "
            "You can use these tools:\n{tools}\n"
            "{images}Coordinates are absolute pixels, x to the right and y down from the top left corner. "
            "\"index\" is the number of the image to draw on. Each drawn image is given back to you with the "
            "next number; draw a label again to correct it.\n"
            "Output format: in every turn first think, then take one action.\n"
            "To draw:\n<think> your reasoning </think> Action: {names}\n```json\n[the items]\n```\n"
            "To answer:\n<think> your reasoning </think> Action: Answer\n<answer> your answer </answer>"
        ),
        system_without_tools=(
            "You answer questions about images by reasoning step by step. {images}"
            "Coordinates are absolute pixels, x to the right and y down from the top left corner.\n"
            "Output format:\n<think> your reasoning </think> Action: Answer\n<answer> your answer </answer>"
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


def get_prompts(variant: str) -> PromptSet:
    """A variant by name."""
    if variant not in PROMPTS:
        raise ConfigError(f"prompt variant {variant!r} does not exist; there are {', '.join(PROMPTS)}")
    return PROMPTS[variant]


def system_text(prompts: PromptSet, tools: Sequence[Tool], sizes: Sequence[Size], video: bool) -> str:
    """The system prompt for these tools and image sizes (width, height)."""
    count = len(sizes)
    images = prompts.video.format(count=count) if video else ""
    if len(set(sizes)) == 1 and (count == 1 or video):
        images += prompts.one_image.format(width=sizes[0][0], height=sizes[0][1])
    elif count and not video:
        images += prompts.images.format(count=count)
    if not tools:
        return prompts.system_without_tools.format(images=images)
    listed = [prompts.tool.format(name=t.name, purpose=t.purpose, example=t.example) for t in tools]
    joint = "\n" if prompts.tool[0] != "\n" else ""
    names = " or ".join(tool.name for tool in tools)
    return prompts.system.format(tools=joint.join(listed), names=names, images=images)


def question_text(prompts: PromptSet, question: str, question_type: str, options: Sequence[str]) -> str:
    """The question with its options and the suffix of its type (none for free-form)."""
    text = prompts.question.format(question=question)
    if options:
        letters = all(len(option) == 1 for option in options)
        text += prompts.choices.format(options=(", " if letters else "\n").join(options))
    return text + prompts.suffixes.get(question_type.replace("_", " "), "")
