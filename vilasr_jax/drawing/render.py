"""The PIL renderer: draws annotations on a copy of the clean base image.

A call's tool draws it (`Tool.draw`) with the methods of the canvas: `Canvas.box`, `line`, `mark` and others.
"""

from collections.abc import Iterable

from PIL import Image

from vilasr_jax.drawing.calls import Call
from vilasr_jax.drawing.canvas import Canvas
from vilasr_jax.drawing.published import PublishedCanvas
from vilasr_jax.drawing.style import Style
from vilasr_jax.drawing.tools import TOOLS

LOOKS: dict[str, type[Canvas]] = {"clear": Canvas, "published": PublishedCanvas}


def render(base: Image.Image, calls: Iterable[Call], style: Style, newest: Call | None = None) -> Image.Image:
    """A drawn copy of `base` (RGB). Later calls are drawn on top; `newest` is the last one by default."""
    calls = list(calls)
    newest = calls[-1] if calls and newest is None else newest
    canvas = LOOKS[style.look](base.copy(), style, [call.label for call in calls])
    for call in calls:
        TOOLS[call.tool].draw(canvas, call, newest=call is newest)
    canvas.finish()
    return canvas.image
