"""The published look, as the released code paints it (AntResearchNLP/ViLaSR, utils/edit_image.py).

Boxes are 4 pixels wide, in PIL's named colours by their order on the image, each with its label in PIL's own
font just inside the corner. Lines are drawn over them, black, 4 pixels wide, with a red dot where they
start and a blue one where they end, and without labels. Coordinates are divided by the image's side,
multiplied by it and rounded down, which is now and then one pixel less. This module does the same, so a model
sees what it was trained on.
"""

from PIL import ImageColor

from vilasr_jax.drawing.canvas import Canvas
from vilasr_jax.drawing.style import Color
from vilasr_jax.drawing.text import draw_text

_FIRST = (
    "red green blue yellow orange pink purple brown gray beige turquoise cyan magenta lime navy maroon teal "
    "olive coral lavender violet gold silver"
).split()
ORDER: tuple[Color, ...] = tuple(ImageColor.getrgb(name)[:3] for name in (*_FIRST, *ImageColor.colormap))
LINE, START, END = (0, 0, 0), (255, 0, 0), (0, 0, 255)
INSET = (8, 6)  # of a label, from its box's corner
_FAR = 4  # image sides; coordinates further out are clipped to this


class PublishedCanvas(Canvas):
    """Paints boxes as they come and lines on top of them."""

    def __init__(self, *args):
        super().__init__(*args)
        self._boxes = 0
        self._lines: list[tuple[float, float, float, float]] = []

    def color(self, label: str) -> Color:
        return LINE  # of marks and words, which the published code does not know

    def box(self, x1: float, y1: float, x2: float, y2: float, label: str) -> None:
        color = ORDER[self._boxes % len(ORDER)]
        self._boxes += 1
        left, top, right, bottom = self._x(x1), self._y(y1), self._x(x2), self._y(y2)
        style = self.style
        self.draw.rectangle((left, top, right, bottom), outline=color, width=round(style.box_width))
        if style.labels and label:
            place = (left + INSET[0], top + INSET[1])
            draw_text(self.draw, place, label, color, round(style.label_size), anchor="la")

    def line(self, x1: float, y1: float, x2: float, y2: float, label: str, newest: bool) -> None:
        self._lines.append((self._x(int(x1)), self._y(int(y1)), self._x(int(x2)), self._y(int(y2))))

    def finish(self) -> None:
        r = self.style.dots
        for ax, ay, bx, by in self._lines:
            self.draw.line((ax, ay, bx, by), fill=LINE, width=round(self.style.line_width))
            for (x, y), color in (((ax, ay), START), ((bx, by), END)):
                self.draw.ellipse((x - r, y - r, x + r, y + r), fill=color)
        super().finish()

    def _x(self, x: float) -> int:
        return _published_pixel(x, self.width)

    def _y(self, y: float) -> int:
        return _published_pixel(y, self.height)


def _published_pixel(c: float, side: int) -> int:
    return int(max(-_FAR * side, min(c, (_FAR + 1) * side)) / side * side)
