"""Faults of the published code (arXiv 2506.09965) that this one must not have: what training makes of them.

Those of the drawing and the rewards alone are tests of their own rooms: 3, 4 and 8 in
tests/rewards/test_rewards.py; 5 and 6 in tests/drawing/test_overlay.py; 7 and 11 in
tests/drawing/test_session.py. The rest are here.
"""

import dataclasses

import jax
import numpy as np
import pytest
from PIL import Image

from tests import tiny
from tests.training.test_resume import JOB, bits, scripted_run
from vilasr_jax.config import DataSection, ImageSection, JobConfig, read_config
from vilasr_jax.drawing import DrawingSession, DrawingSettings
from vilasr_jax.errors import ConfigError
from vilasr_jax.processing import Buckets, Encoded, collate, join
from vilasr_jax.rollout import Request, Trajectory
from vilasr_jax.rollout.conversation import Conversation, make_prompt
from vilasr_jax.training.evaluate import settings_of
from vilasr_jax.training.losses import grpo_loss
from vilasr_jax.training.run import open_run
from vilasr_jax.training.trajectory_dataset import trajectory_example

ROOM = Buckets((2048,), (4,), (24,))
BOX = (
    "look at <think> </think> Action: Object Mapper\n```json\n"
    '[{"index": 1, "bbox_2d": [%d, 3, 20, 20], "label": "a"}]\n```'
)
CLIPS = {"clip_low": 0.2, "clip_high": 0.3, "dual_clip": 3.0}
ANSWER = "<think> look at image </think> Action: Answer\n<answer> B </answer>"
END = tiny.tokenizer().special.im_end


def by_letter(text: str) -> list[int]:
    """The text as a model may write it: a token a letter, where the tokenizer would join some."""
    return [i for letter in text for i in tiny.tokenizer().encode(letter)]


def held(words: list[list[int]]) -> tuple[Trajectory, list[Encoded]]:
    """A conversation in which the model wrote these ids, and the pieces that were put before its turns."""
    settings = DrawingSettings(prompt="short")
    session = DrawingSession([Image.new("RGB", (56, 28), "white")], "1", settings=settings)
    prompt = make_prompt(tiny.tokenizer(), session)
    talk = Conversation((0, 0), Request({"id": "r"}, lambda: session, 0), session, prompt, 2048)
    pieces = [prompt.encoded]
    for number, ids in enumerate(words):
        logprobs = -np.arange(1, len(ids) + 1, dtype=np.float32) / 100 - number
        reply, turn = talk.add_turn(tiny.tokenizer(), np.array(ids, np.int32), logprobs)()
        new = talk.add_reply(reply, turn, ROOM)
        pieces += [piece.encoded for piece in new]
    assert talk.stop_reason == "answer"
    return talk.finish(), pieces


@pytest.fixture(scope="module")
def spoken():
    """Two drawings and an answer, letter by letter; the second turn was cut off at its limit."""
    words = [[*by_letter(BOX % 3), END], by_letter(BOX % 9), [*by_letter(ANSWER), END]]
    return words, *held(words)


def test_fault_1_trained_ids_are_the_sampled_ones(spoken, tmp_path):
    """Conversations were decoded and tokenised again, each turn and for training."""
    words, trajectory, _ = spoken
    again = tiny.tokenizer().encode(trajectory.texts[0])
    assert again != words[0][:-1] and tiny.tokenizer().decode(again) == trajectory.texts[0]
    sampled = np.concatenate(words)
    run = scripted_run(JOB, tmp_path)
    stored = Trajectory.from_bytes(trajectory.to_bytes())
    for example in (trajectory_example(trajectory, run.model), trajectory_example(stored, run.model)):
        batch = collate([example], buckets=ROOM)
        np.testing.assert_array_equal(batch.tokens[batch.loss_mask], sampled)


def test_fault_2_every_sampled_token_is_trained_and_no_other(spoken, tmp_path):
    """`<|im_end|>` was masked, so that stopping was never trained."""
    words, trajectory, _ = spoken
    count = len(trajectory.tokens)
    extras = {"logprobs": trajectory.logprobs, "advantages": np.full(count, 0.7, np.float32)}
    batch = collate(
        [trajectory_example(trajectory, scripted_run(JOB, tmp_path).model, **extras)], buckets=ROOM
    )

    def loss(logprobs):
        old, advantages = batch.extras["logprobs"], batch.extras["advantages"]
        return grpo_loss(logprobs, old, advantages, batch.loss_mask, **CLIPS)[0].sum()

    pulled = np.asarray(jax.grad(loss)(batch.extras["logprobs"]))[0, :count]
    sampled = sum(map(len, words))
    np.testing.assert_allclose(pulled[trajectory.loss_mask], -0.7 / sampled, rtol=1e-5)
    assert not pulled[~trajectory.loss_mask].any()
    # Both that the model wrote pull; those of the prompt, the replies and the turn that was cut off do not.
    ends = trajectory.tokens == END
    assert (ends & trajectory.loss_mask).sum() == np.count_nonzero(pulled[ends]) == 2 < ends.sum() - 2


def test_fault_9_only_what_is_new_enters_the_cache(spoken):
    """The full conversation and all its pictures were sent again each turn."""
    words, trajectory, pieces = spoken
    entered = [pieces[0]]
    for ids, piece in zip(words, pieces[1:], strict=False):
        own = Encoded(np.array(ids[:-1], np.int32), np.ones(len(ids) - 1, bool), [], piece.special)
        entered += [own, piece]  # decoding writes a turn's tokens into the cache, all but the last
    last = Encoded(np.array(words[-1], np.int32), np.ones(len(words[-1]), bool), [], pieces[0].special)
    np.testing.assert_array_equal(join([*entered, last]).ids, trajectory.tokens)
    assert [len(piece.images) for piece in pieces] == [1, 1, 1] and len(trajectory.images) == 3


def test_fault_10_one_image_size_and_one_scorer_both_recorded(tmp_path):
    """SFT, RL and evaluation had resolutions and scorers of their own, and did not say so."""
    job = JobConfig(image=ImageSection(784, 84 * 84))
    run = open_run(job, tmp_path, tiny.mesh())
    uses = ("traces", "questions", "reflect_questions", "benchmarks")
    assert {run.tasks.imported.pixels(use) for use in uses} == {(784, 84 * 84)}
    settings = settings_of(job, run.model.prompts, "benchmarks")
    assert (settings["min_pixels"], settings["max_pixels"]) == (784, 84 * 84)
    other = dataclasses.replace(job, data=DataSection(benchmarks_pixels=28 * 28))
    assert settings_of(other, run.model.prompts, "benchmarks")["max_pixels"] == 28 * 28


def test_fault_12_each_stage_starts_from_the_one_before(tmp_path):
    """Stage 2 started from the base model, and learnt from one of its four sets."""
    run = scripted_run(JOB, tmp_path)
    with pytest.raises(ConfigError, match=r"reflect starts from cold_start.* `vilasr sft` first"):
        run.stages.start_params("reflect")
    for before, after, seed in (("cold_start", "reflect", 1), ("reflect", "rl", 2)):
        learnt = tiny.place(tiny.params(seed), tiny.mesh())
        with run.stages[before].store as store:
            store.save(getattr(JOB, before).steps, {"params": learnt})
        assert bits(run.stages.start_params(after)) == bits(learnt)
    published = read_config("configs/vilasr.py:7b,v5e-32").reflect
    assert (published.questions, published.kept_fraction) == (16_000, 1.0)
