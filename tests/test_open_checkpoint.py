"""Every way to point at a checkpoint, good and bad, through the code of the commands."""

import dataclasses
import importlib.util
import json
import random
import shutil

import jax
import numpy as np
import pytest

from tests import tiny
from tests.test_conversation_settings import drawing as drawing
from vilasr_jax import cli, trained_model
from vilasr_jax import job as jobs
from vilasr_jax import open_checkpoint as module
from vilasr_jax.checkpoint import export_hf, import_hf
from vilasr_jax.checkpoint.hf_layout import named_leaves
from vilasr_jax.checkpoint.orbax_weights import OrbaxWeights
from vilasr_jax.checkpoint.peft_export import export_peft
from vilasr_jax.checkpoint.safetensors_files import StoredTensor, stored_tensors
from vilasr_jax.config import (
    DrawingSection,
    EvalSection,
    ImageSection,
    JobConfig,
    MazeSection,
    MeshSection,
    ModelSection,
    OptimizerSection,
    ReflectSection,
    RLSection,
    SamplingSection,
)
from vilasr_jax.errors import CheckpointError, ConfigError, MissingCheckpointError, UserError
from vilasr_jax.files import write_json
from vilasr_jax.job import begin, evaluations, export, open_workdir, unfinished
from vilasr_jax.models import is_published_size, preset
from vilasr_jax.open_checkpoint import open_checkpoint
from vilasr_jax.progress import progress_bar
from vilasr_jax.rollout import Engine
from vilasr_jax.sampler import Sampler
from vilasr_jax.serve import Limits
from vilasr_jax.serve.run import make_worker
from vilasr_jax.trained_model import open_model
from vilasr_jax.training.run import open_run

SAMPLING = SamplingSection(0.6, 0.8, max_turn_tokens=9, max_tokens=320)
JOB = JobConfig(
    name="pointed at",
    seed=3,
    tasks=("maze",),
    image=ImageSection(max_pixels=84 * 84),
    drawing=DrawingSection(prompt="short", style="maze", max_turns=3, maze_turns=3, max_images=4),
    maze=MazeSection(grid=3, min_moves=2, max_moves=3, ood_grid=3),
    eval=EvalSection(sampling=SAMPLING),
    reflect=ReflectSection(sampling=SAMPLING),
    rl=RLSection(sampling=dataclasses.replace(SAMPLING, temperature=1.0, top_p=1.0)),
)
LAST = JOB.cold_start.steps
CONFIG = "--config=configs/maze_tiny.py"


def scaled(params, factor):
    return jax.tree.map(lambda x: x * factor, params)


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A finished cold start and an unfinished RL in `run`, its export `run/hf`, and `orbax`."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "run"
    open_workdir(JOB, folder)
    run = open_run(JOB, folder, tiny.mesh())
    params = run.model.initial_params()
    for name, steps in {"cold_start": (LAST - 1, LAST), "rl": (3, 5)}.items():
        stage = run.stages[name]
        for step in steps:
            stage.save(step, {"params": scaled(params, 1.0 if step == LAST else 1 + step / 16)}, wait=True)
        stage.close()
    export(run)
    call("convert", "from-hf", folder / "hf", home / "orbax")
    return home


def call(*words):
    """Runs a command in this process; returns its exit code."""
    with pytest.raises(SystemExit) as stop:
        cli.main(["vilasr", *map(str, words)])
    return stop.value.code


def test_a_card_names_the_stages_that_its_weights_went_through(home, tmp_path):
    """The config has all three stages, reflection never ran, and RL is not finished."""
    for name, words in {"run": "- Cold start: ", "run:rl@3": "- Cold start: |- RL: "}.items():
        assert call("convert", "to-hf", home / name, tmp_path / name) == 0
        lines = [line[2:] for line in (tmp_path / name / "README.md").read_text().splitlines()]
        found = [line for line in lines if line.startswith(("Cold start", "Reflection", "RL"))]
        assert len(found) == len(words.split("|")), found
        assert all(one.startswith(word[2:]) for one, word in zip(found, words.split("|"), strict=True))
    assert "- Reflection" not in (home / "run" / "hf" / "README.md").read_text()


