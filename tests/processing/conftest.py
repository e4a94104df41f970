"""A tiny tokenizer for the tests of this folder."""

import pytest

from vilasr_jax.processing import train_tiny_tokenizer


@pytest.fixture(scope="session")
def tokenizer():
    phrases = ("<think>", "</think>", "A", "The path begins at ")
    return train_tiny_tokenizer(["<think>The path begins at 14, 42</think> the maze"], phrases, 400)
