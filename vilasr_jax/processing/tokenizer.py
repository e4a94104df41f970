"""Text to token ids and back: byte-level BPE with a model family's special tokens, read from Hugging Face.

Text never becomes a special token: a user who writes `<|im_end|>` gets plain text.
"""

import dataclasses
import os
from collections.abc import Iterator, Sequence

import numpy as np
import tokenizers
from etils import epath
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from vilasr_jax.errors import TokenizerError
from vilasr_jax.files import write_json
from vilasr_jax.models import ChatFormat, ModelFamily, default_family
from vilasr_jax.processing.tokenizer_files import (
    check_ids,
    listed_tokens,
    read_json,
    read_template,
    special_tokens,
    with_tokens,
)

DEFAULT_FAMILY = default_family()


@dataclasses.dataclass(frozen=True)
class SpecialTokens:
    """Ids of the special tokens that the program itself writes or looks for, and whose they are.

    Iterating gives the ids.
    """

    im_start: int
    im_end: int
    endoftext: int
    vision_start: int
    vision_end: int
    image_pad: int
    video_pad: int
    family: ModelFamily = DEFAULT_FAMILY  # how images are cut, positions counted, conversations begun

    @classmethod
    def texts(cls, chat: ChatFormat) -> list[str]:
        """The tokens themselves, in the order of the ids."""
        return [chat.marks[field.name] for field in dataclasses.fields(cls) if field.name != "family"]

    @classmethod
    def of(cls, family: ModelFamily, ids: Sequence[int]) -> "SpecialTokens":
        """The special tokens of a family from the ids of its `texts`."""
        names = (field.name for field in dataclasses.fields(cls) if field.name != "family")
        return cls(**dict(zip(names, ids, strict=True)), family=family)

    def __iter__(self) -> Iterator[int]:
        return iter(dataclasses.astuple(self)[:-1])

    def config_fields(self) -> dict[str, int]:
        """These ids under the names that a `ModelConfig` has for them."""
        return dict(
            image_token_id=self.image_pad,
            video_token_id=self.video_pad,
            vision_start_token_id=self.vision_start,
            vision_end_token_id=self.vision_end,
            bos_token_id=self.endoftext,
            eos_token_id=self.im_end,
        )


