"""Replies that are larger than the engine's insert buckets enter the cache in pieces."""

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests import tiny
from vilasr_jax.config import EngineSection
from vilasr_jax.drawing import Reply
from vilasr_jax.errors import DataError
from vilasr_jax.processing import Buckets, encode_turn
from vilasr_jax.rollout import Engine
from vilasr_jax.rollout.batch import Incoming


def incoming(seed: int, images: int, words: int, start: int = 5) -> Incoming:
    rng = random.Random(seed)
    content = [{"type": "text", "text": "".join(rng.choices("abc 12", k=words))}]
    for _ in range(images):
        place = rng.randint(0, len(content))
        content.insert(place, {"type": "image", "image": tiny.picture(rng)})
    return Incoming(encode_turn(tiny.tokenizer(), {"role": "user", "content": content}, closed=True), start)


@given(
    st.integers(0, 2**32 - 1), st.integers(0, 6), st.integers(1, 90), st.integers(6, 40), st.integers(1, 3)
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_pieces_join_to_the_reply_and_fit_the_buckets(seed, images, words, tokens, most):
    new = incoming(seed, images, words)
    pieces = new.pieces(Buckets((tokens,), (most,), tiny.PATCHES))
    assert all(0 < len(p.encoded.ids) <= tokens and len(p.encoded.images) <= most for p in pieces)
    assert np.array_equal(np.concatenate([p.encoded.ids for p in pieces]), new.encoded.ids)
    assert np.array_equal(np.concatenate([p.positions for p in pieces], axis=1), new.positions)
    assert pieces[-1].next_position == new.next_position
    held = [image for p in pieces for image in p.encoded.images]
    assert [id(image) for image in held] == [id(image) for image in new.encoded.images]
    if len(new.encoded.ids) <= tokens and images <= most:
        assert len(pieces) == 1


def test_an_image_larger_than_the_buckets_is_refused():
    picture = {"type": "image", "image": Image.new("RGB", (84, 56))}
    new = Incoming(encode_turn(tiny.tokenizer(), {"role": "user", "content": [picture]}, closed=True), 0)
    for buckets in (Buckets((5,), (1,), (24,)), Buckets((32,), (1,), (20,)), Buckets((32,), (0,), (24,))):
        with pytest.raises(DataError, match="24 patches"):
            new.pieces(buckets)


class Album(tiny.ScriptedSession):
    """Answers with up to three pictures and text at once."""

    def step(self, text, *, truncated=False):
        reply = super().step(text, truncated=truncated)
        if reply.done:
            return reply
        content = list(reply.message["content"])
        for _ in range(self.rng.randint(0, 2)):
            self.images.append(tiny.picture(self.rng))
            content += [self._image(), {"type": "text", "text": "12" * self.rng.randint(1, 6)}]
            self.events[-1]["drawn"].append(len(self.images))
        return Reply({"role": "user", "content": content}, False, None, 1, None)


def album_engine(insert_tokens: tuple[int, ...], insert_images: tuple[int, ...]) -> Engine:
    section = EngineSection(
        slots=6,
        decode_steps=5,
        stop_fraction=0.5,
        prompt_tokens=(40,),
        insert_tokens=insert_tokens,
        insert_images=insert_images,
    )
    return Engine(
        tiny.config(),
        tiny.graphdef(),
        tiny.tokenizer(),
        tiny.suppressed(),
        engine=section,
        sampling=tiny.SAMPLING,
        patches=tiny.PATCHES,
        mesh=tiny.mesh(),
    )


@pytest.mark.slow
def test_pieces_give_the_same_conversations_as_one_insert():
    questions = tiny.requests(9, session=Album)
    large = tiny.generate(album_engine((96,), (3,)), questions)
    small = tiny.generate(album_engine((11,), (1,)), questions)
    assert max(turn["drawn"].__len__() for t in large for turn in t.turns) == 3
    for a, b in zip(large, small, strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens)
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)
        assert a.stop_reason == b.stop_reason != "insert_limit" and a.images_read == b.images_read
