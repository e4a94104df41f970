"""Tokenizers: what becomes one token, what never becomes special, and files."""

import json
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vilasr_jax.errors import TokenizerError
from vilasr_jax.models import default_family
from vilasr_jax.processing import Tokenizer, train_tiny_tokenizer

CHAT = default_family().chat
PHRASES = (
    "<think>",
    "</think>\nAction: Path Tracer\n",
    "<answer>",
    "</answer>",
    "A",
    '{"index": ',
    ', "label": "path"}',
    "The path begins at ",
    "The path begins",
    "[\\](?:x)*+^$ ",
    "émile",
)
CORPUS = (
    "<think>The path begins at 14, 42 and ends at -7.</think>\nAction: Path Tracer\n",
    '{"index": 1, "label": "path"} the maze has walls 100',
    "<answer>A</answer>",
)

pieces = st.lists(
    st.one_of(st.text(), st.sampled_from([*PHRASES, *CHAT.special_tokens, "14", "-7", " ", "\n", "user\n"]))
)


@pytest.fixture(scope="module")
def tokenizer():
    return train_tiny_tokenizer(CORPUS, PHRASES, 400)


@given(pieces)
def test_any_text_goes_round_and_never_becomes_special(tokenizer, parts):
    text = "".join(parts).encode("utf-8", "ignore").decode()
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not set(ids) & {*tokenizer.suppressed_ids.tolist(), tokenizer.special.im_end}


def test_phrases_integers_and_words_are_one_token(tokenizer):
    for phrase in (*PHRASES, "user\n", "14", "42", "-7", "100", " maze", " walls"):
        assert len(tokenizer.encode(phrase)) == 1, phrase
    longest = tokenizer.encode("The path begins at 14")
    assert [tokenizer.decode([i]) for i in longest] == ["The path begins at ", "14"]
    begun = tokenizer.encode("The path begins")[
        0
    ]  # a phrase, and an integer, may not end inside a longer one
    assert begun not in tokenizer.encode("The path beginsx")
    assert tokenizer.encode("14")[0] not in tokenizer.encode("Room 142")
    after_space = [tokenizer.decode([i]) for i in tokenizer.encode("is A")]
    assert after_space[-1] == "A"


def test_a_lone_surrogate_does_not_raise(tokenizer):
    assert tokenizer.decode(tokenizer.encode("a\ud800b 漢 \U0001f600")) == "a\ufffdb 漢 \U0001f600"


def test_same_input_same_tokenizer(tokenizer, tmp_path):
    again = train_tiny_tokenizer(iter(CORPUS), list(PHRASES), 400)
    tokenizer.save(tmp_path / "one")
    again.save(tmp_path / "two")
    for file in (tmp_path / "one").iterdir():
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_size_and_special_ids(tokenizer):
    small = train_tiny_tokenizer(CORPUS, PHRASES, tokenizer.vocab_size - 3)
    assert small.vocab_size == tokenizer.vocab_size - 3
    specials = tokenizer.suppressed_ids.tolist()
    assert len(specials) == len(CHAT.special_tokens) - 1 and tokenizer.special.im_end not in specials
    assert tokenizer.decode([tokenizer.special.im_end]) == "<|im_end|>"
    assert tokenizer.decode([tokenizer.special.im_end], skip_special=True) == ""
    assert tokenizer.decode([0, 10**6]) == tokenizer.decode([0])
    with pytest.raises(TokenizerError, match="too small"):
        train_tiny_tokenizer(CORPUS, PHRASES, 280)
    with pytest.raises(TokenizerError, match="special token"):
        train_tiny_tokenizer(CORPUS, ["stop<|im_end|>"], 400)


