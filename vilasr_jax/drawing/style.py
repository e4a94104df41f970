"""Styles: how boxes and lines look. All sizes are pixels of the image that is drawn on."""

from dataclasses import dataclass, replace

from vilasr_jax.errors import ConfigError

Color = tuple[int, int, int]

# Colours that stay apart from each other, dark and light ones in turn.
PALETTE: tuple[Color, ...] = (
    (214, 39, 40),
    (255, 214, 10),
    (0, 92, 200),
    (120, 230, 90),
    (150, 40, 180),
    (255, 140, 0),
    (0, 125, 115),
    (255, 150, 200),
    (110, 60, 20),
    (70, 220, 240),
    (30, 110, 30),
    (200, 190, 255),
)


@dataclass(frozen=True)
class Style:
    """Look of the drawn annotations.

    `look` is the painter: "clear", which all other fields steer, or "published", which draws as the published
    code does and reads `box_width`, `line_width`, `dots`, `labels` and `label_size` only.

    `reference` scales sizes with the image: they hold for a short side of that many pixels and grow and
    shrink in proportion, down to `least_scale` (never below 1 px); 0: they are not scaled.
    """

    name: str = "custom"
    look: str = "clear"
    palette: tuple[Color, ...] = PALETTE  # colour by label; one entry paints everything alike
    line_width: float = 3
    line_gap: float = 0  # free space before each end of a line, so that a mark at a way point stays readable
    box_width: float = 3
    rim: float = 0  # around lines and boxes, black or white, whichever has more contrast with their colour
    reference: int = 0
    least_scale: float = 0
    labels: bool = True
    label_size: float = 14
    arrow: float = 0  # length of the arrow head, 0 for none
    dots: float = 0  # radius of a dot where a line starts, 0 for none
    newest_ring: float = 0  # radius of a ring on the newest line's end point, 0 for none
    ring_width: float = 2
    ring_color: Color = (20, 20, 20)


STYLES: dict[str, Style] = {
    style.name: style
    for style in (
        Style("published", look="published", box_width=4, line_width=4, dots=4, label_size=10),
        Style(
            "clear",
            reference=448,
            least_scale=0.55,
            line_width=4,
            box_width=3,
            rim=1,
            label_size=15,
            arrow=16,
            dots=5,
        ),
        Style(
            "maze",
            palette=((40, 110, 255),),
            line_width=4,
            line_gap=8,
            labels=False,
            newest_ring=12,
            ring_color=(255, 0, 200),
        ),
    )
}


def get_style(style: str | Style, **changes) -> Style:
    """A preset by name, or the style itself, with fields changed."""
    if isinstance(style, str):
        if style not in STYLES:
            raise ConfigError(f"drawing style {style!r} does not exist; there are {', '.join(STYLES)}")
        style = STYLES[style]
    return replace(style, **changes) if changes else style
