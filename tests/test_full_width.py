"""The road of published weights at their widths and vocabulary, cut in depth: what a person does with them.

`narrow` is the same road with a small model; `3b` needs 8 GiB and some minutes.
"""

import dataclasses
import itertools
import json
import random

import jax
import numpy as np
import pytest
from flax import nnx

from tests import tiny
from tests.test_conversation_settings import draw_each_turn
from tests.test_open_checkpoint import call
from vilasr_jax.bench.real import write_folder
from vilasr_jax.checkpoint.hf_config import preprocessor_config
from vilasr_jax.config import (
    BucketSection,
    ColdStartSection,
    DrawingSection,
    EngineSection,
    EvalSection,
    ImageSection,
    JobConfig,
    MazeSection,
    MeshSection,
    ModelSection,
    OptimizerSection,
    RLSection,
    SamplingSection,
)
from vilasr_jax.conversation_settings import exported_settings
from vilasr_jax.drawing.prompts import PROMPTS
from vilasr_jax.files import write_json
from vilasr_jax.job import begin, train
from vilasr_jax.models import preset
from vilasr_jax.models.params import abstract
from vilasr_jax.processing import Buckets, Encoded, collate, patchify, train_tiny_tokenizer
from vilasr_jax.rewards.registry import _REWARDS
from vilasr_jax.sampler import Sampler
from vilasr_jax.solve import solve
from vilasr_jax.trained_model import open_model

pytestmark = pytest.mark.slow

SIZES = {
    "narrow": ("tiny", {"num_layers": 2, "vocab_size": 640}),
    "3b": ("3b", {"num_layers": 4, "vision": {"depth": 2, "fullatt_block_indexes": (1,)}}),
}
SAMPLING = SamplingSection(0.0, max_turn_tokens=8, max_tokens=768)
JOB = JobConfig(
    name="full width",
    tasks=("maze",),
    model=ModelSection(param_dtype="bfloat16"),
    image=ImageSection(max_pixels=84 * 84),
    buckets=BucketSection(tokens=(1024,), images=(8,), patches=(36,)),
    drawing=DrawingSection(prompt="short", style="maze", max_turns=3, maze_turns=3, max_images=4),
    maze=MazeSection(grid=3, min_moves=2, max_moves=3, ood_grid=3),
    mesh=MeshSection(data=1, fsdp=4, model=2),
    engine=EngineSection(slots=4, lanes=1, prompt_tokens=(512,), insert_tokens=(256,)),
    eval=EvalSection(sampling=SAMPLING),
)


@pytest.fixture(scope="module", params=SIZES)
def home(request, tmp_path_factory):
    """A folder as it is downloaded, `hf`, and `orbax`."""
    name, fields = SIZES[request.param]
    home = tmp_path_factory.mktemp(request.param)
    tokenizer = train_tiny_tokenizer(["Where is the end of the line in the image?"], [], 500)
    config = preset(name, param_dtype="bfloat16", **tokenizer.special.config_fields(), **fields)
    write_folder(config, tokenizer, home / "hf")
    settings = exported_settings(JOB, PROMPTS["short"])
    pixels = preprocessor_config(config, JOB.image.min_pixels, JOB.image.max_pixels)
    for file, values in {**settings, "preprocessor_config.json": pixels}.items():
        write_json(home / "hf" / file, values)
    assert call("convert", "from-hf", home / "hf", home / "orbax") == 0
    return home


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("picture") / "maze.png"
    tiny.picture(random.Random(1)).resize((84, 84)).save(path)
    return path


