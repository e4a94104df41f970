"""A stage that is stopped anywhere and started again ends with the same bits; nothing is sampled twice."""

import dataclasses
import json
import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.progress import Progress

from tests import tiny
from tests.training import samples
from vilasr_jax import errors
from vilasr_jax.config import (
    BucketSection,
    EngineSection,
    ImageSection,
    JobConfig,
    MazeSection,
    OptimizerSection,
    ReflectSection,
    RLSection,
    SamplingSection,
)
from vilasr_jax.errors import DataError
from vilasr_jax.tasks.pipeline import batches
from vilasr_jax.tasks.sources import MappedSource
from vilasr_jax.training import grpo, interrupt, reflect, sft
from vilasr_jax.training import stage as stage_module
from vilasr_jax.training.optimizers import make_optimizer
from vilasr_jax.training.rejection_sampling import filter_trajectories
from vilasr_jax.training.resume import resume_state, state_items
from vilasr_jax.training.row_filter import read_notes
from vilasr_jax.training.run import Run, open_run
from vilasr_jax.training.sft import train_sft
from vilasr_jax.training.stage import TIMED, Stage
from vilasr_jax.training.state import init_state

ADAM = OptimizerSection(learning_rate=3e-3, warmup_fraction=0.5)
SAMPLING = SamplingSection(max_turn_tokens=7, max_tokens=150)
JOB = JobConfig(
    seed=5,
    image=ImageSection(max_pixels=84 * 84),
    buckets=BucketSection(tokens=(150,), images=(5,), patches=tiny.PATCHES),
    maze=MazeSection(grid=3, cell=28, min_moves=2, max_moves=3, ood_grid=4),
    engine=EngineSection(slots=2, lanes=2, decode_steps=7, prompt_tokens=(40,), insert_tokens=(32,)),
    reflect=ReflectSection(
        questions=5, samples=2, shard=2, steps=2, batch=2, optimizer=ADAM, sampling=SAMPLING
    ),
    rl=RLSection(
        steps=3, prompts=2, group=4, updates=2, micro_batch=4, save_every=1, optimizer=ADAM, sampling=SAMPLING
    ),
)


class Stopped(Exception):
    """Raised where a kill would end the process."""


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def quiet() -> Progress:
    return Progress(disable=True)


def metrics(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in TIMED} for line in lines]


def scripted_run(job, workdir, mesh=None) -> Run:
    """The tiny model, its scripted sessions as questions, and a reward that some answers get."""
    run = open_run(job, workdir, mesh or tiny.mesh())
    vars(run.model).update(tokenizer=tiny.tokenizer(), config=tiny.config(), suppressed=tiny.suppressed())

    def request(row, seed=0, samples=1, stop_on_repeat=True):
        scripted = tiny.requests(1, first=row % 1000)[0]
        return dataclasses.replace(scripted, seed=seed, samples=samples)

    def reward(trajectory):
        total = float(trajectory.tokens.sum() % 3)
        return {"accuracy": float(total > 0), "format": 1.0, "total": total}

    run.tasks.rows = lambda split, count, *, first=0: list(range(first, first + count))
    run.questions.request, run.reward = request, reward
    return run


@pytest.fixture
def params():
    return tiny.place(tiny.params(), tiny.mesh())


def once(make):
    """`make`, but every call after the first returns what the first did."""
    results = []

    def call(*args, **options):
        results.append(results[0] if results else make(*args, **options))
        return results[0]

    return call


@pytest.fixture(autouse=True)
def listening():
    """SIGTERM asks to stop, as under the command line."""
    interrupt.listen()
    yield
    interrupt.listen()


@pytest.fixture(autouse=True)
def compiled_once(monkeypatch):
    """The runs of a test have compiled steps in common, the same every time."""
    for module, name in ((sft, "make_sft_step"), (grpo, "make_grpo_steps")):
        monkeypatch.setattr(module, name, once(getattr(module, name)))


