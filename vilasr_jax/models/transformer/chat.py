"""Qwen's conversations: ChatML, special tokens, and the template that an exported tokenizer carries."""

from vilasr_jax.models.chat import ChatFormat

_SYSTEM = (
    "{%- if loop.first and message.role != 'system' -%}"
    "{{- '<|im_start|>system\\nDEFAULT<|im_end|>\\n' -}}"
    "{%- endif -%}"
)
_MESSAGE = (
    "{{- '<|im_start|>' + message.role + '\\n' -}}"
    "{%- if message.content is string -%}{{- message.content -}}"
    "{%- else -%}{%- for part in message.content -%}"
    "{%- if part.type == 'image' or 'image' in part or 'image_url' in part -%}"
    "{{- '<|vision_start|><|image_pad|><|vision_end|>' -}}"
    "{%- elif part.type == 'video' or 'video' in part -%}"
    "{{- '<|vision_start|><|video_pad|><|vision_end|>' -}}"
    "{%- elif 'text' in part -%}{{- part.text -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    "{{- '<|im_end|>\\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)


def chat_template(default_system: str | None) -> str:
    """The Jinja template that renders `messages` as `processing.chat.encode_conversation` does.

    It writes one pad token per image, which a processor repeats. A conversation without a system message is
    given the default one, if there is one.
    """
    system = "" if default_system is None else _SYSTEM.replace("DEFAULT", default_system)
    return "{%- for message in messages -%}" + system + _MESSAGE


_MARKS = ("im_start", "im_end", "endoftext", "vision_start", "vision_end", "image_pad", "video_pad")

CHATML = ChatFormat(
    marks={name: f"<|{name}|>" for name in _MARKS},
    special_tokens=(
        "<|endoftext|>",
        "<|im_start|>",
        "<|im_end|>",
        "<|object_ref_start|>",
        "<|object_ref_end|>",
        "<|box_start|>",
        "<|box_end|>",
        "<|quad_start|>",
        "<|quad_end|>",
        "<|vision_start|>",
        "<|vision_end|>",
        "<|vision_pad|>",
        "<|image_pad|>",
        "<|video_pad|>",
    ),  # 151643 ...
    text_tokens=(
        "<tool_call>",
        "</tool_call>",
        "<|fim_prefix|>",
        "<|fim_middle|>",
        "<|fim_suffix|>",
        "<|fim_pad|>",
        "<|repo_name|>",
        "<|file_sep|>",
    ),
    split=(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    ),
    special_prefix="<|",
    after_role="\n",
    after_message="\n",
)