def test_greedy_tokens_are_the_same_from_each_way(home, picture, tmp_path, monkeypatch):
    """A downloaded folder, its Orbax folder, a run started from that, and the run's export; turn by turn."""
    draw_each_turn(monkeypatch)
    model = dataclasses.replace(JOB.model, init_from=str(home / "orbax"))
    job = dataclasses.replace(JOB, stages=("rl",), model=model, rl=RLSection(steps=1, sampling=RL.sampling))
    run, _ = begin(job, tmp_path / "next", tiny.mesh())
    stage = run.stages["rl"]
    stage.save(1, {"params": run.stages.start_params("rl")}, wait=True)
    stage.close()
    del run
    assert call("convert", "to-hf", tmp_path / "next", tmp_path / "exported") == 0
    found = []
    for place in (home / "hf", home / "orbax", tmp_path / "next", tmp_path / "exported"):
        sampler = Sampler(place, slots=1, weights="f32", max_tokens=SAMPLING.max_tokens)
        found.append(sampler.sample(picture, "Where does it end?")[0])
    first = found[0]
    assert len(first.turns) == 3 and len(first.images) > 2  # it drew
    for other in found[1:]:
        assert [turn["text"] for turn in other.turns] == [turn["text"] for turn in first.turns]
        np.testing.assert_array_equal(other.tokens, first.tokens)


LORA = OptimizerSection(learning_rate=1e-2, schedule="constant", warmup_fraction=0, lora_rank=4)
RL = RLSection(
    steps=1,
    prompts=1,
    group=4,
    updates=1,
    micro_batch=4,
    sampling=dataclasses.replace(SAMPLING, temperature=1.0),
    optimizer=LORA,
)


def metrics(workdir, stage):
    lines = (workdir / stage / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_from_a_download_to_an_export(home, picture, tmp_path, monkeypatch):
    """Convert, supervised steps with LoRA, solve, a step of RL, export; transformers reads the export."""
    job = dataclasses.replace(
        JOB,
        stages=("cold_start",),
        model=dataclasses.replace(JOB.model, init_from=str(home / "orbax"), remat="full"),
        cold_start=ColdStartSection(traces=4, steps=4, batch=4, save_every=2, optimizer=LORA),
        rl=RL,
    )
    train(job, tmp_path / "run")
    supervised = metrics(tmp_path / "run", "cold_start")
    assert supervised[-1]["loss"] < supervised[0]["loss"]

    draw_each_turn(monkeypatch)
    solved = solve([str(picture)], "Where?", home / "orbax", tmp_path / "out", weights="f32", max_tokens=768)
    assert len(solved.turns) == 3 and (tmp_path / "out" / "image_2.png").exists()
    right = itertools.cycle((0.0, 1.0))  # every second one: the answers of a random model have no gradient
    monkeypatch.setitem(_REWARDS, "accuracy", lambda done: next(right))
    train(dataclasses.replace(job, stages=("cold_start", "rl", "export")), tmp_path / "run")
    (reinforced,) = metrics(tmp_path / "run", "rl")
    assert reinforced["grad_norm"] > 0 and reinforced["reward"] > 0
    check_logits(tmp_path / "run" / "hf")


def check_logits(folder):
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    opened = open_model(folder, "f32")
    special, spec = opened.tokenizer.special, opened.family.images
    image = tiny.picture(random.Random(2)).resize((84, 84))
    patches, grid = patchify(image, spec=spec)
    pads = len(patches) // spec.merge_unit
    words = opened.tokenizer.encode("Where is the end of the line?")
    ids = np.array([special.vision_start, *[special.image_pad] * pads, special.vision_end, *words], np.int64)
    loader = transformers.AutoModelForImageTextToText
    theirs = loader.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        wanted = (
            theirs(
                input_ids=torch.tensor(ids[None]),
                attention_mask=torch.ones((1, len(ids)), dtype=torch.int64),
                mm_token_type_ids=torch.tensor(ids[None] == special.image_pad).long(),
                pixel_values=torch.tensor(patches),
                image_grid_thw=torch.tensor([grid]),
            )
            .logits[0]
            .numpy()
        )
    del theirs
    encoded = Encoded(ids.astype(np.int32), np.zeros(len(ids), bool), [image], special)
    batch = collate([encoded], buckets=Buckets((len(ids),), (1,), (len(patches),), spec))
    model = nnx.merge(abstract(opened.config)[0], opened.params)
    hidden = model(batch.tokens, batch.positions, batch.segment_ids, batch.image_index, batch.vision)
    ours = np.asarray(model.logits(hidden)[0, : len(ids)])
    np.testing.assert_allclose(ours, wanted, atol=1e-4 * np.abs(wanted).max())
    assert jax.numpy.argmax(ours[-1]) == wanted[-1].argmax()