class Breaking:
    """An iterator that dies before its n-th item; or that requests a stop, and continues."""

    def __init__(self, data, left, request=False):
        self.data, self.left, self.request = data, left, request
        self.get_state, self.set_state = data.get_state, data.set_state

    @property
    def replaced(self):
        return self.data.replaced

    def __next__(self):
        if self.left == 0 and self.request:
            os.kill(os.getpid(), signal.SIGTERM)
        elif self.left == 0:
            raise Stopped
        self.left -= 1
        return next(self.data)


def test_sft_continues_bit_for_bit(tmp_path):
    steps, save_every = 7, 2

    def run(folder, stop_before=None, request=False):
        source = MappedSource(range(23), samples.example)
        data = batches([source], [1], seed=3, batch=4, buckets=samples.BUCKETS)
        if stop_before is not None:
            data = Breaking(data, stop_before, request)
        stage = Stage(folder, steps, save_every, "test")
        try:
            return train_sft(scripted_run(JOB, folder), stage, tiny.params(), data, ADAM, quiet())
        finally:
            stage.close()

    full = run(tmp_path / "full")
    for _ in range(2):  # the second time: before anything new is saved
        with pytest.raises(Stopped):
            run(tmp_path / "broken", stop_before=3)
    assert Stage(tmp_path / "broken", steps, save_every, "").store.latest_step() == 4
    assert not Stage(tmp_path / "broken", steps, save_every, "").done
    resumed = run(tmp_path / "broken")
    assert bits(resumed) == bits(full) != bits(tiny.params())
    assert metrics(tmp_path / "broken") == metrics(tmp_path / "full")
    with pytest.raises(errors.Stopped, match="after step 3 of 7"):
        run(tmp_path / "stopped", stop_before=2, request=True)
    assert Stage(tmp_path / "stopped", steps, save_every, "").store.latest_step() == 3  # no step is lost
    interrupt.listen()
    assert bits(run(tmp_path / "stopped")) == bits(full)
    assert metrics(tmp_path / "stopped")[-2:] == metrics(tmp_path / "full")[-2:]
    stage = Stage(tmp_path / "broken", steps, save_every, "")
    model = scripted_run(JOB, tmp_path).model
    assert stage.done and bits(stage.load_params(model.abstract_params)) == bits(full)


def test_too_many_skipped_updates_leave_a_complete_stage(tmp_path):
    stage, source = Stage(tmp_path / "sft", 9, 1, "test"), MappedSource(range(23), samples.example)
    data = batches([source], [1], seed=3, batch=4, buckets=samples.BUCKETS)
    broken = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), tiny.params())
    with pytest.raises(errors.TrainingError, match="2 updates in a row were skipped"):
        section = dataclasses.replace(ADAM, max_skipped=2)
        train_sft(scripted_run(JOB, tmp_path), stage, broken, data, section, quiet())
    assert Stage(tmp_path / "sft", 9, 1, "").store.steps() == [1]
    (events,) = (tmp_path / "sft" / "tensorboard").iterdir()
    assert b"learning_rate" in events.read_bytes()


def test_examples_that_training_replaces_are_counted_and_named(tmp_path):
    def example(number):
        if number in (3, 11):
            raise KeyError("no turns")
        return samples.example(number)

    def run(folder, stop_before=None):
        run = scripted_run(JOB, folder)
        data = run.batching.batches([MappedSource(range(23), example)], [1], seed=3, batch=4)
        stage = Stage(folder / "sft", 7, 2, "test")
        try:
            train_sft(run, stage, tiny.params(), Breaking(data, stop_before), ADAM, quiet())
        finally:
            stage.close()

    run(tmp_path / "full", -1)
    counts = [line.get("left_out_sft", 0) for line in metrics(tmp_path / "full" / "sft")]
    assert counts == sorted(counts) and counts[-1] == 2
    note = json.loads((tmp_path / "full" / "left_out" / "sft.json").read_text())
    assert {line["id"]: line["reason"] for line in note["left_out"]} == {
        "example 3": "KeyError: 'no turns'",
        "example 11": "KeyError: 'no turns'",
    }
    assert read_notes(tmp_path / "full")["sft"]["count"] == 2
    with pytest.raises(Stopped):
        run(tmp_path / "broken", 5)
    run(tmp_path / "broken", -1)
    assert metrics(tmp_path / "broken" / "sft") == metrics(tmp_path / "full" / "sft")
    assert json.loads((tmp_path / "broken" / "left_out" / "sft.json").read_text()) == note