def test_push_refuses_an_export_from_before_the_last_stage(home, tmp_path, monkeypatch, capsys):
    sent = []
    monkeypatch.setattr("vilasr_jax.checkpoint.hub.upload", lambda folder, *_, **__: sent.append(folder))
    assert call("push", home / "run", "org/hall") == 0
    assert f"{home / 'run' / 'hf'}: the stage cold_start, step {LAST}" in capsys.readouterr().out
    folder = tmp_path / "run"
    shutil.copytree(home / "run", folder)
    steps = {**json.loads((folder / "config.json").read_text())}
    steps["rl"] |= {"steps": 5, "epochs": 0}
    (folder / "config.json").write_text(json.dumps(steps))
    assert call("push", folder, "org/hall") == 2 and len(sent) == 1
    error = capsys.readouterr().err
    assert "the stage cold_start" in error and "last finished stage" in error and "is rl" in error
    assert call("push", folder / "hf", "org/hall") == 0 and len(sent) == 2


def bits(params):
    return {name: np.asarray(leaf).tobytes() for name, leaf in named_leaves(params).items()}


def same_files(one, other):
    for name in ("config.json", "vilasr_config.json", "preprocessor_config.json", "tokenizer.json"):
        assert json.loads((one / name).read_text()) == json.loads((other / name).read_text()), name


GOOD = ("run", "run:cold_start", f"run:cold_start@{LAST}", "run/hf", "orbax")


@pytest.mark.parametrize("name", GOOD)
def test_each_way_converts_to_the_same_folder(home, tmp_path, name, monkeypatch, capsys):
    monkeypatch.chdir(home)
    assert call("convert", "to-hf", name, tmp_path / "out") == 0, capsys.readouterr()
    same_files(tmp_path / "out", home / "run" / "hf")
    ours, theirs = stored_tensors(tmp_path / "out"), stored_tensors(home / "run" / "hf")
    assert ours.keys() == theirs.keys()
    for key, tensor in ours.items():
        assert tensor.code == "F32" and tensor.read().tobytes() == theirs[key].read().tobytes(), key


def test_a_step_converts_in_another_dtype(home, tmp_path, monkeypatch):
    for name, code in (("bfloat16", "BF16"), ("float16", "F16")):
        out = tmp_path / name
        assert call("convert", "to-hf", f"{home / 'run'}:rl@3", out, f"--dtype={name}") == 0
        assert json.loads((out / "config.json").read_text())["torch_dtype"] == name
        (found,) = {tensor.code for tensor in stored_tensors(out).values()}
        assert found == code
        read = named_leaves(import_hf(out)[1])
        for path, leaf in named_leaves(open_model(home / "run").params).items():
            np.testing.assert_array_equal(read[path], (leaf * (1 + 3 / 16)).astype(name), err_msg=path)
    monkeypatch.setattr(module, "is_published_size", lambda config: True)
    assert call("convert", "to-hf", home / "run", tmp_path / "published") == 0
    assert {tensor.code for tensor in stored_tensors(tmp_path / "published").values()} == {"BF16"}


def test_published_sizes_are_known_by_width_and_depth():
    assert is_published_size(preset("7b")) and is_published_size(preset("qwen3vl_8b", param_dtype="float32"))
    assert not is_published_size(preset("tiny")) and not is_published_size(preset("7b", num_layers=4))


@pytest.mark.slow  # four engines are compiled
def test_all_ways_answer_with_the_same_tokens(home, tmp_path, drawing):
    """From a Hugging Face folder, its Orbax folder, a run started from that, and the run's export."""
    model, one_step = ModelSection(init_from=str(home / "orbax")), dataclasses.replace(JOB.rl, steps=1)
    job = dataclasses.replace(JOB, stages=("rl",), model=model, rl=one_step)
    run, _ = begin(job, tmp_path / "next", tiny.mesh())
    stage = run.stages["rl"]
    stage.save(1, {"params": run.stages.start_params("rl")}, wait=True)
    stage.close()
    assert call("convert", "to-hf", tmp_path / "next", tmp_path / "exported") == 0
    places = (home / "run" / "hf", home / "orbax", tmp_path / "next", tmp_path / "exported")
    samplers = [Sampler(place, slots=1) for place in places]
    rows = samplers[0].rows("test", 1)
    first, *others = [sampler.sample_rows(rows) for sampler in samplers]
    assert all(len(one.turns) > 1 and len(one.images) > 1 for one in first)  # it drew
    for place, found in zip(places[1:], others, strict=True):
        for one, other in zip(first, found, strict=True):
            assert one.texts == other.texts, place
            np.testing.assert_array_equal(one.tokens, other.tokens)


