"""Qwen2.5-VL's conversations: ChatML with a default system message."""

from vilasr_jax.models.transformer.chat import CHATML, chat_template

DEFAULT_SYSTEM = "You are a helpful assistant."
CHAT_TEMPLATE = chat_template(DEFAULT_SYSTEM)
CHAT = CHATML
