"""The chat template: full conversations, turns, and the mask of what the assistant wrote."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vilasr_jax.errors import DataError
from vilasr_jax.processing import encode_conversation, encode_turn, join

text_part = st.builds(lambda text: {"type": "text", "text": text}, st.text(max_size=8))
image_part = st.builds(
    lambda w, h: {"type": "image", "image": Image.new("RGB", (28 * w, 28 * h))},
    st.integers(1, 3),
    st.integers(1, 3),
)
user = st.builds(
    lambda parts: {"role": "user", "content": parts}, st.lists(st.one_of(text_part, image_part), max_size=4)
)
assistant = st.builds(
    lambda text: {"role": "assistant", "content": [{"type": "text", "text": text}]}, st.text(max_size=12)
)


def test_a_conversation_word_by_word(tokenizer):
    image = Image.new("RGB", (56, 28))
    messages = [
        {"role": "system", "content": "Draw."},
        {
            "role": "user",
            "content": [{"type": "image", "image": image}, {"type": "text", "text": "where?\n"}],
        },
        {"role": "assistant", "content": "<think>A"},
    ]
    encoded = encode_conversation(tokenizer, messages, add_generation_prompt=True)
    assert tokenizer.decode(encoded.ids) == (
        "<|im_start|>system\nDraw.<|im_end|>\n"
        "<|im_start|>user\n<|vision_start|><|image_pad|><|image_pad|><|vision_end|>where?\n<|im_end|>\n"
        "<|im_start|>assistant\n<think>A<|im_end|>\n<|im_start|>assistant\n"
    )
    assert tokenizer.decode(encoded.ids[encoded.loss_mask]) == "<think>A<|im_end|>"
    assert encoded.images == [image] and encoded.ids.dtype == np.int32
    without = encode_conversation(tokenizer, messages[1:])
    assert "You are a helpful assistant." in tokenizer.decode(without.ids)


@settings(max_examples=50)
@given(user, st.lists(st.tuples(assistant, user), max_size=3), assistant)
def test_a_conversation_is_its_prompt_and_its_turns(tokenizer, first, rounds, last):
    pieces = [encode_conversation(tokenizer, [first], add_generation_prompt=True)]
    expected_mask = [np.zeros(len(pieces[0]), bool)]
    messages = [first]
    for said, answer in [*rounds, (last, None)]:
        ids = [*tokenizer.encode(said["content"][0]["text"]), tokenizer.special.im_end]
        mask = np.ones(len(ids), bool)
        pieces.append(type(pieces[0])(np.array(ids, np.int32), mask, [], tokenizer.special))
        expected_mask.append(mask)
        messages.append(said)
        if answer:
            pieces.append(encode_turn(tokenizer, answer, closed=True))
            expected_mask.append(np.zeros(len(pieces[-1]), bool))
            messages.append(answer)
    joined = join(pieces)
    full = encode_conversation(tokenizer, messages)
    np.testing.assert_array_equal(joined.ids, full.ids[:-1])  # the last line break is nobody's
    np.testing.assert_array_equal(joined.loss_mask, full.loss_mask[:-1])
    np.testing.assert_array_equal(np.concatenate(expected_mask), full.loss_mask[:-1])
    assert len(joined.images) == len(full.images)
    assert tokenizer.decode(full.ids[-1:]) == "\n"
    special = tokenizer.special
    assert (full.ids == special.im_end).sum() == len(messages) + 1  # text added none
    assert (full.ids == special.vision_start).sum() == len(full.images)


def test_a_turn_cut_off_at_a_limit_is_closed_without_loss(tokenizer):
    message = {"role": "user", "content": "answer now\n"}
    closed, cut = (encode_turn(tokenizer, message, closed=c) for c in (True, False))
    assert cut.ids.tolist() == [tokenizer.special.im_end, *closed.ids.tolist()]
    assert not cut.loss_mask.any()
    assert tokenizer.decode(closed.ids) == (
        "\n<|im_start|>user\nanswer now\n<|im_end|>\n<|im_start|>assistant\n"
    )


def test_messages_that_do_not_fit_are_refused(tokenizer):
    image = {"type": "image", "image": Image.new("RGB", (28, 28))}
    for messages, words in [
        ([{"role": "tool", "content": "x"}], "role is one of"),
        ([{"role": "user", "content": [{"type": "audio"}]}], "text or image, not 'audio'"),
        ([{"role": "user", "content": "x"}, {"role": "assistant", "content": [image]}], "text only"),
        ([{"role": "user", "content": [{"type": "image", "image": Image.new("RGB", (9, 9))}]}], "multiple"),
    ]:
        with pytest.raises(DataError, match=words):
            encode_conversation(tokenizer, messages)
    with pytest.raises(DataError, match="user message"):
        encode_turn(tokenizer, {"role": "assistant", "content": "x"}, closed=True)
