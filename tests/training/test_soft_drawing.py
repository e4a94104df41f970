"""The soft drawing term: which tokens it finds, what it reads from them, and which way it pulls."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

from tests import tiny
from vilasr_jax.config import OptimizerSection, SoftDrawingSection, check_section
from vilasr_jax.errors import ConfigError, TokenizerError
from vilasr_jax.processing import Buckets, collate, encode_conversation, join, train_tiny_tokenizer
from vilasr_jax.training.soft_drawing import Numbers, SoftDrawing
from vilasr_jax.training.state import init_state
from vilasr_jax.training.steps import make_sft_step

BUCKETS = Buckets((320, 640), (4,), (24,))
SECTION = SoftDrawingSection(weight=0.5, annotations=5)
NUMBERS = train_tiny_tokenizer(["14 42 70 5 index bbox"], [], 320)  # numbers are single tokens
DIGITS = tiny.tokenizer()  # and here digit by digit
LINE = '{"index": 1, "start_point_2d": [14, 42], "end_point_2d": [42, 70], "label": "1"}'
BOX = '{"index": 2, "bbox_2d": [5, 14, 42, 70], "label": "a"}'


def example(tokenizer, *items, size=(56, 84), count=2):
    image = {"type": "image", "image": Image.new("RGB", size, "white")}
    text = f"<think> [1, 2] {LINE} </think> Action: Path Tracer\n```json\n[{', '.join(items)}]\n```"
    messages = [
        {"role": "system", "content": "look"},
        {"role": "user", "content": [image] * count},
        {"role": "assistant", "content": text},
    ]
    return encode_conversation(tokenizer, messages)


def marked(tokenizer, *items, **changes):
    return SoftDrawing(SECTION, tokenizer).mark(example(tokenizer, *items, **changes))


def coordinates(e):
    """What the marks say, in canvas pixels: a (corner sign, four numbers) an annotation."""
    number, found = np.cumsum(e.extras["annotation"]), []
    for k in range(1, number[-1] + 1):
        here = (number == k) & (e.extras["corner"] != 0)
        corner = e.extras["corner"][here]
        sums = [e.extras["target"][here][np.abs(corner) == c].sum() for c in (1, 2, 3, 4)]
        found.append((int(np.sign(corner[0])), sums))
    return found


@pytest.mark.parametrize("tokenizer", [NUMBERS, DIGITS])
def test_marks_hold_the_drawings_coordinates(tokenizer):
    scale = 32 / 84
    (sign, line), (other, box) = coordinates(marked(tokenizer, LINE, BOX))
    assert (sign, other) == (-1, 1)  # and what is in the think is not drawn
    np.testing.assert_allclose(line, np.array([14, 42, 42, 70]) * scale, rtol=1e-6)
    np.testing.assert_allclose(box, np.array([5, 14, 42, 70]) * scale, rtol=1e-6)
    one = marked(tokenizer, BOX.replace("14", "14.25").replace("[5", "[-5"), size=(84, 28))
    ((_, box),) = coordinates(one)
    np.testing.assert_allclose(box, np.array([-5, 14.25, 42, 70]) * scale, rtol=1e-6)


@pytest.mark.parametrize(
    "item",
    [
        LINE.replace("1,", "9,", 1),  # no such image
        '{"index": 1, "bbox_2d": [1, 2, 3], "label": "a"}',
        '{"index": 1, "label": "a"}',
        "[1, 2]",
    ],
)
def test_what_is_no_drawing_is_not_marked(item):
    e = marked(DIGITS, item)
    assert not e.extras["annotation"].any() and not e.extras["corner"].any()


def logits_for(e, tokenizer, sharpness=40.0):
    """Logits [1, t, v] of a model that is nearly sure of every token that comes."""
    batch = collate([e], buckets=BUCKETS)
    return batch, sharpness * jax.nn.one_hot(batch.tokens, tokenizer.vocab_size)


def term(soft, logits, batch):
    """The weighted loss and the metrics."""
    return jax.jit(lambda logits, batch: soft.loss(soft.read(logits), batch))(logits, batch)


@pytest.mark.parametrize("tokenizer", [NUMBERS, DIGITS])
def test_a_right_drawing_costs_nothing(tokenizer):
    soft = SoftDrawing(SECTION, tokenizer)
    batch, logits = logits_for(marked(tokenizer, LINE, BOX), tokenizer)
    loss, metrics = term(soft, logits, batch)
    assert float(metrics["soft_iou"]) == pytest.approx(1, abs=1e-4) and float(loss) < 1e-4
    empty, logits = logits_for(marked(tokenizer, "7"), tokenizer)
    assert float(term(soft, logits, empty)[0]) == 0


@pytest.mark.parametrize("tokenizer", [NUMBERS, DIGITS])
def test_gradient_pulls_numbers_towards_the_target(tokenizer):
    """d loss / d logit is -weight dJ/dc p (v - c), and agrees with finite differences."""
    soft = SoftDrawing(SECTION, tokenizer)
    batch, logits = logits_for(marked(tokenizer, BOX), tokenizer, sharpness=3.0)

    @jax.jit
    def loss(logits):
        return soft.loss(soft.read(logits), batch)[0]

    gradient = jax.jit(jax.grad(loss))(logits)
    last = np.flatnonzero(batch.extras["corner"][0] == 3)[0]  # x2 = 42, or its first digit
    numbers = soft.numbers
    ids = numbers.digits if batch.extras["digit"][0, last] else numbers.ids
    values = np.arange(10) if batch.extras["digit"][0, last] else numbers.values
    p = jax.nn.softmax(logits[0, last, ids])
    centred = p * (values - p @ values)
    slopes = gradient[0, last, ids]
    np.testing.assert_allclose(slopes, centred * (slopes @ centred) / (centred @ centred), atol=1e-6)
    for at in ids[:4]:
        nudge = jnp.zeros_like(logits).at[0, last, at].set(0.05)
        slope = (loss(logits + nudge) - loss(logits - nudge)) / 0.1
        assert abs(float(gradient[0, last, at] - slope)) < 1e-3 * max(float(jnp.abs(slopes).max()), 1e-2)
    stepped = logits - 30 * gradient
    assert float(loss(stepped)) < float(loss(logits))
    assert not np.asarray(gradient[:, batch.extras["corner"][0] == 0]).any()


def test_rows_of_several_conversations_count_every_annotation():
    """Packed conversations have annotations of their own; those beyond the limit are left out."""
    soft = SoftDrawing(SECTION, DIGITS)
    first, second = marked(DIGITS, LINE, BOX), marked(DIGITS, BOX)
    packed = collate([join([first, second])], buckets=BUCKETS)
    rows = collate([first, second], buckets=BUCKETS)

    def overlap(batch):
        rng = np.random.default_rng(0)  # the same wrong logits for the same token
        table = jnp.asarray(rng.normal(size=(DIGITS.vocab_size, DIGITS.vocab_size)), jnp.float32)
        return float(term(soft, table[batch.tokens], batch)[1]["soft_iou"])

    assert 0 < overlap(rows) < 0.9
    assert overlap(packed) == pytest.approx(overlap(rows), rel=1e-5)
    many = collate([marked(DIGITS, *[BOX] * 8)], buckets=BUCKETS)
    assert np.isfinite(overlap(many))


def test_the_step_lowers_both_losses():
    soft = SoftDrawing(dataclasses.replace(SECTION, canvas=13), DIGITS)
    batch = collate([marked(DIGITS, LINE), marked(DIGITS, BOX)], buckets=BUCKETS)
    optimizer = optax.adam(3e-3)
    step = make_sft_step(tiny.graphdef(), optimizer, soft=soft)
    state = init_state(tiny.params(), optimizer, tiny.mesh(), OptimizerSection())
    values = []
    for _ in range(12):
        state, metrics = step(state, batch)
        values.append({name: float(total / count) for name, (total, count) in metrics.items()})
    assert values[-1]["loss"] < values[0]["loss"] and values[-1]["soft_iou"] > values[0]["soft_iou"]


def test_a_vocabulary_without_digits_is_refused():
    class NoDigits:
        vocab_size = 2

        def decode(self, ids):
            return "ab"[ids[0]]

    with pytest.raises(TokenizerError, match="'0' has none"):
        Numbers.of(NoDigits())


def test_settings_that_make_no_picture_are_refused():
    check_section(SoftDrawingSection(), "config.soft_drawing")
    for key, value in (("weight", -0.1), ("canvas", 7), ("softness", 0.0), ("annotations", 0)):
        with pytest.raises(ConfigError, match=f"soft_drawing.{key}={value}"):
            check_section(dataclasses.replace(SECTION, **{key: value}), "config.soft_drawing")