class Tokenizer:
    """A `tokenizers` tokenizer that carries its family's special tokens.

    Attributes:
      special: ids of the special tokens.
      vocab_size: one more than the largest id.
      suppressed_ids: int32, every special id but `<|im_end|>`: what a model may not write.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        *,
        config: dict | None = None,
        template: str | None = None,
        family: ModelFamily | None = None,
    ):
        """Wraps `backend`; `config` and `template` are the folder's own, written back by `save`.

        `family` is that of the model whose conversations are encoded, by default the default family's.
        """
        family = family or DEFAULT_FAMILY
        needed = SpecialTokens.texts(family.chat)
        ids = [backend.token_to_id(token) for token in needed]
        missing = [token for token, number in zip(needed, ids, strict=True) if number is None]
        if missing:
            raise TokenizerError(
                f"the tokenizer lacks {', '.join(missing)}; that of {family.model_type} is needed"
            )
        backend.add_special_tokens(needed)  # also where a file lists them as text
        backend.encode_special_tokens = True  # special tokens inside text are text
        backend.no_padding()
        backend.no_truncation()
        self._backend = backend
        self._config = config
        self._template = template
        self.special = SpecialTokens.of(family, [number for number in ids if number is not None])
        self.vocab_size = max(backend.get_vocab(with_added_tokens=True).values()) + 1
        special_ids = {i for i, token in backend.get_added_tokens_decoder().items() if token.special}
        self.suppressed_ids = np.array(sorted(special_ids - {self.special.im_end}), np.int32)

    @classmethod
    def from_dir(cls, path: str | os.PathLike, family: ModelFamily | None = None) -> "Tokenizer":
        """Reads a Hugging Face folder: `tokenizer.json`, or `vocab.json` and `merges.txt`.

        Added tokens and the chat template are read from all the files that may hold them. `family` is the
        model's, by default the default family.

        Raises:
          TokenizerError: files are missing or broken, or lack the special tokens of the family.
        """
        folder, chat = epath.Path(path), (family or DEFAULT_FAMILY).chat
        config = read_json(folder / "tokenizer_config.json")
        try:
            special = special_tokens(folder, config or {})
            added = listed_tokens(folder, config or {}, special, chat)
            if (folder / "tokenizer.json").exists():
                backend = with_tokens(read_json(folder / "tokenizer.json"), added, special)
            elif (folder / "vocab.json").exists() and (folder / "merges.txt").exists():
                backend = _from_vocab(folder, added, chat)
            else:
                raise TokenizerError(f"{folder}: holds neither tokenizer.json nor vocab.json with merges.txt")
            template = read_template(folder, config or {})
            return cls(backend, config=config, template=template, family=family)
        except TokenizerError as error:
            raise TokenizerError(f"{folder}: {str(error).removeprefix(f'{folder}: ')}") from None
        except Exception as error:  # the Rust library raises plain Exception
            raise TokenizerError(
                f"{folder}: can't be read as a tokenizer ({' '.join(str(error).split())})"
            ) from error

    def save(self, path: str | os.PathLike) -> None:
        """Writes `tokenizer.json`, its config and the chat template, for transformers' AutoTokenizer too."""
        folder = epath.Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "tokenizer.json").write_text(self._backend.to_str(), encoding="utf-8")
        chat = self.special.family.chat
        named = {"eos_token": chat.marks["im_end"], "pad_token": chat.marks["endoftext"]}
        config = self._config or {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": False,
            "model_max_length": 131072,
            **named,
        }
        extra = [token for token in chat.special_tokens if self._backend.token_to_id(token) is not None]
        write_json(folder / "tokenizer_config.json", config)
        write_json(folder / "special_tokens_map.json", {**named, "additional_special_tokens": extra[1:]})
        template = self._template or self.special.family.chat_template
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")

    def encode(self, text: str) -> list[int]:
        """Ids of plain text; never a special id, whatever the text says. A lone surrogate becomes U+FFFD."""
        if not text.isascii():
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return self._backend.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int] | np.ndarray, skip_special: bool = False) -> str:
        """Text of ids; broken UTF-8 becomes U+FFFD, ids outside the vocabulary are left out."""
        return self._backend.decode(np.asarray(ids, np.int64).tolist(), skip_special_tokens=skip_special)

    def __reduce__(self):
        return _from_json, (self._backend.to_str(), self._config, self._template, self.special.family)


def _from_json(text: str, config: dict | None, template: str | None, family: ModelFamily) -> Tokenizer:
    backend = tokenizers.Tokenizer.from_str(text)
    return Tokenizer(backend, config=config, template=template, family=family)


def _from_vocab(path: epath.Path, added: dict[int, AddedToken], chat: ChatFormat) -> tokenizers.Tokenizer:
    """The family's tokenizer from vocab.json and merges.txt; with the tokens `added`, or the published."""
    vocab = read_json(path / "vocab.json")
    lines = (path / "merges.txt").read_text(encoding="utf-8").split("\n")
    lines = [line.rstrip("\r") for line in lines if line and not line.startswith("#version")]
    backend = tokenizers.Tokenizer(models.BPE(vocab, [tuple(line.split(" ")) for line in lines]))
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(chat.split), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    backend.decoder = decoders.ByteLevel()
    published = [AddedToken(token, special=True, normalized=False) for token in chat.special_tokens]
    published += [AddedToken(token, special=False, normalized=False) for token in chat.text_tokens]
    for token in [added[number] for number in sorted(added)] or published:
        (backend.add_special_tokens if token.special else backend.add_tokens)([token])
    check_ids(backend, added)
    return backend
