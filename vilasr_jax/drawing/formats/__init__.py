"""The forms in which a model may write actions, by name; a config selects one."""

from vilasr_jax.drawing.formats.base import ActionFormat as ActionFormat
from vilasr_jax.drawing.formats.published import Published
from vilasr_jax.drawing.formats.tool_call import ToolCall
from vilasr_jax.errors import ConfigError

FORMATS: dict[str, ActionFormat] = {form.id: form for form in (Published(), ToolCall())}


def get_format(name: str) -> ActionFormat:
    """The action format of this name; ConfigError where there is none."""
    if name not in FORMATS:
        raise ConfigError(f"action format {name!r} does not exist; there are {', '.join(FORMATS)}")
    return FORMATS[name]