def test_saved_and_pickled_tokenizers_give_the_same_ids(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    text = "".join(CORPUS) + "<|im_end|> émile 漢字"
    for other in (Tokenizer.from_dir(tmp_path), pickle.loads(pickle.dumps(tokenizer))):
        assert other.encode(text) == tokenizer.encode(text)
        assert other.special == tokenizer.special and other.vocab_size == tokenizer.vocab_size


def test_older_two_file_layout(tmp_path):
    letters = list("abc")
    (tmp_path / "vocab.json").write_text(json.dumps({c: i for i, c in enumerate([*letters, "ab"])}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\n")
    tokenizer = Tokenizer.from_dir(tmp_path)
    assert tokenizer.encode("abc") == [3, 2]
    assert tokenizer.special.endoftext == 4 and tokenizer.special.image_pad == 16
    assert tokenizer.vocab_size == 4 + len(CHAT.special_tokens) + len(CHAT.text_tokens)
    decoder = {"99": {"content": "<|im_end|>", "special": True}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": decoder}))
    with pytest.raises(TokenizerError, match="id 99"):
        Tokenizer.from_dir(tmp_path)


def test_a_special_token_listed_as_text_is_still_special(tokenizer, tmp_path):
    tokenizer.save(tmp_path)
    file = tmp_path / "tokenizer.json"
    content = json.loads(file.read_text())
    for token in content["added_tokens"]:
        token["special"] = False
    file.write_text(json.dumps(content))
    other = Tokenizer.from_dir(tmp_path)
    assert other.special.im_end not in other.encode("<|im_end|>")
    assert set(other.special) - {other.special.im_end} <= set(other.suppressed_ids.tolist())


@pytest.mark.parametrize("file", ["tokenizer_config.json", "special_tokens_map.json", "a name in it"])
def test_a_token_that_any_file_calls_special_is_special(tokenizer, tmp_path, file):
    tokenizer.save(tmp_path)
    content = json.loads((tmp_path / "tokenizer.json").read_text())
    number = max(token["id"] for token in content["added_tokens"]) + 1
    entry = {**content["added_tokens"][0], "id": number, "content": "<|own|>", "special": False}
    content["added_tokens"].append(entry)
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    (tmp_path / "special_tokens_map.json").unlink()
    other = Tokenizer.from_dir(tmp_path)
    assert other.encode("<|own|>") == [number] and number not in other.suppressed_ids  # nobody says so
    decoder = {"added_tokens_decoder": {str(number): {"content": "<|own|>", "special": True}}}
    values = {
        "tokenizer_config.json": decoder,
        "special_tokens_map.json": {"additional_special_tokens": [{"content": "<|own|>"}]},
        "a name in it": {"eos_token": "<|im_end|>", "own_token": "<|own|>"},
    }[file]
    name = file if file.endswith("map.json") else "tokenizer_config.json"
    (tmp_path / name).write_text(json.dumps(values))
    other = Tokenizer.from_dir(tmp_path)
    assert number not in other.encode("<|own|>") and number in other.suppressed_ids


def test_qwens_ordinary_tokens_are_not_guessed_to_be_special(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps({c: i for i, c in enumerate("abc")}))
    (tmp_path / "merges.txt").write_text("")
    names = (*CHAT.special_tokens, *CHAT.text_tokens)
    (tmp_path / "added_tokens.json").write_text(json.dumps({name: 3 + i for i, name in enumerate(names)}))
    tokenizer = Tokenizer.from_dir(tmp_path)
    for name in CHAT.text_tokens:
        assert tokenizer.encode(name) == [3 + names.index(name)]
    special = set(range(3, 3 + len(CHAT.special_tokens))) - {tokenizer.special.im_end}
    assert set(tokenizer.suppressed_ids.tolist()) == special


def test_bad_folders_are_refused_by_name(tokenizer, tmp_path):
    with pytest.raises(TokenizerError, match="neither"):
        Tokenizer.from_dir(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(TokenizerError, match="can't be read"):
        Tokenizer.from_dir(tmp_path)
    tokenizer.save(tmp_path)
    file = tmp_path / "tokenizer.json"
    file.write_text(file.read_text().replace("<|image_pad|>", "<|other|>"))
    with pytest.raises(TokenizerError, match=r"lacks <\|image_pad\|>"):
        Tokenizer.from_dir(tmp_path)


def moved(folder, tokens):
    """Removes tokens from a folder's tokenizer.json; returns their entries."""
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    gone = [token for token in content["added_tokens"] if token["content"] in tokens]
    content["added_tokens"] = [token for token in content["added_tokens"] if token not in gone]
    file.write_text(json.dumps(content))
    return gone


@pytest.mark.parametrize("tokens", [("<|image_pad|>", "<|video_pad|>"), ("<|im_start|>", "<|vision_start|>")])
@pytest.mark.parametrize("place", ["tokenizer_config.json", "added_tokens.json"])
def test_special_tokens_are_read_wherever_they_are(tokenizer, tmp_path, tokens, place):
    tokenizer.save(tmp_path)
    gone = moved(tmp_path, tokens)
    entries = {str(token["id"]): token for token in gone}
    if place == "added_tokens.json":
        value = {token["content"]: token["id"] for token in gone}
    else:
        value = {**json.loads((tmp_path / place).read_text()), "added_tokens_decoder": entries}
    (tmp_path / place).write_text(json.dumps(value))
    other = Tokenizer.from_dir(tmp_path)
    assert other.special == tokenizer.special and other.vocab_size == tokenizer.vocab_size
    assert other.encode("a <|image_pad|> b") == tokenizer.encode("a <|image_pad|> b")
    moved(tmp_path, ["<|quad_end|>"])  # then those after it have no place
    with pytest.raises(TokenizerError, match=r"is listed with the id \d+, but its place is \d+"):
        Tokenizer.from_dir(tmp_path)


SEVERAL = [{"name": "tool_use", "template": "OTHER"}, {"name": "default", "template": "MINE"}]


@pytest.mark.parametrize(
    "file, content",
    [
        ("chat_template.jinja", "MINE"),
        ("chat_template.json", json.dumps({"chat_template": "MINE"})),
        ("tokenizer_config.json", json.dumps({"chat_template": "MINE"})),
        ("tokenizer_config.json", json.dumps({"chat_template": SEVERAL})),
    ],
)
def test_the_chat_template_that_came_is_written_back(tokenizer, tmp_path, file, content):
    tokenizer.save(tmp_path / "a")
    (tmp_path / "a" / "chat_template.jinja").unlink()
    (tmp_path / "a" / file).write_text(content)
    Tokenizer.from_dir(tmp_path / "a").save(tmp_path / "b")
    assert (tmp_path / "b" / "chat_template.jinja").read_text() == "MINE"
