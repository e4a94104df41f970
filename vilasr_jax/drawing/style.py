"""Styles: how boxes and lines look. All sizes are pixels of the image that is drawn on."""

from dataclasses import dataclass, replace

from vilasr_jax.errors import ConfigError

Color = tuple[int, int, int]

RED: Color = (220, 30, 40)
# Colours that stay apart from each other and from white, black and mid-grey.
PALETTE: tuple[Color, ...] = (
    (214, 39, 40),
    (31, 119, 180),
    (44, 160, 44),
    (255, 127, 14),
    (148, 103, 189),
    (0, 150, 160),
    (227, 60, 190),
    (120, 80, 60),
)


@dataclass(frozen=True)
class Style:
    """Look of the drawn annotations.

    `reference` makes sizes follow the image: they hold for a short side of that many pixels and grow and
    shrink with it (never below 1 px); 0 keeps them as they are.
    """

    name: str = "custom"
    palette: tuple[Color, ...] = PALETTE  # colour by label; one entry paints everything alike
    line_width: float = 3
    line_gap: float = 0  # free space before each end of a line, so that a mark at a way point stays readable
    box_width: float = 3
    reference: int = 0
    labels: bool = True
    label_size: float = 14
    label_background: bool = True  # label on a filled plate, not on the bare picture
    arrow: float = 0  # length of the arrow head, 0 for none
    dots: float = 0  # radius of a dot on each end point, 0 for none
    newest_ring: float = 0  # radius of a ring on the newest line's end point, 0 for none
    ring_width: float = 2
    ring_color: Color = (20, 20, 20)


STYLES: dict[str, Style] = {
    style.name: style
    for style in (
        Style("published", palette=(RED,), line_width=3, box_width=3, label_background=False, arrow=10),
        Style("clear", reference=448, line_width=4, box_width=3, label_size=16, arrow=14, dots=4),
        Style(
            "maze", palette=((40, 110, 255),), line_width=4, line_gap=8, labels=False, newest_ring=12,
            ring_color=(255, 0, 200),
        ),
    )
}  # fmt: skip


def get_style(style: str | Style, **changes) -> Style:
    """A preset by name, or the style itself, with fields changed."""
    if isinstance(style, str):
        if style not in STYLES:
            raise ConfigError(f"drawing style {style!r} does not exist; there are {', '.join(STYLES)}")
        style = STYLES[style]
    return replace(style, **changes) if changes else style
