"""Turns a trace into training messages by running it through the drawing session of a live rollout."""

from typing import Any

from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.errors import DataError
from vilasr_jax.tasks.rows import Trace
from vilasr_jax.tasks.trace_text import said


def replay(trace: Trace, settings: DrawingSettings, in_pixels: bool = True) -> list[dict[str, Any]]:
    """All messages of the conversation, images drawn as in a rollout, coordinates as the model writes them.

    The trace's coordinates are `in_pixels` of the images, or as the model writes them already.

    `DataError` when a turn is refused, the trace has turns after the end, or it ends without an answer.
    """
    session = trace.row.session(settings)
    messages = session.messages
    for number, text in enumerate(trace.turns, 1):
        where = f"trace of row {trace.row.id}, turn {number}"
        if session.stop_reason:
            raise DataError(f"{where}: the conversation has already ended ({session.stop_reason})")
        text = session.as_written(text, in_pixels)
        messages.append(said("assistant", text))
        reply = session.step(text)
        if reply.error:
            raise DataError(f"{where}: {reply.error}")
        if reply.message:
            messages.append(reply.message)
    if session.stop_reason != "answer":
        raise DataError(f"trace of row {trace.row.id} ends without an answer ({session.stop_reason})")
    return messages
