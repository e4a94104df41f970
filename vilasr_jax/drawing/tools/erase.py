"""Erase: removes everything of one label from an image."""

from dataclasses import dataclass
from typing import ClassVar

from vilasr_jax.drawing.calls import Call
from vilasr_jax.drawing.tools.base import ItemError, Tool, read_index, read_label


@dataclass(frozen=True, slots=True)
class Erasure(Call):
    """A call that removes all annotations of `label` on image `index`."""

    tool: ClassVar[str] = "erase"


class Erase(Tool):
    id = "erase"
    name = "Erase"
    keys = ()
    purpose = "removes what was drawn under a label"
    example = '{"index": 1, "label": "name"}'

    def read(self, item):
        return Erasure(read_index(item), read_label(item))

    def apply(self, call, overlay):
        if not overlay.erase(call.index, call.label):
            raise ItemError("nothing of that label is drawn on that image")
