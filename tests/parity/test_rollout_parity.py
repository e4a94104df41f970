"""Greedy conversations with drawn images: the live cache against transformers, turn by turn."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests import tiny  # noqa: E402
from vilasr_jax.checkpoint import export_hf  # noqa: E402
from vilasr_jax.processing import patchify  # noqa: E402


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf") / "model"
    export_hf(tiny.params(), tiny.config(), folder, tokenizer=tiny.tokenizer())
    torch.set_num_threads(1)
    loader = transformers.AutoModelForImageTextToText
    return loader.from_pretrained(folder, attn_implementation="eager").eval()


def sampled_runs(trajectory):
    edges = np.flatnonzero(np.diff(np.r_[False, trajectory.loss_mask, False].astype(int)))
    return edges.reshape(-1, 2).tolist()


def their_turn(model, prefix: np.ndarray, images, most: int = tiny.GREEDY.max_tokens) -> list[int]:
    """What transformers writes after all that was said so far, read anew."""
    special = tiny.tokenizer().special
    inputs = {}
    if images:
        read = [patchify(image) for image in images]
        inputs["pixel_values"] = torch.tensor(np.concatenate([patches for patches, _ in read]))
        inputs["image_grid_thw"] = torch.tensor([grid for _, grid in read])
    ids = torch.tensor(prefix[None].astype(np.int64))
    with torch.no_grad():
        out = model.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == special.image_pad).long(),
            do_sample=False,
            max_new_tokens=min(tiny.GREEDY.max_turn_tokens, most - len(prefix)),
            suppress_tokens=np.flatnonzero(tiny.suppressed()).tolist(),
            eos_token_id=[special.im_end, special.endoftext],
            pad_token_id=special.endoftext,
            **inputs,
        )
    return out[0, len(prefix) :].tolist()


def test_greedy_conversations_equal_transformers(exported):
    special = tiny.tokenizer().special
    trajectories = tiny.generate(tiny.engine(2, 2, sampling=tiny.GREEDY), tiny.requests(10))
    turns, with_images = 0, 0
    for t in trajectories:
        for begin, end in sampled_runs(t):
            prefix = t.tokens[:begin]
            images = t.images[: int((prefix == special.vision_start).sum())]
            assert their_turn(exported, prefix, images) == t.tokens[begin:end].tolist(), (t.id, begin)
            turns, with_images = turns + 1, with_images + (len(images) > 1)
    assert turns >= 16 and with_images >= 6
    assert len({tuple(t.tokens[t.loss_mask]) for t in trajectories}) >= 6


@pytest.mark.slow
def test_six_turns_of_32_rows_equal_transformers_on_any_devices(exported):
    special, longer = tiny.tokenizer().special, dataclasses.replace(tiny.GREEDY, max_tokens=330)
    asked = tiny.requests(32, session=lambda seed: tiny.ScriptedSession(seed, turns=6))
    trajectories = tiny.generate(tiny.engine(6, 2, 1, longer), asked)
    for devices in (2, 8):
        again = tiny.generate(tiny.engine(2 * devices, 2, devices, longer), asked)
        assert [t.tokens.tolist() for t in again] == [t.tokens.tolist() for t in trajectories]
    for t in trajectories:
        runs = sampled_runs(t)
        assert len(runs) == 6
        for begin, end in runs:
            prefix = t.tokens[:begin]
            images = t.images[: int((prefix == special.vision_start).sum())]
            assert their_turn(exported, prefix, images, 330) == t.tokens[begin:end].tolist(), (t.id, begin)
