"""A maze conversation in the tiny tokenizer: few tokens, and one token for a thing wherever it is."""

import random

from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.processing import encode_conversation, train_tiny_tokenizer
from vilasr_jax.tasks import replay
from vilasr_jax.tasks.maze import (
    KINDS,
    MazeSpec,
    corpus,
    expert_trace,
    make_maze_row,
    perception_example,
    template_phrases,
)
from vilasr_jax.tasks.tokenizer_phrases import message_texts

SETTINGS = DrawingSettings(style="maze", prompt="short", max_turns=20)
SPEC = MazeSpec(grid=5, moves=(5, 5))


def test_few_tokens():
    tokenizer = train_tiny_tokenizer(corpus(SPEC, SETTINGS), template_phrases(SETTINGS), 1024)
    for seed in range(20):
        row = make_maze_row(SPEC, seed)
        messages = replay(expert_trace(row, random.Random(seed)), SETTINGS)
        counts = [[len(tokenizer.encode(text)) for text in message_texts([message])] for message in messages]
        said = counts[2::2]
        assert all(count <= 18 + 3 * row.meta["blocked_moves"] for (count,) in said)
        assert said[-1][0] <= 7 + 3 * row.meta["blocked_moves"]
        assert counts[0] == [4] and all(count <= 3 for (count,) in counts[3::2])
        ids = tokenizer.encode(next(message_texts([messages[-1]])))
        letter = tokenizer.encode(row.answer)
        assert len(letter) == 1 and ids.count(letter[0]) == 2
        assert len(encode_conversation(tokenizer, messages, add_generation_prompt=False).ids) < 400


def test_perception_has_the_tokens_of_traces():
    tokenizer = train_tiny_tokenizer(corpus(SPEC, SETTINGS), template_phrases(SETTINGS), 1024)
    traces = set()
    for seed in range(40):
        messages = replay(expert_trace(make_maze_row(SPEC, seed), random.Random(seed), slip=True), SETTINGS)
        traces |= {token for text in message_texts(messages[1:]) for token in tokenizer.encode(text)}
    extra = set()
    for kind in KINDS:
        for seed in range(40):
            messages = perception_example(SPEC, seed, SETTINGS, (kind,))
            extra |= {
                token for text in message_texts(messages[1:]) for token in tokenizer.encode(text)
            } - traces
    assert len(extra) <= 12, [tokenizer.decode([token]) for token in extra]