SAMPLED = (("run", ""), ("run:rl@3", "int8"), ("run/hf", "bf16"), ("orbax", "f32"), ("orbax", "int8"))


@pytest.mark.parametrize("name, weights", SAMPLED)
def test_each_way_is_read_as_sampling_needs_it(home, tmp_path, monkeypatch, name, weights):
    """`Sampler`, `solve` and `serve` read the same arrays, and never the parameters as training has them."""
    source, found = home / name, []
    values = open_checkpoint(source).load()
    picture = tmp_path / "maze.png"
    tiny.picture(random.Random(1)).save(picture)

    def stop(engine, params, *_):
        found.append(params)
        raise UserError("enough")

    def never(*_):
        pytest.fail("parameters of training are loaded")

    monkeypatch.setattr(trained_model, "load_sharded", never)
    monkeypatch.setattr(Engine, "generate", stop)
    flag = [f"--weights={weights}"] if weights else []
    out = tmp_path / "out"
    assert call("solve", picture, "--question=Where?", f"--checkpoint={source}", f"--out={out}", *flag) == 2
    sampler = Sampler(source, slots=1, weights=weights)
    worker = make_worker(trained_model.open_model(source, weights), Limits(slots=1))
    kinds = {str(leaf.dtype) for leaf in jax.tree.leaves(sampler.params.layers[0])}
    matrices = {"": "float32", "f32": "float32", "bf16": "uint16", "int8": "int8"}
    assert matrices[weights] in kinds and kinds <= {matrices[weights], "float32", "bfloat16"}
    wanted = bits(sampler.engine.layout(values))
    for params in (*found, sampler.params, worker.params):
        assert bits(params) == wanted


@pytest.mark.parametrize(
    "stage, source", [("cold_start", ""), ("untrained", "orbax"), ("untrained", "run/hf")]
)
def test_evaluation_reads_what_sampling_needs(home, tmp_path, monkeypatch, stage, source):
    """The parameters as training has them are never loaded."""
    job = dataclasses.replace(JOB, model=ModelSection(init_from=str(home / source) if source else ""))
    run = open_run(job, tmp_path / "new" if source else home / "run", tiny.mesh())
    engine = run.rollouts.engine(SAMPLING)
    wanted, found = bits(engine.layout(open_model(home / (source or "run")).params)), []
    one = jobs.Evaluation(tmp_path / "eval", {"stage": stage, "step": LAST}, list)
    monkeypatch.setattr(
        run.stages, "load_params", lambda *_: pytest.fail("parameters of training are loaded")
    )
    monkeypatch.setattr(jobs, "evaluations", lambda run: [one])
    monkeypatch.setattr(jobs, "_evaluate", lambda run, progress, params, one: found.append(params))
    jobs.evaluate_stages(run, progress_bar())
    assert [bits(params) for params in found] == [wanted]


def test_weights_of_another_kind_are_refused(home):
    with pytest.raises(ConfigError, match="weights='fp8' is none of bf16, f32, int8"):
        Sampler(home / "run", weights="fp8")


def test_a_run_of_a_larger_mesh_opens_here(home, tmp_path):
    shutil.copytree(home / "run", tmp_path / "run")
    values = json.loads((tmp_path / "run" / "config.json").read_text())
    values["mesh"] |= dataclasses.asdict(MeshSection(data=1, fsdp=64, model=4))
    values["model"]["attention"] = "splash"
    write_json(tmp_path / "run" / "config.json", values)
    opened = open_model(f"{tmp_path / 'run'}:rl@5")
    assert bits(opened.params) == bits(scaled(open_model(home / "run").params, 1 + 5 / 16))
    assert opened.config.attention == "xla" and opened.prompts.name == "short"


