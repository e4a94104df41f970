"""What a Hugging Face folder says of its tokenizer, in any of its files: added tokens, chat template."""

import json
from collections.abc import Mapping
from typing import Any

import tokenizers
from etils import epath
from tokenizers import AddedToken

from vilasr_jax.errors import TokenizerError
from vilasr_jax.files import mistaken_for


def read_json(path: epath.Path) -> Any:
    """The value in a JSON file; None where there is no such file.

    Raises:
      TokenizerError: it is not JSON.
    """
    if not path.exists():
        return None
    data = path.read_bytes()
    try:
        return json.loads(data.decode("utf-8-sig"))
    except ValueError as error:
        raise TokenizerError(f"{path}: can't be read as JSON ({mistaken_for(data) or error})") from None


def listed_tokens(path: epath.Path, config: Mapping[str, Any]) -> dict[int, AddedToken]:
    """Tokens by id that stand in tokenizer_config.json (`config`) or added_tokens.json."""
    listed = {
        int(number): (entry["content"], entry.get("special", False))
        for number, entry in (config.get("added_tokens_decoder") or {}).items()
    }
    for content, number in (read_json(path / "added_tokens.json") or {}).items():
        listed.setdefault(int(number), (content, content.startswith("<|")))
    return {
        number: AddedToken(content, special=special, normalized=False)
        for number, (content, special) in listed.items()
    }


def with_tokens(value: dict[str, Any], added: Mapping[int, AddedToken]) -> tokenizers.Tokenizer:
    """The tokenizer of a parsed tokenizer.json, with tokens that other files list and it lacks.

    Raises:
      TokenizerError: such a token can't have the id that it is listed with.
    """
    present = {entry["content"] for entry in value.get("added_tokens") or ()}
    lacking = {n: token for n, token in added.items() if token.content not in present}
    if lacking:
        flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
        entries = [
            {"id": n, "content": token.content, **{flag: getattr(token, flag) for flag in flags}}
            for n, token in lacking.items()
        ]
        entries = sorted([*(value.get("added_tokens") or ()), *entries], key=lambda entry: entry["id"])
        value = {**value, "added_tokens": entries}
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

    Of several the one named "default" is taken; None where there is none.
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
