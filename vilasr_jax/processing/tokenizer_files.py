"""What a Hugging Face folder says of its tokenizer, in any of its files: added tokens, chat template."""

import json
from collections.abc import Collection, Mapping
from typing import Any

import tokenizers
from etils import epath
from tokenizers import AddedToken

from vilasr_jax.errors import TokenizerError
from vilasr_jax.files import parse_json
from vilasr_jax.models import ChatFormat


def read_json(path: epath.Path) -> Any:
    """The value in a JSON file; None where there is no such file.

    Raises:
      TokenizerError: it is not JSON.
    """
    if not path.exists():
        return None
    try:
        return parse_json(path.read_bytes())
    except ValueError as error:
        raise TokenizerError(f"{path}: can't be read as JSON ({error})") from None


def special_tokens(path: epath.Path, config: Mapping[str, Any]) -> set[str]:
    """Tokens that tokenizer_config.json (`config`) or special_tokens_map.json calls special."""
    named = [e for e in (config.get("added_tokens_decoder") or {}).values() if e.get("special")]
    for values in (config, read_json(path / "special_tokens_map.json") or {}):
        named += [value for name, value in values.items() if name.endswith("_token")]
        named += values.get("additional_special_tokens") or []
    contents = (entry.get("content") if isinstance(entry, dict) else entry for entry in named)
    return {content for content in contents if content and isinstance(content, str)}


def listed_tokens(
    path: epath.Path, config: Mapping[str, Any], special: Collection[str], chat: ChatFormat
) -> dict[int, AddedToken]:
    """Tokens by id that tokenizer_config.json (`config`) or added_tokens.json lists.

    A token of added_tokens.json alone, which does not say so, is special where it is in `special` or begins
    with `chat.special_prefix`, except for the family's ordinary ones.
    """
    listed = {
        int(number): (entry["content"], False)
        for number, entry in (config.get("added_tokens_decoder") or {}).items()
    }
    for content, number in (read_json(path / "added_tokens.json") or {}).items():
        guess = content.startswith(chat.special_prefix) and content not in chat.text_tokens
        listed.setdefault(int(number), (content, guess))
    return {
        number: AddedToken(content, special=guess or content in special, normalized=False)
        for number, (content, guess) in listed.items()
    }


def with_tokens(
    value: dict[str, Any], added: Mapping[int, AddedToken], special: Collection[str] = ()
) -> tokenizers.Tokenizer:
    """The tokenizer of a parsed tokenizer.json, with tokens that other files list and it lacks.

    A token of it is special where it says so, or `special` does.

    Raises:
      TokenizerError: such a token can't have the id that it is listed with.
    """
    entries = [
        {**entry, "special": bool(entry.get("special")) or entry["content"] in special}
        for entry in value.get("added_tokens") or ()
    ]
    present = {entry["content"] for entry in entries}
    lacking = {n: token for n, token in added.items() if token.content not in present}
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    entries += [
        {"id": n, "content": token.content, **{flag: getattr(token, flag) for flag in flags}}
        for n, token in lacking.items()
    ]
    value = {**value, "added_tokens": sorted(entries, key=lambda entry: entry["id"])}
    backend = tokenizers.Tokenizer.from_str(json.dumps(value))
    check_ids(backend, lacking)
    return backend


def check_ids(backend: tokenizers.Tokenizer, added: Mapping[int, AddedToken]) -> None:
    """Raises TokenizerError for a token that has another id than it is listed with."""
    for number, token in added.items():
        if (got := backend.token_to_id(token.content)) != number:
            raise TokenizerError(f"{token.content} is listed with the id {number}, but its place is {got}")


def read_template(path: epath.Path, config: Mapping[str, Any]) -> str | None:
    """The chat template of a folder: of chat_template.jinja, chat_template.json or tokenizer_config.json.

    Of several it is the one named "default"; None where there is none.
    """
    file = path / "chat_template.jinja"
    if file.exists():
        return file.read_text(encoding="utf-8")
    for values in (read_json(path / "chat_template.json") or {}, config):
        template = values.get("chat_template")
        if isinstance(template, list):
            named = {entry["name"]: entry["template"] for entry in template}
            template = named.get("default") or next(iter(named.values()), None)
        if isinstance(template, str):
            return template
    return None