@pytest.mark.parametrize("name", ["run:rl@5", "run/hf", "orbax"])
def test_a_run_starts_from_each(home, tmp_path, name):
    source = tmp_path / "source"
    shutil.copytree(home, source)
    model = ModelSection(init_from=str(source / name), param_dtype="bfloat16")
    job = dataclasses.replace(JOB, name="next", stages=("rl", "eval"), model=model)
    run, todo = begin(job, tmp_path / "next", tiny.mesh(8))
    assert todo[0] == "rl"
    wanted = open_model(source / name).params
    params = run.stages.start_params("rl")
    assert bits(params) == bits(jax.tree.map(lambda x: x.astype("bfloat16"), wanted))
    tokens = run.model.tokenizer.encode("Where is A?")
    with run.stages["rl"].store as store:
        store.save(1, {"params": params}, wait=True)
    shutil.rmtree(source)  # the run needs it no more
    again, _ = begin(job, tmp_path / "next", tiny.mesh())
    assert again.model.config == run.model.config and again.model.tokenizer.encode("Where is A?") == tokens
    assert not any(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(again.stages.start_params("rl")))
    assert [one.of["stage"] for one in evaluations(again)][:1] == ["untrained"]
    assert not again.model.has_initial_params
    with pytest.raises(ConfigError, match="holds rl, which comes after cold_start"):
        begin(dataclasses.replace(job, stages=("cold_start",)), tmp_path / "next", tiny.mesh())
    assert bits(open_model(f"{tmp_path / 'next'}:rl@1").params) == bits(params)


def test_later_stages_start_from_the_ones_before(home, tmp_path):
    """A run whose config names first weights uses them once."""
    job = dataclasses.replace(JOB, model=ModelSection(init_from=str(home / "run:rl@3")))
    run, _ = begin(dataclasses.replace(job, stages=("cold_start",)), tmp_path, tiny.mesh())
    with run.stages["cold_start"].store as store:
        store.save(1, {"params": run.model.initial_params()}, wait=True)
    run = open_run(dataclasses.replace(job, stages=("rl",)), tmp_path, tiny.mesh())
    with pytest.raises(ConfigError, match="rl starts from reflect"):
        run.stages.start_params("rl")
    assert unfinished(run) == ["rl"]


def test_a_job_without_reflection_resumes(tmp_path):
    """Its RL begins with the cold start, in the command that trained it and in the next."""
    steps = dataclasses.replace(JOB.cold_start, steps=1, perception_steps=0)
    job = dataclasses.replace(JOB, stages=("cold_start", "rl"), cold_start=steps)
    run, _ = begin(job, tmp_path, tiny.mesh())
    params = run.model.initial_params()
    run.stages["cold_start"].save(1, {"params": params}, wait=True)
    run.stages["cold_start"].close()
    run, todo = begin(job, tmp_path, tiny.mesh())
    assert todo == ["rl"] and bits(run.stages.start_params("rl")) == bits(params)
    run.stages["rl"].save(1, {"params": params}, wait=True)
    run.stages["rl"].close()
    run = open_run(dataclasses.replace(job, stages=("rl",)), tmp_path, tiny.mesh())
    assert run.stages.before("rl") == "cold_start"


def test_a_finished_reflection_is_never_left_out(tmp_path):
    """Whatever the command's stages are, before and after RL's first checkpoint."""
    steps = dataclasses.replace(JOB.reflect, steps=1)
    job = dataclasses.replace(JOB, stages=("cold_start", "rl"), reflect=steps)
    stages = open_run(job, tmp_path, tiny.mesh()).stages
    for name in ("reflect", "rl"):
        with stages[name].store as store:
            store.save(1, {"params": tiny.params()}, wait=True)
        assert stages.before("rl") == "reflect"


def test_lora_reads_the_first_weights_until_a_stage_ends(home, tmp_path):
    lora = dataclasses.replace(JOB.rl, optimizer=OptimizerSection(lora_rank=2))
    model = ModelSection(init_from=str(home / "orbax"))
    job = dataclasses.replace(JOB, stages=("rl",), model=model, rl=lora)
    run, _ = begin(job, tmp_path, tiny.mesh())
    params = run.stages.start_params("rl")
    with run.stages["rl"].store as store:
        store.save(1, {"params": params}, wait=True)
    assert bits(run.stages.start_params("rl")) == bits(params)


