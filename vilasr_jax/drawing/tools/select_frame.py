"""Select Frame: shows one of the images again, with what is drawn on it, as the newest image."""

from dataclasses import dataclass
from typing import ClassVar

from vilasr_jax.drawing.calls import Call
from vilasr_jax.drawing.tools.base import Tool, read_index, read_label


@dataclass(frozen=True, slots=True)
class Selection(Call):
    """Image `index` to look at again."""

    tool: ClassVar[str] = "select_frame"


class SelectFrame(Tool):
    id = "select_frame"
    name = "Select Frame"
    keys = ()
    purpose = "shows an image again"
    example = '{"index": 1, "label": "why"}'

    def read(self, item):
        return Selection(read_index(item), read_label(item))

    def apply(self, call, overlay):
        overlay.touch(call.index)
