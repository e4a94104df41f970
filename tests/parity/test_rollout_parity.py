"""Greedy conversations with drawn images: the live cache against transformers, turn by turn."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests import tiny  # noqa: E402
from vilasr_jax.checkpoint import export_hf  # noqa: E402
from vilasr_jax.models import by_model_type, preset  # noqa: E402
from vilasr_jax.models.params import abstract  # noqa: E402
from vilasr_jax.processing import patchify, train_tiny_tokenizer  # noqa: E402


@pytest.fixture(scope="module", params=["qwen2_5_vl", "qwen3_vl"])
def exported(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("hf") / "model"
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "qwen3_vl":
            use_qwen3(patch)
        yield load(folder)


def use_qwen3(patch):
    """`tiny` with a model of the other family."""
    words = ["look at image 1, then 2"]
    tokenizer = train_tiny_tokenizer(words, ["look at"], 300, by_model_type("qwen3_vl"))
    config = preset(
        "qwen3vl_tiny",
        vocab_size=-(-tokenizer.vocab_size // 8) * 8,
        hidden_size=42,
        intermediate_size=37,
        num_layers=3,
        num_heads=3,
        num_kv_heads=1,
        head_dim=14,
        mrope_section=(3, 2, 2),
        **tokenizer.special.config_fields(),
        vision={
            "depth": 3,
            "hidden_size": 24,
            "intermediate_size": 29,
            "position_side": 5,
            "deepstack_block_indexes": (0, 1),
        },
        init_std=0.3,
        scan_unroll=3,
    )
    graphdef, shapes = abstract(config)
    rng = np.random.default_rng(0)

    def weight(path, leaf):
        return ("norm" in jax.tree_util.keystr(path)) + rng.normal(0, 0.3, leaf.shape).astype(np.float32)

    params = jax.tree_util.tree_map_with_path(weight, shapes)
    patch.setattr(tiny, "SIZES", ((32, 32), (64, 32), (96, 64), (32, 96)))
    for name, value in dict(tokenizer=tokenizer, config=config, graphdef=graphdef).items():
        patch.setattr(tiny, name, lambda value=value: value)
    patch.setattr(tiny, "params", lambda seed=0: params)
    for name in ("suppressed", "engine"):  # what they remember is of the first model
        patch.setattr(tiny, name, functools.cache(getattr(tiny, name).__wrapped__))


def load(folder):
    """What transformers reads from our export of `tiny`'s model."""
    export_hf(tiny.params(), tiny.config(), folder, tokenizer=tiny.tokenizer())
    torch.set_num_threads(1)
    loader = transformers.AutoModelForImageTextToText
    return loader.from_pretrained(folder, attn_implementation="eager").eval()


def sampled_runs(trajectory):
    edges = np.flatnonzero(np.diff(np.r_[False, trajectory.loss_mask, False].astype(int)))
    return edges.reshape(-1, 2).tolist()


def their_turn(model, prefix: np.ndarray, images, most: int = tiny.GREEDY.max_tokens) -> list[int]:
    """What transformers writes after the conversation so far, without a cache."""
    special = tiny.tokenizer().special
    inputs = {}
    if images:
        read = [patchify(image, spec=special.family.images) for image in images]
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
    questions = tiny.requests(32, session=lambda seed: tiny.ScriptedSession(seed, turns=6))
    trajectories = tiny.generate(tiny.engine(6, 2, 1, longer), questions)
    for devices in (2, 8):
        again = tiny.generate(tiny.engine(2 * devices, 2, devices, longer), questions)
        assert [t.tokens.tolist() for t in again] == [t.tokens.tolist() for t in trajectories]
    for t in trajectories:
        runs = sampled_runs(t)
        assert len(runs) == 6
        for begin, end in runs:
            prefix = t.tokens[:begin]
            images = t.images[: int((prefix == special.vision_start).sum())]
            assert their_turn(exported, prefix, images, 330) == t.tokens[begin:end].tolist(), (t.id, begin)
