"""A second model family passes through every room, and none of them knows of it."""

import dataclasses
import json
import random
import re

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from tests import tiny
from tests.models.other_family import OTHER, TINY
from tests.tasks.test_rescale_recordings import png, record, turn
from vilasr_jax.checkpoint import export_hf, import_hf
from vilasr_jax.checkpoint.hf_layout import named_leaves
from vilasr_jax.checks import check
from vilasr_jax.config import (
    BucketSection,
    ColdStartSection,
    DataSection,
    DrawingSection,
    EngineSection,
    ImageSection,
    JobConfig,
    MazeSection,
    ModelSection,
    OptimizerSection,
    RLSection,
    SamplingSection,
)
from vilasr_jax.drawing import DrawingSession, DrawingSettings, parse_actions
from vilasr_jax.errors import CheckpointError, ConfigError
from vilasr_jax.files import write_json
from vilasr_jax.job import export
from vilasr_jax.models import ModelFamily, family_of, model_types, preset, register, registry
from vilasr_jax.models.params import build
from vilasr_jax.processing import collate, encode_conversation, patch_layout, patchify, resize_image
from vilasr_jax.progress import progress_bar
from vilasr_jax.rewards import RewardSettings, score
from vilasr_jax.tasks.replay import replay
from vilasr_jax.tasks.stored import StoredRow, write_shard
from vilasr_jax.trained_model import open_model
from vilasr_jax.training.cold_start import run_cold_start
from vilasr_jax.training.grpo import run_rl
from vilasr_jax.training.run import open_run
from vilasr_jax.workdir import open_workdir

ADAM = OptimizerSection(learning_rate=3e-3)
SAMPLING = SamplingSection(max_turn_tokens=7, max_tokens=220)


@pytest.fixture(scope="module", autouse=True)
def registered():
    register(OTHER)
    yield
    del registry._FAMILIES[OTHER.model_type]