def test_rl_continues_bit_for_bit(tmp_path, monkeypatch):
    engines = {}
    monkeypatch.setattr(stage_module, "peak_flops", lambda: 1e12)

    def run(folder, stop_at=None, request=False):
        scripted = scripted_run(JOB, folder)
        scripted.rollouts.engines = engines
        real, calls = scripted.rollouts.engine(SAMPLING).generate, []

        def generate(*args):
            calls.append(0)
            if len(calls) == stop_at and request:
                os.kill(os.getpid(), signal.SIGTERM)
            elif len(calls) == stop_at:
                raise Stopped
            return real(*args)

        monkeypatch.setattr(engines[SAMPLING], "generate", generate)
        try:
            return grpo.run_rl(scripted, tiny.params(), quiet())
        finally:
            monkeypatch.setattr(engines[SAMPLING], "generate", real)

    full = run(tmp_path / "full")
    with pytest.raises(Stopped):
        run(tmp_path / "broken", stop_at=3)
    resumed = run(tmp_path / "broken")
    assert bits(resumed) == bits(full) != bits(tiny.params())
    lines = metrics(tmp_path / "full" / "rl")
    assert metrics(tmp_path / "broken" / "rl") == lines and [line["step"] for line in lines] == [1, 2, 3]
    for line in lines:
        assert 0 < line["reward"] < 2 and line["grad_norm"] > 0 and np.isfinite(line["loss"])
        assert 0 <= line["kl"] < 1 and line["response_tokens"] > 3
    model = scripted_run(JOB, tmp_path).model
    flops = (6 + 2 * bool(JOB.rl.importance_cap)) * model.matmul_parameters
    for line in map(json.loads, (tmp_path / "full" / "rl" / "metrics.jsonl").read_text().splitlines()):
        sampled = line["response_tokens"] * JOB.rl.prompts * JOB.rl.group
        assert line["sampled_tokens_per_second"] == pytest.approx(sampled / line["sampling_seconds"])
        assert sampled < line["tokens_per_second"] * line["update_seconds"] < 8 * 150
        assert line["mfu"] == pytest.approx(line["tokens_per_second"] * flops / 1e12)
    with pytest.raises(errors.Stopped, match="after step 1 of 3"):
        run(tmp_path / "stopped", stop_at=2, request=True)
    interrupt.listen()
    assert bits(run(tmp_path / "stopped")) == bits(full)
    again = run(tmp_path / "broken", stop_at=1)  # done: nothing is sampled
    assert bits(again) == bits(full)


def test_a_stage_holds_the_weights_once(tmp_path):
    """What it starts from becomes its own, or is freed where it resumes from a checkpoint."""
    run = scripted_run(JOB, tmp_path)
    mesh, transform = run.mesh, make_optimizer(ADAM, 3)

    def given():
        return tiny.place(tiny.params(), mesh)

    def where(tree):
        return [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(tree)]

    for section in (
        ADAM,
        dataclasses.replace(ADAM, freeze=("vision",)),
        dataclasses.replace(ADAM, lora_rank=2),
    ):
        params = given()
        state = init_state(params, transform, mesh, section)
        held = state.frozen.params if section.lora_rank else state.all_params
        assert where(held) == where(params) and bits(held) == bits(tiny.params())
    stage = Stage(tmp_path / "stage", 2, 1, "")
    params = given()
    done, state, _ = resume_state(mesh, stage, params, transform, ADAM)
    assert done == 0 and where(state.all_params) == where(params)
    stage.save(1, state_items(state), wait=True)
    stage.close()
    params = given()
    done, state, _ = resume_state(mesh, Stage(tmp_path / "stage", 2, 1, ""), params, transform, ADAM)
    assert done == 1 and all(leaf.is_deleted() for leaf in jax.tree.leaves(params))
    assert bits(state.all_params) == bits(tiny.params())


