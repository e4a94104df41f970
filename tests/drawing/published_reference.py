"""The published look, painted from its description: plain NumPy geometry, none of our renderer.

A box is a band of 4 pixels inside its corners, in a named colour by its order; its label is 8 to the
right and 6 below the corner, in PIL's own font. A line is every pixel at most 2 from the segment, black, over
all boxes, with a red disc of radius 4 where it starts and a blue one where it ends.
"""

import numpy as np
from PIL import Image, ImageDraw, ImageFont

COLORS = ((255, 0, 0), (0, 128, 0), (0, 0, 255), (255, 255, 0), (255, 165, 0), (255, 192, 203), (128, 0, 128))


def paint(base: Image.Image, boxes, lines, labels: bool = True) -> np.ndarray:
    """[h, w, 3] uint8. `boxes`: (x1, y1, x2, y2, label); `lines`: (x1, y1, x2, y2), in integer pixels."""
    picture = np.array(base)
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]].astype(float)
    for (x1, y1, x2, y2, label), color in zip(boxes, COLORS, strict=False):
        outer = (x >= x1) & (x <= x2) & (y >= y1) & (y <= y2)
        inner = (x >= x1 + 4) & (x <= x2 - 4) & (y >= y1 + 4) & (y <= y2 - 4)
        picture[outer & ~inner] = color
        if labels:
            written = Image.fromarray(picture)
            font = ImageFont.load_default(10)
            ImageDraw.Draw(written).text((x1 + 8, y1 + 6), label, fill=color, font=font)
            picture = np.array(written)
    for x1, y1, x2, y2 in lines:
        length = np.hypot(x2 - x1, y2 - y1)
        ux, uy = (x2 - x1) / length, (y2 - y1) / length
        along, across = (x - x1) * ux + (y - y1) * uy, (x - x1) * uy - (y - y1) * ux
        picture[(along >= 0) & (along <= length) & (abs(across) <= 2)] = (0, 0, 0)
        for cx, cy, color in ((x1, y1, (255, 0, 0)), (x2, y2, (0, 0, 255))):
            picture[(x - cx) ** 2 + (y - cy) ** 2 <= 4.5**2] = color
    return picture


# (width, height), boxes, lines
SCENES = [
    ((140, 140), [(10, 20, 90, 70, "chair")], []),
    ((140, 140), [(0, 0, 139, 139, "all"), (50, 5, 60, 130, "")], [(10, 10, 120, 12)]),
    ((448, 448), [(30, 40, 200, 300, "sofa"), (180, 20, 430, 210, "TV"), (100, 100, 340, 420, "rug")], []),
    ((448, 448), [], [(20, 30, 400, 300), (400, 40, 60, 380), (30, 420, 420, 420), (224, 10, 224, 200)]),
    ((448, 336), [(5, 5, 100, 90, "a"), (5, 5, 100, 90, "b")], [(50, 40, 300, 40), (300, 40, 300, 250)]),
    (
        (616, 616),
        [(60 * k, 70 * k, 60 * k + 150, 70 * k + 120, f"object {k}") for k in range(7)],
        [(77, 93, 170, 93), (170, 93, 170, 300), (170, 300, 500, 560)],
    ),
    ((1036, 1036), [(500, 600, 1100, 1200, "out of it")], [(900, 100, 1200, 400)]),
]