def a_job(**changes) -> JobConfig:
    values = dict(
        name="other",
        seed=5,
        stages=("cold_start", "rl"),
        model=ModelSection(preset="other_tiny"),
        image=ImageSection(max_pixels=84 * 84),
        buckets=BucketSection(tokens=(320,), images=(5,), patches=(144,)),
        maze=MazeSection(grid=3, cell=28, min_moves=2, max_moves=3, ood_grid=4),
        engine=EngineSection(slots=2, decode_steps=7, prompt_tokens=(120,), insert_tokens=(80,)),
        cold_start=ColdStartSection(steps=2, batch=2, perception_steps=0, optimizer=ADAM),
        rl=RLSection(
            steps=1, prompts=1, group=2, updates=1, micro_batch=2, optimizer=ADAM, sampling=SAMPLING
        ),
        drawing=DrawingSection(prompt="short", max_turns=3, max_images=5),
    )
    return JobConfig(**{**values, **changes})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(run, parameters after the cold start and RL), exported."""
    workdir = tmp_path_factory.mktemp("other") / "run"
    open_workdir(a_job(), workdir)
    run = open_run(a_job(), workdir, tiny.mesh())
    with progress_bar() as progress:
        params = run_cold_start(run, run.model.initial_params(), progress)
        params = run_rl(run, params, progress)
    export(run)
    return run, params


def test_a_preset_finds_its_family():
    assert family_of(preset("other_tiny")) is OTHER and set(model_types()) == {
        "qwen2_5_vl",
        "qwen3_vl",
        "other_vl",
    }
    assert preset("other_tiny", vocab_size=64).vocab_size == 64


def test_families_differ_in_presets_and_agree_on_kernels():
    class Third(ModelFamily):
        model_type, presets, kernels = "third", {"tiny": None}, {}

    with pytest.raises(ConfigError, match="preset 'tiny' is that of qwen2_5_vl"):
        register(Third())
    Third.presets, Third.kernels = {}, {"q_proj": "head_dv"}
    with pytest.raises(ConfigError, match="kernel 'q_proj' is head_dv, but q_weight_ldq in qwen2_5_vl"):
        register(Third())


def test_pictures_are_cut_as_the_family_says():
    pixels = np.random.default_rng(0).integers(0, 256, (15, 30, 3), dtype=np.uint8)
    image = resize_image(Image.fromarray(pixels), spec=OTHER.images)  # 392 pixels: no less than the least
    assert image.size == (28, 14)
    patches, grid = patchify(image, spec=OTHER.images)
    assert grid == (1, 2, 4) and patches.shape == (8, 147)
    second = np.asarray(image)[:7, 7:14].transpose(2, 0, 1).reshape(-1)  # the right one of the first four
    np.testing.assert_allclose(patches[1], (second / 255 - 0.5) / 0.5, atol=1e-6)
    pos_hw, window_ids, image_ids = patch_layout(grid, OTHER.images)
    assert pos_hw[:4].tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert (window_ids == image_ids).all()


def test_conversations_and_batches_use_the_tokenizers_family(run):
    run, _ = run
    image = Image.new("RGB", (28, 14))
    content = [{"type": "image", "image": image}, {"type": "text", "text": "look"}]
    encoded = encode_conversation(run.model.tokenizer, [{"role": "user", "content": content}])
    special = run.model.tokenizer.special
    assert (encoded.ids == special.image_pad).sum() == 2  # 2 x 4 patches, four a token
    assert (encoded.ids == special.im_start).sum() == 1  # no system message
    batch = collate([encoded], buckets=run.batching.buckets)
    assert batch.vision.patches.shape == (1, 5, 144, 147)
    assert batch.positions[:, 0, : len(encoded)].tolist() == [list(range(len(encoded)))] * 3


def test_coordinates_are_the_models_own_in_both_directions(run):
    """A maze of 84 pixels: the trace's 42 is written as 500, and the model's 500 is drawn at 42."""
    run, _ = run
    family, spec = run.tasks.specs("train")[0]
    row = family.row(spec, 0)
    trace = family.expert_trace(row, random.Random(0))
    messages = replay(trace, run.model.settings)
    written = [m["content"][0]["text"] for m in messages if m["role"] == "assistant"]
    assert len(written) == len(trace.turns) and row.images[0].size == (84, 84)
    session = row.session(run.model.settings)
    for text, ours in zip(written, trace.turns, strict=True):
        session.step(text)
        for theirs, call, noted in zip(
            parse_actions(text).calls, parse_actions(ours).calls, session.events[-1]["calls"], strict=True
        ):
            for name in ("x1", "y1", "x2", "y2"):
                pixels = getattr(call, name)
                assert getattr(theirs, name) == round(pixels / 84 * 1000)
                assert noted[name] == pytest.approx(pixels, abs=0.05)
    assert sum(len(event["calls"]) for event in session.events) > 0


def test_rewards_compare_drawings_in_pixels():
    settings = DrawingSettings(coordinates=1000)
    session = DrawingSession([Image.new("RGB", (84, 42))], "?", settings=settings)
    text = (
        "<think>a</think> Action: Object Mapper\n```json\n"
        '[{"index": 1, "bbox_2d": [500, 0, 1000, 500], "label": "cup"}]\n```'
    )
    session.step(text)
    meta = {"drawings": [{"label": "cup", "points": [[42, 0], [84, 21]], "tolerance": 0.5}]}
    weights = RewardSettings(drawing_weight=1.0)
    assert score([text], session.events, answer="", meta=meta, settings=weights)["drawing"] == 1
    assert score([text], answer="", meta=meta, settings=weights)["drawing"] == 0  # nobody noted its pixels


def test_the_text_control_is_written_in_the_models_coordinates(tmp_path):
    """A maze of 84 pixels: the centres of its cells are at 167, 500 and 833."""
    run = open_run(a_job(cold_start=ColdStartSection(format="text", traces=4)), tmp_path, tiny.mesh())
    check(run)
    (source,), _ = run.examples.traces
    for number in range(len(source)):
        text = run.model.tokenizer.decode(source[number].ids)
        centres = re.findall(r"\[(\d+), (\d+)\]", text)
        assert centres and {int(value) for centre in centres for value in centre} <= {167, 500, 833}


def test_recorded_pixels_train_a_model_of_other_coordinates(tmp_path):
    """Rows that can't be converted are named; a folder of the model's own coordinates stays as it is."""
    size, folder = (84, 42), tmp_path / "rows"
    item = '{"index": 1, "bbox_2d": [21, 7, 63, 35], "label": "cup"}'
    texts = [turn(item), turn(item, think="Its left edge is at 21 and it is 30 pixels from x = 60.")]
    images = (png(size),) * 2
    rows = [
        StoredRow(
            f"own-{n}", "Where?", "there", "free-form", (), images, "vqa", {}, tuple(record(t, size=size))
        )
        for n, t in enumerate(texts)
    ]
    same = dict(answer="B", question_type="multiple choice", images=images[:1], messages=())
    boxes = ("A. [0, 0, 42, 42]", "B. [42, 0, 84, 42]")
    questions = [
        dataclasses.replace(rows[0], question="Which box?", options=boxes, **same),
        dataclasses.replace(rows[1], question="How many pixels wide?", options=("A. 30", "B. 42"), **same),
    ]
    marked = [dataclasses.replace(row, coordinates=1000) for row in rows[:1]]
    for name, some in (("traces", rows), ("rl", questions), ("own", marked)):
        write_shard(folder / name / "rows-00000.array_record", [row.to_bytes() for row in some], {})
        index = {"format": name, "rows": len(some), "shards": ["rows-00000.array_record"]}
        write_json(folder / name / "index.json", index)
    data = DataSection(root=str(folder), traces=("traces",), reflect_traces=("own",), questions=("rl",))
    sections = dict(buckets=BucketSection(tokens=(800,), images=(5,), patches=(144,)))
    run = open_run(a_job(data=data, **sections), tmp_path / "run", tiny.mesh())
    example = run.examples.recorded("traces")[0]
    assert '"bbox_2d": [250, 167, 750, 833]' in run.model.tokenizer.decode(example.ids)
    assert [image.size for image in example.images] == [size] * 2
    own = run.examples.recorded("reflect_traces")[0]
    assert '"bbox_2d": [21, 7, 63, 35]' in run.model.tokenizer.decode(own.ids)
    assert run.questions.source("rl")[0] == 1
    assert run.questions.rows("rl", 1)[0].options == ("A. [0, 0, 500, 1000]", "B. [500, 0, 1000, 1000]")
    for name in ("traces", "questions"):
        note = json.loads((tmp_path / "run" / "left_out" / f"{name}.json").read_text())
        assert (note["rows"], note["count"], note["left_out"][0]["id"]) == (2, 1, "own-1")


def test_a_job_trains_samples_and_exports(run):
    run, params = run
    for name, steps in {"cold_start": 2, "rl": 1}.items():
        assert json.loads((run.workdir / name / "steps.json").read_text())["steps"] == steps
    assert (run.workdir / "hf" / "chat_template.jinja").read_text() == OTHER.chat_template
    exported = open_model(run.workdir / "hf")
    assert family_of(exported.config) is OTHER
    assert exported.tokenizer.special.family == run.model.tokenizer.special.family == OTHER
    ours, theirs = named_leaves(params), named_leaves(exported.params)
    assert ours.keys() == theirs.keys() and len(ours) > 10
    first = named_leaves(run.model.initial_params())
    for name, leaf in ours.items():
        np.testing.assert_array_equal(leaf, theirs[name], err_msg=name)
        assert (np.asarray(first[name]) != leaf).any(), f"{name} did not learn"


def test_weights_return_from_an_export_bit_by_bit(tmp_path):
    params = jax.device_get(named_leaves(nnx.split(build(TINY))[1]))
    export_hf(params, TINY, tmp_path / "hf")
    config, back = import_hf(tmp_path / "hf")
    assert config == TINY and type(config) is type(TINY)
    for name, leaf in named_leaves(back).items():
        np.testing.assert_array_equal(leaf, params[name], err_msg=name)


def test_a_folder_of_no_family_is_named(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "third"}')
    with pytest.raises(CheckpointError, match=r"model_type is 'third', not 'qwen2_5_vl' .* or 'other_vl'"):
        import_hf(tmp_path)
