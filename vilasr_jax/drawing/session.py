"""The session of one drawing conversation: it builds the prompt, parses each turn, draws, and replies.

The same session replays expert traces for training and serves live rollouts, so the pixels and the words
around them are the same bit for bit in both. It is deterministic and can be pickled.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from PIL import Image

from vilasr_jax.drawing.calls import Call, in_pixels
from vilasr_jax.drawing.coordinates import Scale, convert_items, convert_prose, frame_of
from vilasr_jax.drawing.formats import get_format
from vilasr_jax.drawing.overlay import Applied, Overlay
from vilasr_jax.drawing.prompts import PromptSet, before_text, get_prompts, question_text
from vilasr_jax.drawing.style import Style, get_style
from vilasr_jax.drawing.tools import PUBLISHED, get_tools
from vilasr_jax.errors import ImageError

Message = dict[str, Any]
NO_ROOM = "there is no room for another image"


@dataclass(frozen=True)
class DrawingSettings:
    """Settings of drawing conversations.

    With `draw=False` there are no tools: the model may only write and answer (the text-only control).
    """

    style: str | Style = "clear"
    tools: tuple[str, ...] = PUBLISHED
    max_turns: int = 10
    max_images: int = 45  # base and drawn images; at the limit the model has to answer
    prompt: str | PromptSet = "vilasr_jax"
    draw: bool = True
    stop_on_repeat: bool = True  # a turn that only draws what is already there ends the conversation
    image_unit: int = 1  # sides of new images are multiples of this many pixels; the model says which
    coordinates: int | None = None  # units per image side in what the model writes; None: pixels
    actions: str = "published"  # the form of actions, see `drawing.formats`
    timestamp: str = ""  # text before a video's frame whose {seconds} are known; the model says which

    def written(self, places: Sequence[int], size: tuple[int, int]) -> tuple[int, ...]:
        """x, y, x, y, ... in pixels of an image of `size` (width, height), as the model writes them.

        >>> DrawingSettings(coordinates=1000).written((42, 21), (84, 42))
        (500, 500)
        """
        if self.coordinates is None:
            return tuple(places)
        scale = Scale(size, frame_of(size, self.coordinates))
        return tuple(map(int, scale.numbers(tuple(map(str, places)))))


@dataclass(frozen=True)
class Reply:
    """The reply to an assistant turn: the next user message, or the end and its reason.

    Reasons: "answer", "turn_limit", "image_limit" (the model drew another one there), "repeat",
    "no_action", "truncated".
    `drawn` counts the images drawn in this turn; `error` is the line that the model reads about it.
    """

    message: Message | None
    done: bool
    stop_reason: str | None
    drawn: int
    error: str | None


class DrawingSession:
    """Runs one conversation. `images` are RGB images already resized for the model.

    `captions` are texts before the given images ("" for none), `seconds` the times of a video's frames, where
    they are known. All words number images from 1, whatever a call names them by. `messages` is the opening
    (system and user); `step` is called with each assistant text and never raises on it.
    """

    def __init__(
        self,
        images: Sequence[Image.Image],
        question: str,
        *,
        question_type: str = "multiple choice",
        options: Sequence[str] = (),
        settings: DrawingSettings | None = None,
        video: bool = False,
        captions: Sequence[str] = (),
        seconds: Sequence[float] = (),
    ):
        for number, image in enumerate(images, 1):
            if image.mode != "RGB":
                raise ImageError(f"image {number} has mode {image.mode}; load it with processing.load_image")
        self.settings = settings = settings or DrawingSettings()
        self.events: list[dict[str, Any]] = []
        self.answer: str | None = None
        self.stop_reason: str | None = None
        self._given = len(images)
        self._full = False  # no more images are possible: the next turn has to answer
        self._form = get_format(settings.actions)
        style = get_style(settings.style)
        self._overlay = Overlay(
            images,
            style,
            settings.max_images,
            settings.image_unit,
            first=self._form.first,
            index_name=self._form.index_name,
            coordinates=settings.coordinates,
        )
        self._captions, self._seconds = tuple(captions), tuple(seconds) if video else ()
        self._question = (question, question_type, tuple(options), video)
        get_tools(settings.tools)  # a wrong setting fails here, not later
        self._form.check(get_prompts(settings.prompt), self.tools, settings.coordinates)

    @property
    def tools(self) -> tuple:
        """The tools the model may call."""
        return get_tools(self.settings.tools) if self.settings.draw else ()

    @property
    def images(self) -> list[Image.Image]:
        """All images in index order: the given ones, then the drawn ones."""
        return self._overlay.images

    @property
    def messages(self) -> list[Message]:
        """The system message and the user message that open the conversation."""
        prompts = get_prompts(self.settings.prompt)
        question, question_type, options, video = self._question
        given = self.images[: self._given]
        sizes = [image.size for image in given]
        system = self._form.system(prompts, self.tools, sizes, video, self.settings.coordinates)
        content = [_text(before_text(prompts, self._given, video))]
        for number in range(1, self._given + 1):
            if caption := "".join(self._captions[number - 1 : number]):
                before = content[-1]["text"]
                line = caption if not before or before.endswith("\n") else f"\n{caption}"
                content.append(_text(f"{line}\n"))
            for time in self._seconds[number - 1 : number]:
                content.append(_text(self.settings.timestamp.format(seconds=time)))
            content += self._image_parts([number])
        content.append(_text(question_text(prompts, question, question_type, options)))
        return [{"role": "system", "content": [_text(system)]}, {"role": "user", "content": _joined(content)}]

    def step(self, text: str, *, truncated: bool = False, lost: str | None = None) -> Reply:
        """Executes one assistant turn and returns the reply to it.

        Args:
          text: what the model wrote.
          truncated: it ran into the token limit of a turn.
          lost: why this turn can't be drawn (a time limit, say). Nothing is drawn, and this text is the error
            that the model reads.
        """
        if self.stop_reason:
            return Reply(None, True, self.stop_reason, 0, None)
        turn = self._form.parse(text, self.tools, self._given)
        turn = replace(turn, calls=tuple(map(self._in_pixels, turn.calls)))
        event = {
            "text": text,
            "action": turn.action,
            "calls": [call.to_dict() for call in turn.calls],
            "bases": [self._overlay.base_of(call.index) for call in turn.calls],
            "error": "; ".join(turn.errors) or None,
            "drawn": [],
            "corrected": 0,
            "repeated": 0,
            "strict_format": turn.strict_format,
        }
        if lost is not None:
            event["lost"] = lost
        self.events.append(event)
        if turn.answer is not None:
            self.answer = turn.answer
            return self._stop("answer")
        if len(self.events) >= self.settings.max_turns:
            return self._stop("turn_limit")
        if not turn.calls and not turn.errors:
            return self._stop("truncated" if truncated else "no_action")
        if self._full:
            return self._stop("image_limit")
        return self._draw(turn, event, lost)

    def as_written(self, text: str, in_pixels: bool = True) -> str:
        """Converts a turn of the published form to what the model writes.

        Coordinates are pixels of the images, or, without `in_pixels`, the model's already. Lengths with their
        unit ("40 pixels") are those of the picture and stay. Without tools every list of two or four numbers
        is a place in the images, which must be of one size.

        Raises:
          DataError: it is unclear to which image a coordinate belongs.
        """
        return self._form.write(self._converted(text) if in_pixels else text, self.tools)

    def _converted(self, text: str) -> str:
        units = self.settings.coordinates
        if units is None:
            return text
        scales = {i: Scale(image.size, frame_of(image.size, units)) for i, image in enumerate(self.images, 1)}
        known: dict[tuple[str, ...], set[tuple[str, ...]]] = {}
        one = scales[1] if not self.tools and len(set(scales.values())) == 1 else None
        converted = convert_items(text, scales, known)
        return convert_prose(converted, known, lengths=True, other_unit=True, all_images=one)

    def _in_pixels(self, call: Call) -> Call:
        units = self.settings.coordinates
        if units is None or not 1 <= call.index <= len(self.images):
            return call
        return in_pixels(call, self.images[call.index - 1].size, units)

    def _draw(self, turn, event: dict[str, Any], lost: str | None) -> Reply:
        applied = self._overlay.apply(turn.calls) if lost is None else Applied((), 0, 0, (lost,))
        errors = (turn.errors + applied.errors)[:3]
        event["drawn"], event["corrected"] = list(applied.drawn), applied.corrected
        event["repeated"] = applied.repeated
        event["error"] = error = "; ".join(errors) or None
        drawn = len(applied.drawn)
        if applied.repeated and not drawn and not applied.full:
            if self.settings.stop_on_repeat:
                return self._stop("repeat", drawn, error)
            event["error"] = error = "; ".join([*errors, "nothing new was drawn"])
        if applied.full:
            event["error"] = error = "; ".join([*errors[:2], NO_ROOM])
        self._full = applied.full or len(self.images) >= self.settings.max_images
        prompts = get_prompts(self.settings.prompt)
        content = [_text(prompts.before_drawn), *self._image_parts(applied.drawn, drawn=True)]
        if error:
            content.append(_text(prompts.error.format(error=error)))
        last = self._full or len(self.events) == self.settings.max_turns - 1
        content = self._form.reply(content, _text(prompts.final if last else prompts.drawn))
        return Reply({"role": "user", "content": _joined(content)}, False, None, drawn, error)

    def _stop(self, reason: str, drawn: int = 0, error: str | None = None) -> Reply:
        self.stop_reason = reason
        return Reply(None, True, reason, drawn, error)

    def _image_parts(self, numbers: Sequence[int], drawn: bool = False) -> list[dict[str, Any]]:
        """Message parts of the images: each one, then the line with its number and size."""
        prompts = get_prompts(self.settings.prompt)
        parts: list[dict[str, Any]] = []
        for number in numbers:
            image = self.images[number - 1]
            line = self._form.index_text(prompts, number, image.size, drawn)
            parts += [{"type": "image", "image": image}, _text(line)]
        return parts


def joined(message: Message, mark: str) -> str:
    """A message's text with `mark` in place of an image; words that look like the mark are split."""
    texts = [
        mark if part["type"] == "image" else part["text"].replace(mark, mark[:1] + " " + mark[1:])
        for part in message["content"]
    ]
    return "".join(texts)


def _text(text: str) -> dict[str, str]:
    return {"type": "text", "text": text}


def _joined(parts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Neighbouring texts as one part, empty ones left out."""
    joined: list[dict[str, Any]] = []
    for part in parts:
        if part["type"] == "text" and joined and joined[-1]["type"] == "text":
            joined[-1] = _text(joined[-1]["text"] + part["text"])
        elif part["type"] == "image" or part["text"]:
            joined.append(part)
    return joined
