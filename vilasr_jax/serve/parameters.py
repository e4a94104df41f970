"""The parameters of a chat completion request: an allow-list, so no parameter is silently ignored.

A parameter is read, ignored because it never changes an answer (`NO_MATTER`), or accepted only with a value
that changes nothing (`NEUTRAL`). Any other is refused; the error for a misspelt one suggests the right name.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from typing import Any

from vilasr_jax.errors import did_you_mean
from vilasr_jax.serve.limits import ApiError

READ = (
    "model",
    "messages",
    "options",
    "video",
    "fps",
    "n",
    "temperature",
    "top_p",
    "max_tokens",
    "max_completion_tokens",
    "seed",
    "stream",
    "stream_options",
)
NO_MATTER = (
    "user",
    "store",
    "metadata",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "request_id",
    "parallel_tool_calls",
)
# What would change the answer if it were ignored, and the values that change nothing (null never does).
NEUTRAL: dict[str, tuple] = {
    "add_generation_prompt": (True,),
    "audio": (),
    "bad_words": ([],),
    "best_of": (1,),
    "chat_template_kwargs": ({},),
    "echo": (False,),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "guided_choice": ([],),
    "guided_grammar": ("",),
    "guided_json": (),
    "guided_regex": ("",),
    "ignore_eos": (False,),
    "include_reasoning": (True,),
    "include_stop_str_in_output": (False,),
    "length_penalty": (1,),
    "logit_bias": ({},),
    "logprobs": (False,),
    "min_p": (0,),
    "min_tokens": (0,),
    "mm_processor_kwargs": ({},),
    "modalities": (["text"],),
    "prediction": (),
    "presence_penalty": (0,),
    "prompt_logprobs": (False,),
    "reasoning_effort": (),
    "repetition_penalty": (1,),
    "response_format": ({"type": "text"},),
    "skip_special_tokens": (True,),
    "spaces_between_special_tokens": (True, False),
    "stop": ([], "", [""]),
    "stop_token_ids": ([],),
    "structured_outputs": (),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_k": (-1, 0),
    "top_logprobs": (0,),
    "use_beam_search": (False,),
    "verbosity": (),
    "web_search_options": (),
}


def check_parameters(value: dict) -> None:
    """Raises ApiError (400) for a parameter that is unknown or has an unsupported value."""
    for name, got in value.items():
        if got is None or name in READ or name in NO_MATTER:
            continue
        if name not in NEUTRAL:
            message = f"{name[:80]!r} isn't a parameter here{did_you_mean(name[:80], READ)}"
            raise ApiError(400, message, param=name[:80], code="unknown_parameter")
        if got not in NEUTRAL[name]:
            message = f"{name} is not supported; leave it out"
            raise ApiError(400, message, param=name, code="unsupported_parameter")


def check_keys(value: dict, known: Sequence[str], where: str) -> None:
    """Raises ApiError (400) for an unknown key with a value (null, false and empty are none)."""
    for name, got in value.items():
        if name not in known and got not in (None, False, [], {}):
            here = f"{where}.{name[:80]}"
            message = f"{here}: no such field here; this server reads {', '.join(known)}"
            raise ApiError(400, message, param=here, code="unknown_parameter")


def typed(value: dict, name: str, kind: type, default: Any) -> Any:
    """A field of a type; `default` where it is absent or null.

    Raises:
      ApiError: 400, it has another type.
    """
    got = value.get(name)
    if got is None:
        return default
    if not isinstance(got, kind):
        raise ApiError(400, f"{name} must be a {kind.__name__}", param=name)
    return got


def number(value: dict, name: str, low: float, high: float, integer: bool = False) -> Any:
    """A number from `low` to `high`, None where it is absent; `integer`: an int, also from 512.0.

    Raises:
      ApiError: 400, it is no such number.
    """
    got = value.get(name)
    if got is None:
        return None
    if integer and isinstance(got, float) and got.is_integer():
        got = int(got)
    kinds = int if integer else (int, float)
    if not isinstance(got, kinds) or isinstance(got, bool) or not low <= got <= high or math.isnan(got):
        kind = "an integer" if integer else "a number"
        raise ApiError(400, f"{name} must be {kind} from {_plain(low)} to {_plain(high)}", param=name)
    return got


def _plain(value: float) -> str:
    """A number without an exponent: 1,073,741,824 or 0.000001."""
    return f"{value:,}" if isinstance(value, int) else f"{value:,f}".rstrip("0").rstrip(".")


def seed(value: dict) -> int:
    """The seed, any integer; a random one where none is given.

    Raises:
      ApiError: 400, it isn't an integer.
    """
    got = value.get("seed")
    if got is None:
        return secrets.randbelow(1 << 30)
    if isinstance(got, float) and got.is_integer():
        got = int(got)
    if not isinstance(got, int) or isinstance(got, bool):
        raise ApiError(400, "seed must be an integer", param="seed")
    return got % (1 << 30)
