"""A small tokenizer trained for one task, so that a tiny model reads and writes few tokens."""

from collections.abc import Iterable, Sequence

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, pre_tokenizers

from vilasr_jax.errors import TokenizerError
from vilasr_jax.models import ModelFamily
from vilasr_jax.processing.tokenizer import DEFAULT_FAMILY, Tokenizer


def train_tiny_tokenizer(
    corpus: Iterable[str], phrases: Sequence[str], vocab_size: int, family: ModelFamily | None = None
) -> Tokenizer:
    """A small byte-level tokenizer for one task, the same for the same input.

    Text is split into the given phrases (the longest that fits; not ending inside a word or number),
    integers, words with the space before them, and single other characters. A piece in the vocabulary is one
    token (BPE with `ignore_merges` and no merges); any other piece is written byte by byte. The vocabulary
    holds the 256 bytes, every phrase, the role lines of the chat template, every integer of the corpus, the
    corpus's commonest words, and the family's special tokens.

    Args:
      corpus: texts as the model will see and write them.
      phrases: strings that become one token each.
      vocab_size: at most this many ids, special tokens included.
      family: of the model that reads and writes them, by default the default family.

    Raises:
      TokenizerError: a phrase is empty or holds a special token, or `vocab_size` is too small.
    """
    family = family or DEFAULT_FAMILY
    special_tokens = family.chat.special_tokens
    for phrase in phrases:
        if not phrase or any(token in phrase for token in special_tokens):
            raise TokenizerError(f"phrase {phrase!r} is empty or holds a special token")
    phrases = [*map(family.chat.header, family.chat.roles), *phrases]
    ordered = sorted(set(phrases), key=lambda phrase: (-len(phrase), phrase))
    splitter = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_tiny_split(ordered)), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    counts: dict[str, int] = {}
    for text in corpus:
        for token in special_tokens:
            text = text.replace(token, "\n")
        for piece, _ in splitter.pre_tokenize_str(text):
            counts[piece] = counts.get(piece, 0) + 1
    pieces = sorted(pre_tokenizers.ByteLevel.alphabet())
    known = set(pieces)

    def add(piece: str) -> None:
        if piece not in known:
            known.add(piece)
            pieces.append(piece)

    for phrase in dict.fromkeys(phrases):
        add("".join(piece for piece, _ in to_bytes.pre_tokenize_str(phrase)))
    for number in sorted((p for p in counts if _is_integer(p)), key=lambda p: (int(p), p)):
        add(number)
    most = vocab_size - len(special_tokens)
    if len(pieces) > most:
        needed = len(pieces) + len(special_tokens)
        raise TokenizerError(
            f"vocab_size={vocab_size} is too small: bytes, phrases and integers need {needed}"
        )
    for piece in sorted(counts, key=lambda p: (-counts[p], p)):
        if len(pieces) == most:
            break
        add(piece)
    vocab = {piece: i for i, piece in enumerate(pieces)}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocab, merges=[], ignore_merges=True))
    backend.pre_tokenizer = splitter
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(token, special=True) for token in special_tokens])
    return Tokenizer(backend, family=family)


def _is_integer(piece: str) -> bool:
    return piece.removeprefix("-").isascii() and piece.removeprefix("-").isdigit()


def _tiny_split(phrases: Sequence[str]) -> str:
    """The splitting regular expression (Oniguruma).

    A phrase does not end inside a word or number, and a word does not include the space before a phrase.
    """

    def quote(phrase: str) -> str:
        quoted = "".join(c if c.isalnum() or ord(c) > 127 else f"\\x{ord(c):02x}" for c in phrase)
        end = r"(?!\p{L})" if phrase[-1].isalpha() else r"(?![0-9])" if phrase[-1].isdigit() else ""
        return quoted + end

    worded = [quote(phrase) for phrase in phrases if phrase[0].isalpha()]
    space = rf"\s(?!{'|'.join(worded)})\p{{L}}+" if worded else r"\s\p{L}+"
    return "|".join([*map(quote, phrases), r"-?[0-9]+", space, r"\p{L}+", r"[\s\S]"])