EXPECTED = (
    "; expected a Hugging Face folder, an Orbax folder of `vilasr convert from-hf`, or the workdir of a run"
)
BAD = {
    "nowhere": f"nowhere: no such folder{EXPECTED}",
    "org/model": "org/model: no such folder (the model of that name on the hub is hf://org/model); expected",
    "file.txt": f"file.txt: is a file{EXPECTED}",
    "empty": f"empty: holds no config.json{EXPECTED}",
    "run/hf/model.safetensors": f"model.safetensors: is a file; give its folder, run/hf{EXPECTED}",
    "orbax/config.json": f"orbax/config.json: is a file; give its folder, orbax{EXPECTED}",
    "half": "half/0/params: the list of weights can't be read; the checkpoint is damaged",
    "killed": "killed: is an Orbax folder whose checkpoint 0.orbax-checkpoint-tmp was not finished",
    "run:rl@7": "run:rl@7: rl has no saved step 7; it holds run:cold_start (steps",
    "exported": "exported: it holds an adapter (LoRA) only; merge it",
    "run/tokenizer": "run/tokenizer: holds no config.json; expected",
    "run/rl": "run/rl: is part of the run run; give run:rl; expected",
    "run/rl/checkpoints": "give run:rl; expected",
    "run/rl/checkpoints/3": "is part of the run run; give run:rl@3; expected",
    "steps": "steps: holds Orbax checkpoints (steps 3, 5), but no config.json of their model; expected",
    "adapter": "adapter: it holds an adapter (LoRA) only; merge it",
    "other": "other: its config.json is neither that of a model (no model_type) nor of a run; expected",
    "broken": "broken/config.json: not readable as JSON",
    "kind": "kind/config.json: model_type is 'llama'",
    "pickled": "pickled: no .safetensors files here",
    "old": "old: is no workdir of a run that can be opened",
    "run:sft": "run:sft: a run has no stage 'sft'; it holds run:cold_start (steps",
    "run:": "run:: a run has no stage ''; it holds",
    "run:reflect": "run:reflect: reflect is not finished; it holds run:cold_start (steps",
    "run:rl": "run:rl: rl is not finished; it holds",
    "run:rl@4": "run:rl@4: rl has no saved step 4; it holds",
    "run:rl@last": "run:rl@last: the step 'last' is no number",
    "run@5": "run@5: the step 5 of which stage?",
    "new": "new: no stage is finished yet; it holds no saved step of any stage; run `vilasr train` on it",
    "begun": "begun: no stage is finished yet; it holds begun:rl@5 (steps 3, 5, not finished)",
    "run/hf:rl": "run/hf is a Hugging Face folder of qwen2_5_vl, which has no stages; expected a workdir",
    "orbax:rl@0": "orbax is an Orbax folder of qwen2_5_vl, which has no stages; expected a workdir",
    "shape": "weight 'language_model/embed_tokens/embedding' has shape",
}


@pytest.fixture(scope="module")
def places(home):
    """Folders that hold no model, or not all of one."""
    write_json(home / "adapter" / "adapter_config.json", {})
    write_json(home / "other" / "config.json", {"_class_name": "Autoencoder"})
    write_json(home / "kind" / "config.json", {"model_type": "llama"})
    write_json(home / "old" / "config.json", {"model": {"size": 3}})
    (home / "empty").mkdir()
    (home / "broken").mkdir()
    (home / "broken" / "config.json").write_text("{")
    (home / "file.txt").write_text("mine")
    (home / "pickled").mkdir()
    shutil.copy(home / "orbax" / "config.json", home / "pickled" / "config.json")
    shutil.copytree(home / "run" / "rl" / "checkpoints", home / "steps")
    for name in ("new", "begun"):
        shutil.copytree(home / "run", home / name, ignore=shutil.ignore_patterns("cold_start", "hf"))
    shutil.rmtree(home / "new" / "rl")
    for name, step in (("half", "0"), ("killed", "0.orbax-checkpoint-tmp")):  # neither is complete
        shutil.copytree(home / "orbax", home / name)
        (home / name / "0").rename(home / name / step)
        for file in (home / name / step).rglob("*"):
            if file.is_file() and file.parent.name != "d":  # the arrays' data came first
                file.unlink()
    (home / "run" / "rl" / "checkpoints" / "7.orbax-checkpoint-tmp" / "params").mkdir(parents=True)
    pair = {"a": np.ones((2, 42, 2), np.float32), "b": np.ones((2, 2, 42), np.float32)}
    export_peft({"language_model/layers/q_proj/kernel": pair}, 2.0, tiny.config(), home / "exported")
    shutil.copytree(home / "orbax", home / "shape")
    values = json.loads((home / "shape" / "config.json").read_text())
    write_json(home / "shape" / "config.json", values | {"vocab_size": values["vocab_size"] + 8})
    return home


