"""The published form: `Action: Object Mapper` and a list of items as JSON."""

from vilasr_jax.drawing.actions import parse_actions
from vilasr_jax.drawing.formats.base import ActionFormat
from vilasr_jax.drawing.prompts import check_tools, check_units, system_text


class Published(ActionFormat):
    id = "published"

    def check(self, prompts, tools, side):
        check_tools(prompts, tools)
        check_units(prompts, tools, side)

    def system(self, prompts, tools, sizes, video, side):
        return system_text(prompts, tools, sizes, video, side)

    def parse(self, text, tools, given=1):
        return parse_actions(text, tools)
