"""Qwen3-VL's conversations: ChatML without a default system message, and four more tokens that are text."""

import dataclasses

from vilasr_jax.models.chat import TOOL_CALLS
from vilasr_jax.models.transformer.chat import CHATML, chat_template

CHAT_TEMPLATE = chat_template(None)
CHAT = dataclasses.replace(
    CHATML,
    text_tokens=(*CHATML.text_tokens, "<tool_response>", "</tool_response>", "<think>", "</think>"),
    tool_calls=TOOL_CALLS,
)
