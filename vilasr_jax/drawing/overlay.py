"""The overlay: annotations as data above clean base images.

Images are numbered from 1; a drawn image gets the next number. Every drawn image is rendered from its clean
base and the annotations that base has now, so nothing old remains in the pixels. A base and all images drawn
from it have one overlay: a call may name any of them.

An annotation is known by (base image, tool, label, n). A later call with the same label moves the n-th object
of that label (a correction); one call that names a label twice means two objects.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from absl import logging
from PIL import Image

from vilasr_jax.drawing.calls import Call
from vilasr_jax.drawing.render import render
from vilasr_jax.drawing.style import Style
from vilasr_jax.drawing.tools import TOOLS, ItemError

Key = tuple[int, str, str, int]


@dataclass(frozen=True)
class Applied:
    """Result of one turn's calls: the new images' numbers, counts and errors.

    `full`: the new images would have been more than `max_images`, so none was drawn.
    """

    drawn: tuple[int, ...]
    corrected: int
    repeated: int
    errors: tuple[str, ...]
    full: bool = False


class Overlay:
    """Images of one conversation and the annotations on them. `images[k - 1]` is image k."""

    def __init__(
        self,
        images: Sequence[Image.Image],
        style: Style,
        max_images: int | None = None,
        image_unit: int = 1,
        first: int = 1,
        index_name: str = "image",
        coordinates: int | None = None,
    ):
        self.first, self.index_name = first, index_name  # the number of the first image in errors, its name
        self.coordinates = coordinates  # units per image side in errors; None: pixels
        self.style, self.max_images, self.image_unit = style, max_images, image_unit
        self.images: list[Image.Image] = list(images)
        self._base_of: list[int] = list(range(1, len(self.images) + 1))
        self._annotations: dict[Key, Call] = {}  # in order of first appearance
        self._newest: dict[int, Call] = {}  # of each base
        self._reset_turn()

    def _reset_turn(self) -> None:
        self._named: dict[tuple[int, str, str], int] = {}  # objects a label has had in this turn
        self._touched: dict[int, None] = {}  # base images to draw again, in order
        self._added: list[tuple[int, Callable[[Image.Image], Image.Image]]] = []
        self._corrected = self._repeated = 0

    def base(self, index: int) -> int:
        """The base image under image `index`; `ItemError` when there is no such image."""
        base = self.base_of(index)
        if base is None:
            number, last = (i + self.first - 1 for i in (index, len(self.images)))
            raise ItemError(f"there is no {self.index_name} {number}, only {self.first} to {last}")
        return base

    def base_of(self, index: int) -> int | None:
        """The base image under image `index`; None when there is no such image."""
        return self._base_of[index - 1] if 1 <= index <= len(self.images) else None

    def size(self, index: int) -> tuple[int, int]:
        """(width, height) of image `index`."""
        return self.images[self.base(index) - 1].size

    def extent(self, index: int) -> str:
        """The coordinates that image `index` has, as an error says it to the model."""
        width, height = self.size(index)
        return f"{width} x {height}" if self.coordinates is None else f"0 to {self.coordinates}"

    def sides(self, index: int, pixels: int) -> str:
        """A square of `pixels` a side in image `index`, in the coordinates of an error."""
        if self.coordinates is None:
            return f"{pixels} pixels a side"
        wide, high = (-(-pixels * self.coordinates // side) for side in self.size(index))
        return f"{wide} wide or {high} high"

    def annotations(self, index: int) -> list[Call]:
        """The annotations of an image's base, in order of first appearance."""
        base = self.base(index)
        return [call for key, call in self._annotations.items() if key[0] == base]

    def apply(self, calls: Sequence[Call]) -> Applied:
        """Applies one turn's calls and draws every image that they changed, once. Never raises."""
        self._reset_turn()
        before = dict(self._annotations), dict(self._newest)
        errors = []
        for number, call in enumerate(calls, 1):
            try:
                TOOLS[call.tool].apply(call, self)
            except ItemError as error:
                errors.append(f"item {number}: {error}")
        first, added, self._added = len(self.images), self._added, []
        if self.max_images is not None and first + len(self._touched) + len(added) > self.max_images:
            self._annotations, self._newest = before
            return Applied((), 0, 0, tuple(errors), full=True)
        try:
            bases = list(self._touched)
            new = [self._render(base) for base in bases]
            new += [make(self.images[base - 1]) for base, make in added]
            if any(image.mode != "RGB" for image in new):
                raise ValueError("a drawn image is not RGB")
        except Exception:  # a fault of ours or of a tool's: it costs this turn, not the conversation
            logging.exception("a drawing failed")
            self._annotations, self._newest = before
            return Applied((), 0, 0, (*errors, "the drawing failed"))
        self.images += new
        self._base_of += [*bases, *range(first + len(bases) + 1, len(self.images) + 1)]
        drawn = tuple(range(first + 1, len(self.images) + 1))
        return Applied(drawn, self._corrected, self._repeated, tuple(errors))

    def _render(self, base: int) -> Image.Image:
        return render(self.images[base - 1], self.annotations(base), self.style, self._newest.get(base))

    def put(self, call: Call) -> None:
        """Adds an annotation, or moves the one of that label, which becomes the newest; its order stays.

        What is already there in the same place is only counted: a turn of nothing else draws no image.
        """
        base = self.base(call.index)
        label = (base, call.tool, call.label)
        n = self._named.get(label, 0)
        self._named[label] = n + 1
        key = (*label, n)
        old = self._annotations.get(key)
        if old is not None and _place(old) == _place(call):
            self._repeated += 1
            return
        self._annotations[key] = self._newest[base] = call
        self._touched[base] = None
        self._corrected += old is not None

    def erase(self, index: int, label: str) -> int:
        """Removes every annotation of a label from the base under an image; returns their number."""
        base = self.base(index)
        gone = [key for key in self._annotations if (key[0], key[2]) == (base, label)]
        for key in gone:
            if self._annotations.pop(key) is self._newest.get(base):
                del self._newest[base]  # then the last one is
            self._touched[base] = None
        return len(gone)

    def touch(self, index: int) -> None:
        """Marks the base under an image to be drawn again in this turn."""
        self._touched[self.base(index)] = None

    def add_image(self, index: int, make: Callable[[Image.Image], Image.Image]) -> None:
        """Adds a base image, which `make` computes from the clean base of image `index` at `draw`."""
        self._added.append((self.base(index), make))


def _place(call: Call) -> tuple:
    """A call's coordinates, without its image number."""
    fields = call.to_dict()
    del fields["index"]
    return tuple(fields.values())
