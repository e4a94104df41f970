"""The published configs parse, and their steps lower at full size without a weight."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from tests import tiny
from vilasr_jax.config import check_section, read_config
from vilasr_jax.drawing import DrawingSession, DrawingSettings
from vilasr_jax.models import family_of
from vilasr_jax.models import preset as model_preset
from vilasr_jax.parallel import make_mesh
from vilasr_jax.plan.run import with_keys
from vilasr_jax.plan.steps import Steps
from vilasr_jax.processing import Buckets, encode_conversation
from vilasr_jax.rollout import Request
from vilasr_jax.rollout.batch import Incoming
from vilasr_jax.rollout.conversation import Conversation
from vilasr_jax.training.memory import StageMemory

CONFIGS = Path(__file__).parents[2] / "configs"
NAMES = (
    "vilasr.py:7b,v5e-32,cold_start",
    "vilasr.py:7b,v5e-32",
    "vilasr.py:3b,v5e-8,cold_start",
    "vilasr.py:3b,v5e-8",
)


def read(name):
    return read_config(CONFIGS / name)


@pytest.mark.parametrize("name", NAMES)
def test_configs_parse_and_are_consistent(name):
    job = read(name)
    check_section(job)
    shards = job.mesh.fsdp
    assert job.cold_start.batch % (shards * job.cold_start.accumulate) == 0
    assert job.rl.micro_batch % shards == 0 and job.engine.slots % (2 * shards) == 0
    assert job.rl.sampling.max_tokens <= job.buckets.tokens[-1]
    assert job.drawing.max_images <= job.buckets.images[-1]
    assert job.packing.tokens >= job.rl.sampling.max_tokens  # a row of its own for the longest conversation
    assert job.packing.vision_rows >= job.drawing.max_images


@pytest.mark.parametrize(
    "name, limit, preset",
    [
        ("lora_7b.py", 15.75, ""),
        ("lora_7b.py", 15.75, "qwen3vl_8b"),
        ("lora_7b.py:gpu", 24, ""),
        ("sft_3b_gpu.py", 80, ""),
    ],
)
def test_a_single_device_holds_what_is_trained(name, limit, preset):
    """The account that the run prints, and the gradients, leave room for activations."""
    changes = {"model.preset": preset, "image.max_pixels": 256 * 32**2} if preset else {}
    job = read_config(CONFIGS / name, changes)
    check_section(job)
    side = family_of(model_preset(job.model.preset)).images.patch_size
    assert job.image.max_pixels // side**2 <= job.packing.patches  # the largest picture is in a vision row
    steps = Steps(job, make_mesh(job.mesh, jax.devices()[:1]))
    memory = StageMemory(job, steps.config, steps.params, steps.mesh, int(limit * 2**30))
    (account,) = memory.accounts(("cold_start",))
    gradients = 2 * account.parts["trained weights"]  # of a part of the batch, and their sum
    assert account.total + gradients < (0.8 if "sft" in name else 0.6) * account.limit, str(account)
    assert job.cold_start.batch == job.cold_start.accumulate  # a packed row at a time


def test_the_published_values():
    job = read("vilasr.py:7b,v5e-32,rl")
    assert (job.stages, job.rl.group, job.rl.prompts, job.rl.updates) == (("rl",), 8, 32, 2)
    assert (job.rl.clip_low, job.rl.clip_high, job.rl.dual_clip, job.rl.kl_weight) == (0.2, 0.3, 3.0, 0.0)
    assert job.rl.optimizer.learning_rate == 1e-6 and job.rl.optimizer.freeze == ()
    assert job.rl.sampling.max_tokens == 5120 + 13312 and job.rl.sampling.max_turn_tokens == 1024
    sft = job.cold_start
    row = job.packing.tokens // 32 * sft.batch  # of 32 conversations a step, if they have this many tokens
    assert (row, sft.epochs, sft.optimizer.learning_rate) == (4608, 3.0, 1e-5)
    assert sft.optimizer.freeze == ("vision", "merger") and sft.optimizer.warmup_fraction == 0.1
    assert (sft.loss, job.reflect.loss) == ("conversation_mean",) * 2
    assert (job.drawing.max_turns, job.drawing.maze_turns, job.drawing.style) == (10, 20, "published")
    assert (job.rl.old_logprobs, job.rl.importance_cap, job.rl.epochs) == ("trained", 0.0, 1.0)
    assert [s.optimizer.spike for s in (sft, job.reflect, job.rl)] == [0.0] * 3
    assert job.data.frames == 16 and job.data.traces and job.data.reflect_traces and job.data.questions
    assert job.tasks == ()  # nothing is trained on toy tasks


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_two_frames_boxed_in_one_turn_go_on(path):
    job = read(path.name)
    side = 28 * int((job.image.max_pixels / 28**2) ** 0.5)
    frames = [Image.new("RGB", (side, side), "white") for _ in range(2)]
    session = DrawingSession(frames, "?", settings=DrawingSettings(style=job.drawing.style))
    boxes = json.dumps([{"index": n, "bbox_2d": [2, 3, 20, 20], "label": "a"} for n in (1, 2)])
    text = f"<think> . </think> Action: Object Mapper\n```json\n{boxes}\n```"
    opening = encode_conversation(tiny.tokenizer(), session.messages, add_generation_prompt=True)
    talk = Conversation((0, 0), Request({"id": "row"}, None, 0), session, Incoming(opening, 0), 1 << 20)
    written = np.array([*tiny.tokenizer().encode(text), tiny.tokenizer().special.im_end], np.int32)
    reply, turn = talk.add_turn(tiny.tokenizer(), written, np.zeros(len(written), np.float32))()
    engine = job.engine
    buckets = Buckets(engine.insert_tokens, engine.insert_images, job.buckets.patches)
    assert reply.drawn == 2 and talk.add_reply(reply, turn, buckets) and talk.stop_reason is None
    assert talk.images_read == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_steps_lower_at_full_size(name):
    job, devices = read(name), jax.devices()
    job = with_keys(
        job,
        {
            "model.attention": "splash_interpret",
            "mesh.data": 1,
            "mesh.fsdp": len(devices) // job.mesh.model,
            "packing.tokens": 0,
            "buckets.tokens": job.buckets.tokens[:1],
            "buckets.images": (2,),
            "buckets.patches": (1024,),
        },
    )
    steps = Steps(job, make_mesh(job.mesh, devices))
    step = steps.build("grpo_grad" if "rl" in job.stages else "sft")
    text = step.function.lower(*step.arguments).as_text()
    assert f"{steps.config.vocab_size}x{steps.config.hidden_size}" in text
    if "rl" in job.stages:
        step = steps.build("grpo_apply")
        step.function.lower(*step.arguments)
    else:
        state = step.arguments[0]
        assert not jax.tree.leaves(state.params["visual"] if "visual" in state.params else {})
