"""From published data and weights to an export that answers: every stage, one wording, exact coordinates."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from tests import tiny
from vilasr_jax.checkpoint import export_hf
from vilasr_jax.config import (
    BucketSection,
    ColdStartSection,
    DataSection,
    DrawingSection,
    EngineSection,
    EvalSection,
    ImageSection,
    JobConfig,
    ModelSection,
    OptimizerSection,
    ReflectSection,
    RLSection,
    SamplingSection,
)
from vilasr_jax.job import train
from vilasr_jax.rollout import make_prompt
from vilasr_jax.sampler import Sampler
from vilasr_jax.solve import solve
from vilasr_jax.tasks.importers import import_data
from vilasr_jax.tasks.stored import StoredRows, folder_digest
from vilasr_jax.training.run import Run, open_run

PUBLISHED = Path(__file__).parents[1] / "tasks" / "published"
ADAM = OptimizerSection(learning_rate=1e-3)
SAMPLING = SamplingSection(temperature=1.0, max_turn_tokens=8, max_tokens=900)


@pytest.fixture(scope="module")
def road(tmp_path_factory):
    """(job, workdir) after all stages."""
    home = tmp_path_factory.mktemp("road")
    for name in ("cold_start", "rrs", "rl"):
        import_data(name, PUBLISHED / "ViLaSR-data", home / "data" / name)
    for name in ("maze", "vsi_bench"):
        import_data(name, PUBLISHED / "ViLaSR-eval", home / "data" / name)
    export_hf(tiny.params(), tiny.config(), home / "weights", tokenizer=tiny.tokenizer())
    job = JobConfig(
        name="road",
        tasks=(),
        stages=("cold_start", "reflect", "rl", "eval", "export"),
        model=ModelSection(init_from=str(home / "weights")),
        image=ImageSection(max_pixels=56 * 56),
        buckets=BucketSection(tokens=(900,), images=(20,), patches=(16,)),
        drawing=DrawingSection(prompt="published", style="published", max_turns=3, max_images=20),
        engine=EngineSection(
            slots=4, prompt_tokens=(700,), insert_tokens=(64,), prompt_images=(1, 16), decode_steps=8
        ),
        data=DataSection(
            root=str(home / "data"),
            traces=("cold_start",),
            reflect_traces=("rrs",),
            questions=("rl",),
            benchmarks=("maze", "vsi_bench"),
            frames=4,
        ),
        cold_start=ColdStartSection(epochs=4.0, batch=8, optimizer=ADAM),
        reflect=ReflectSection(epochs=8.0, batch=8, optimizer=ADAM, sampling=SAMPLING),
        rl=RLSection(
            epochs=1.0,
            prompts=1,
            group=2,
            updates=1,
            micro_batch=8,
            optimizer=ADAM,
            sampling=SAMPLING,
            old_logprobs="trained",
        ),
        eval=EvalSection(sampling=SAMPLING),
    )
    return job, home / "run", train(job, home / "run")


def run_of(road) -> Run:
    job, workdir, _ = road
    return open_run(job, workdir, tiny.mesh())


def test_every_stage_ran_as_long_as_its_data_says(road):
    _, workdir, summary = road
    steps = {
        name: json.loads((workdir / name / "steps.json").read_text())["steps"]
        for name in ("cold_start", "reflect", "rl")
    }
    assert steps == {"cold_start": 2, "reflect": 1, "rl": 3}  # 4 x 3 rows by 8, 8 x 1 by 8, 3 questions
    model = summary["benchmarks"]["rl"]["maze"]["model"]
    digest = folder_digest(workdir.parent / "data" / "maze")
    assert model == {"stage": "rl", "step": 3, "benchmark": "maze", "digest": digest}
    assert json.loads((workdir / "hf" / "model.json").read_text()) == {"stage": "rl", "step": 3}


def test_all_stages_use_one_wording_byte_for_byte(road):
    run, data = run_of(road), Path(road[0].data.root)
    stored = StoredRows([data / "cold_start"])
    trained = run.examples.recorded("traces")
    for number, row in enumerate(stored):
        question = row.question.removeprefix("### Question:\n")
        row = dataclasses.replace(
            row.row(*run.tasks.imported.pixels("questions")), question=question, question_type="free-form"
        )
        prompt = make_prompt(run.model.tokenizer, run.questions.requests([row])[0].session()).encoded
        first = int(np.argmax(trained[number].loss_mask))  # the assistant's first token
        np.testing.assert_array_equal(prompt.ids, trained[number].ids[:first])
    names = {scores["settings"]["prompt"]["sha256"] for scores in road[2]["benchmarks"]["rl"].values()}
    assert names == {run.model.prompts.sha256} and run.model.prompts.name not in ("vilasr_jax", "short")


def test_coordinates_are_resized_with_the_images_in_training(road):
    """84 x 56 pixels become 56 x 28 or so; boxes and lines stay at their place in the picture."""
    run = run_of(road)
    found = {}
    for example, stored in zip(
        run.examples.recorded("traces"), StoredRows([Path(road[0].data.root) / "cold_start"]), strict=True
    ):
        width, height = example.images[0].size
        assert (width, height) != (84, 56) and f"{width} x {height}" in run.model.tokenizer.decode(
            example.ids
        )
        said = run.model.tokenizer.decode(example.ids[example.loss_mask])
        item = json.loads(said.split("```json\n")[1].split("\n```")[0])[0]
        before = json.loads(stored.messages[2]["content"].split("```json\n")[1].split("\n```")[0])[0]
        for key in ("bbox_2d", "start_point_2d", "end_point_2d"):
            if key in item:
                scaled = [v * s for v, s in zip(before[key], (width / 84, height / 56) * 2, strict=False)]
                found[key] = np.abs(np.subtract(item[key], scaled)).max()
    assert set(found) == {"bbox_2d", "start_point_2d", "end_point_2d"} and max(found.values()) <= 0.5


def test_the_export_has_the_prompt_of_its_workdir(road, tmp_path):
    _, workdir, _ = road
    picture = PUBLISHED / "ViLaSR-eval" / "maze" / "1.png"
    solved = [
        solve([str(picture)], "Where?", folder, tmp_path / "out", ["A", "B"])
        for folder in (workdir, workdir / "hf")
    ]
    assert solved[0].texts == solved[1].texts
    np.testing.assert_array_equal(solved[0].tokens, solved[1].tokens)
    rows = [StoredRows([workdir.parent / "data" / "rl"])[number].row(784, 56 * 56) for number in range(3)]
    answers = [
        Sampler(folder, slots=2, images=2).sample_rows(rows, temperature=0.8, seed=3)
        for folder in (workdir, workdir / "hf")
    ]
    for ours, theirs in zip(*answers, strict=True):
        assert ours.texts == theirs.texts and ours.stop_reason == theirs.stop_reason


def test_the_run_opens_after_its_weights_and_data_are_gone(road, tmp_path):
    job, workdir, _ = road
    for name in ("weights", "data"):
        (workdir.parent / name).rename(workdir.parent / f"{name} moved")
    try:
        picture = PUBLISHED / "ViLaSR-eval" / "maze" / "1.png"
        assert solve([str(picture)], "Where?", workdir, tmp_path / "out").tokens.size
        assert train(job, workdir)["benchmarks"].keys() == {"rl"}  # nothing is left to do
    finally:
        for name in ("weights", "data"):
            (workdir.parent / f"{name} moved").rename(workdir.parent / name)