@pytest.fixture
def refused(places, monkeypatch, capsys):
    """Runs a command that must fail with one line, and read no weight; returns the line."""

    def call_refused(*words):
        monkeypatch.setattr(StoredTensor, "read", lambda *_: pytest.fail("a weight is read"))
        monkeypatch.setattr(OrbaxWeights, "read", lambda *_: pytest.fail("a weight is read"))
        monkeypatch.setattr(OrbaxWeights, "block", lambda *_: pytest.fail("a weight is read"))
        code = call(*words)
        _, err = capsys.readouterr()
        assert code == 2 and err.startswith("vilasr: ") and err.count("\n") == 1, (code, err)
        return err

    return call_refused


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_checkpoint_is_named(refused, places, tmp_path, monkeypatch, name):
    monkeypatch.chdir(places)
    err = refused("convert", "to-hf", name, tmp_path / "out")
    assert BAD[name] in err and not (tmp_path / "out").exists()


def test_each_command_says_so(refused, places, tmp_path, monkeypatch):
    monkeypatch.setattr(cli.flags, "use_devices", lambda job: None)
    picture = tmp_path / "maze.png"
    tiny.picture(random.Random(1)).save(picture)
    name = places / "run"
    where = f"{name}:rl@4: rl has no saved step 4; it holds {name}:cold_start (steps"
    assert where in refused("solve", picture, "--question=Where?", f"--checkpoint={name}:rl@4")
    assert where in refused("serve", f"{name}:rl@4", "--port=0")
    with pytest.raises(MissingCheckpointError, match="no saved step 4"):
        Sampler(f"{name}:rl@4")
    for command in ("train", "sft", "rl", "eval", "synthesize"):
        words = (command, CONFIG, f"--workdir={tmp_path / 'W'}", f"--config.model.init_from={name}:rl@4")
        assert f"config.model.init_from: {where}" in refused(*words)
    assert not (tmp_path / "W").exists()
    for source, kind in ((places / "orbax", "Orbax folder"), (name, "workdir of a run")):
        err = refused("convert", "from-hf", source, tmp_path / "out")
        assert f"{source}: is the {kind} of qwen2_5_vl; expected a Hugging Face folder or hf://" in err


def test_a_bucket_needs_its_package(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "gcsfs" else find(name))
    with pytest.raises(CheckpointError, match=r"gs://bucket/run:rl: gs:// needs the package gcsfs"):
        open_checkpoint("gs://bucket/run:rl")


def test_a_damaged_step_is_named(home, tmp_path):
    shutil.copytree(home / "run", tmp_path / "run")
    arrays = tmp_path / "run" / "rl" / "checkpoints" / "5" / "params" / "d"
    for file in arrays.iterdir():
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    for read in (lambda where: open_model(where).params, lambda where: Sampler(where, slots=1)):
        with pytest.raises(CheckpointError, match=r"checkpoints/5/params: .* can't be"):
            read(f"{tmp_path / 'run'}:rl@5")
        read(f"{tmp_path / 'run'}:rl@3")


def test_a_folder_with_a_colon_is_one(tmp_path):
    folder = tmp_path / "v1:rl"
    export_hf(tiny.params(), tiny.config(), folder, tokenizer=tiny.tokenizer())
    opened = open_checkpoint(folder)
    assert opened.folder.name == opened.address.name == "v1:rl" and opened.address.stage is None
