import numpy as np

from tests import tiny
from vilasr_jax.config import JobConfig
from vilasr_jax.drawing.prompts import PROMPTS
from vilasr_jax.inspection import attention_maps, attention_weights, least_sure, token_logprobs, turn_spans
from vilasr_jax.report.figure import conversation_figure
from vilasr_jax.trained_model import TrainedModel


def model_and_conversation():
    words = PROMPTS["vilasr_jax"]
    model = TrainedModel(JobConfig(), tiny.config(), tiny.tokenizer(), words, tiny.params())
    sampled = tiny.generate(tiny.engine(), tiny.requests(4))
    return model, max(sampled, key=lambda trajectory: trajectory.images_read)


def test_attention_and_logprobs_of_a_conversation():
    model, trajectory = model_and_conversation()
    t = len(trajectory.tokens)
    weights = attention_weights(model, trajectory)
    assert weights.shape == (model.config.num_layers, model.config.num_heads, t, t)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    assert np.triu(weights, 1).max() == 0  # nobody looks ahead
    spans = turn_spans(trajectory)
    assert len(spans) == len(trajectory.turns)
    assert sum(end - start for start, end in spans) == trajectory.loss_mask.sum()
    maps = attention_maps(model, trajectory, len(spans))
    assert len(maps) == trajectory.images_read and 0 < sum(m.sum() for m in maps) < 1
    width, height = trajectory.images[0].size
    assert maps[0].shape == (height // 28, width // 28)
    tokens = token_logprobs(model, trajectory)
    assert [token.logprob for token in tokens] == list(map(float, trajectory.logprobs[trajectory.loss_mask]))
    assert least_sure(model, trajectory, 2)[0].logprob == min(token.logprob for token in tokens)
    assert len(conversation_figure(trajectory).axes) == trajectory.base_images + len(trajectory.turns)