class FakeEngine:
    """Hands out scripted trajectories; every other one is to be kept."""

    def __init__(self, trajectories, stop_at=None):
        self.trajectories, self.stop_at, self.calls = trajectories, stop_at, []

    def generate(self, params, requests, key, progress=None):
        if len(self.calls) == self.stop_at:
            raise Stopped
        self.calls.append([(r.row["id"], r.seed) for r in requests])
        out = []
        for n in range(sum(r.samples for r in requests)):
            t = dataclasses.replace(self.trajectories[n % len(self.trajectories)], stop_reason="answer")
            t.turns = [{**turn, "corrected": n % 2} for turn in t.turns]
            out.append(t)
        return out


def reflecting(folder, engine) -> Run:
    run = scripted_run(JOB, folder)
    run.rollouts.engine = lambda sampling: engine
    run.reward = lambda t: {"accuracy": 1.0, "format": 1.0, "total": 1.0}
    return run


@pytest.fixture(scope="module")
def trajectories():
    questions = [request for request in tiny.requests(30) if request.session().turns <= 3]
    return tiny.generate(tiny.engine(), questions)


def test_reflect_samples_shard_by_shard_and_continues(tmp_path, params, trajectories):
    engine = FakeEngine(trajectories, stop_at=2)
    with pytest.raises(Stopped):
        reflect.sample_traces(reflecting(tmp_path, engine), params, quiet())
    (tmp_path / "reflect" / "samples" / "00002-of-00003.array_record.draft").write_bytes(b"half")
    rest = FakeEngine(trajectories)
    paths = reflect.sample_traces(reflecting(tmp_path, rest), params, quiet())
    assert len(engine.calls) == 2 and len(rest.calls) == 1 and len(paths) == 3
    seeds = [seed for call in engine.calls + rest.calls for _, seed in call]
    assert seeds == [0, 2, 4, 6, 8]  # two samples each: no stream twice
    funnel = json.loads((tmp_path / "reflect" / "funnel.json").read_text())
    assert funnel == {"sampled": 10, "parsed": 10, "right": 10, "reflective": 5, "kept": 5}

    run = reflecting(tmp_path, None)  # samples no more
    learnt = reflect.run_reflect(run, params, quiet())
    assert bits(learnt) != bits(tiny.params())
    assert bits(reflect.run_reflect(run, None, quiet())) == bits(learnt)


def test_reflect_without_anything_kept(tmp_path, params, trajectories):
    run = reflecting(tmp_path, FakeEngine(trajectories))
    run.reward = lambda t: {"accuracy": 0.0, "format": 1.0, "total": 0.0}
    with pytest.raises(DataError, match="none of 5 x 2 sampled conversations"):
        reflect.run_reflect(run, params, quiet())


def test_the_rule_and_its_funnel(trajectories):
    def sampled(stop="answer", accuracy=1.0, form=1.0, corrected=1, error=None):
        turns = [{"text": "", "calls": [], "error": error, "drawn": [], "corrected": corrected}]
        reward = {"accuracy": accuracy, "format": form, "total": 1.0}
        return dataclasses.replace(trajectories[0], stop_reason=stop, turns=turns, reward=reward)

    some = [
        sampled(),
        sampled(error="item 1: odd"),
        sampled(form=0.0),
        sampled(corrected=0),
        sampled(accuracy=0.5),
        sampled(accuracy=0.0),
        sampled(stop="turn_limit"),
    ]
    funnel, kept = filter_trajectories(some, "reflective")
    assert kept == some[:2]
    assert funnel == {"sampled": 7, "parsed": 6, "right": 4, "reflective": 3, "kept": 2}


def test_a_tokenizer_half_written_is_generated_again(tmp_path):
    run = open_run(JOB, tmp_path, tiny.mesh())
    draft = tmp_path / "tokenizer.draft"
    draft.mkdir()
    (draft / "tokenizer.json").write_text("{")
    tokenizer = run.model.tokenizer
    assert not draft.exists() and (tmp_path / "tokenizer" / "tokenizer.json").exists()
    again = open_run(JOB, tmp_path, tiny.mesh()).model.tokenizer
    text = "Moves from the green start: 1 up"
    assert again.encode(text) == tokenizer.encode(text)
