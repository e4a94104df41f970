"""LoRA with int8 weights: its gradients, its checkpoints, and the model that comes of them."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests import tiny
from tests.training import samples
from vilasr_jax.checkpoint import export_hf, import_hf
from vilasr_jax.checkpoint.hf_layout import named_leaves
from vilasr_jax.checkpoint.store import CheckpointStore
from vilasr_jax.config import (
    BucketSection,
    ColdStartSection,
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
    check_section,
)
from vilasr_jax.errors import ConfigError, MissingCheckpointError
from vilasr_jax.job import begin, export
from vilasr_jax.models.products import InferenceMatrix, unpacked
from vilasr_jax.open_checkpoint import convert_to_hf, open_checkpoint
from vilasr_jax.parallel import make_mesh
from vilasr_jax.progress import progress_bar
from vilasr_jax.training import lora
from vilasr_jax.training.cold_start import run_cold_start
from vilasr_jax.training.losses import map_head, sft_loss, token_logprob
from vilasr_jax.training.memory import StageMemory
from vilasr_jax.training.optimizers import make_optimizer
from vilasr_jax.training.run import open_run
from vilasr_jax.training.state import init_state, join
from vilasr_jax.training.steps import make_sft_step

SECTION = OptimizerSection(
    learning_rate=1e-2, schedule="constant", warmup_fraction=0, lora_rank=3, lora_alpha=6.0, lora_base="int8"
)


def is_packed(leaf):
    return isinstance(leaf, InferenceMatrix)


def new_state(mesh=None):
    return init_state(tiny.params(), make_optimizer(SECTION, 9), mesh or tiny.mesh(), SECTION)


def gradients(base, factors, batch):
    def loss(factors):
        model = nnx.merge(tiny.graphdef(), join(factors, base))
        logprobs = map_head(model, batch, token_logprob)
        return sft_loss(logprobs, batch, "token_mean")

    return jax.jit(jax.value_and_grad(loss))(factors)


def test_gradients_are_those_of_the_dequantised_weights():
    state, rng = new_state(), np.random.default_rng(0)
    factors = jax.tree.map(lambda x: rng.normal(0, 0.1, x.shape).astype(np.float32), state.params)
    dequantised = jax.tree.map(
        lambda leaf: unpacked(leaf, jnp.float32) if is_packed(leaf) else leaf,
        state.frozen.params,
        is_leaf=is_packed,
    )
    batch = samples.batch(range(4))
    loss, ours = gradients(state.frozen, factors, batch)
    wanted, theirs = gradients(lora.Base(dequantised, state.frozen.scale), factors, batch)
    np.testing.assert_allclose(loss, wanted, rtol=1e-6)
    for name, pair in theirs.items():
        for key, gradient in pair.items():
            assert np.abs(gradient).max() > 0
            np.testing.assert_allclose(
                ours[name][key], gradient, atol=1e-5 * np.abs(gradient).max(), err_msg=f"{name} {key}"
            )


def test_all_matrices_are_int8_and_stay_as_they_are():
    state = new_state()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state.frozen.params):
        if leaf.ndim > 1 and leaf.dtype != np.int8:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            assert name.endswith(("scales", "scale/value", "bias/value", "scale", "bias")), name
    before = jax.device_get(state.frozen.params)
    step, losses = make_sft_step(tiny.graphdef(), make_optimizer(SECTION, 9)), []
    for _ in range(6):
        state, metrics = step(state, samples.batch(range(8)))
        losses.append(float(metrics["loss"][0] / metrics["loss"][1]))
    assert losses[-1] < losses[0] - 0.05, losses
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.frozen.params), before)


def test_a_mesh_gives_the_loss_of_one_device():
    batch, found = samples.batch(range(8)), []
    for mesh in (tiny.mesh(), make_mesh(MeshSection(data=2, fsdp=2, model=2))):
        state = new_state(mesh)
        step = make_sft_step(tiny.graphdef(), make_optimizer(SECTION, 9), mesh=mesh)
        for _ in range(3):
            state, metrics = step(state, batch)
        found.append(float(metrics["loss"][0] / metrics["loss"][1]))
    np.testing.assert_allclose(*found, rtol=1e-4)


OPTIMIZER = dataclasses.replace(SECTION, lora_rank=2)
SAMPLING = SamplingSection(max_turn_tokens=9, max_tokens=320)
JOB = JobConfig(
    name="int8 base",
    tasks=("maze",),
    image=ImageSection(max_pixels=84 * 84),
    buckets=BucketSection(tokens=(1024,), images=(4,), patches=(36,)),
    drawing=DrawingSection(prompt="short", style="maze", max_turns=3, maze_turns=3, max_images=4),
    maze=MazeSection(grid=3, min_moves=2, max_moves=3, ood_grid=3),
    stages=("cold_start", "export"),
    cold_start=ColdStartSection(traces=8, steps=4, batch=2, save_every=2, optimizer=OPTIMIZER),
    reflect=ReflectSection(sampling=SAMPLING, optimizer=OPTIMIZER),
    rl=RLSection(sampling=SAMPLING, optimizer=OPTIMIZER),
    eval=EvalSection(sampling=SAMPLING),
)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """A Hugging Face folder that runs start from."""
    folder = tmp_path_factory.mktemp("first") / "hf"
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), tiny.params())
    config = tiny.config().replace(param_dtype="bfloat16")
    export_hf(params, config, folder, tokenizer=tiny.tokenizer(), max_pixels=84 * 84)
    return folder


def starting_from(first, **changes):
    return dataclasses.replace(JOB, model=ModelSection(init_from=str(first)), **changes)


def train(job, workdir):
    run, todo = begin(job, workdir, tiny.mesh())
    assert todo == ["cold_start", "export"]
    with progress_bar(shown=False) as progress:
        assert run_cold_start(run, run.stages.start_params("cold_start"), progress) is None
    export(run)


def test_a_run_stores_the_adapter_alone(first, tmp_path):
    job = starting_from(first)
    train(job, tmp_path / "run")
    store = CheckpointStore(tmp_path / "run" / "cold_start" / "checkpoints")
    assert store.steps() == [2, 4] and "params" not in store.items(4) and "lora" in store.items(4)

    # A run that was stopped ends with the same bits.
    shutil.copytree(tmp_path / "run", tmp_path / "again")
    shutil.rmtree(tmp_path / "again" / "cold_start" / "checkpoints" / "4")
    shutil.rmtree(tmp_path / "again" / "hf")
    train(job, tmp_path / "again")
    factors = [
        CheckpointStore(tmp_path / name / "cold_start" / "checkpoints").restore(4, {"lora": None})["lora"]
        for name in ("run", "again")
    ]
    jax.tree.map(np.testing.assert_array_equal, *factors)

    # What is exported, opened and trained further are the first weights and the addition.
    opened = open_checkpoint(tmp_path / "run")
    assert opened.config.param_dtype == "bfloat16"
    model = opened.load(param_dtype="float32")
    base = named_leaves(import_hf(first, param_dtype="float32")[1])
    shapes = jax.eval_shape(lambda: lora.new_factors(tiny.params(), 2))
    trained = store.restore(4, {"lora": shapes})["lora"]
    for name, leaf in named_leaves(model).items():
        pair, wanted = trained.get(f"{name}/value", trained.get(name)), np.asarray(base[name])
        if pair is not None:
            assert np.abs(pair["b"]).max() > 0
            wanted = wanted + 3.0 * np.einsum("lir,lro->lio", pair["a"], pair["b"])
        np.testing.assert_allclose(leaf, wanted, rtol=1e-6, atol=1e-6, err_msg=name)
    exported = named_leaves(import_hf(tmp_path / "run" / "hf")[1])
    convert_to_hf(tmp_path / "run", tmp_path / "out", "float32")
    converted = named_leaves(import_hf(tmp_path / "out")[1])
    later = open_run(job, tmp_path / "run", tiny.mesh())
    started = named_leaves(later.stages.load_params("cold_start"))
    for name, leaf in named_leaves(model).items():
        for other in (exported, converted, started):
            np.testing.assert_array_equal(other[name], leaf, err_msg=name)

    # It belongs to the weights that it began with.
    moved = first.with_name("moved")
    first.rename(moved)
    try:
        with pytest.raises(MissingCheckpointError, match=r"is an adapter of config\.model\.init_from"):
            open_checkpoint(tmp_path / "run")
    finally:
        moved.rename(first)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": ("rl",)}, "rl samples with the weights that are trained"),
        ({"stages": ("reflect",)}, "reflect samples its traces; name config.data.reflect_traces"),
        ({"cold_start": dataclasses.replace(JOB.cold_start, validate_every=2)}, "cold_start validates"),
        ({"mesh": MeshSection(context_parallel=True)}, "does without config.mesh.context_parallel"),
        ({"model": ModelSection()}, "must be stored: name them in config.model.init_from"),
    ],
)
def test_what_an_int8_base_can_not_do_is_refused(first, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        begin(dataclasses.replace(starting_from(first), **changes), tmp_path / "run", tiny.mesh())


def test_int8_without_lora_is_refused():
    with pytest.raises(ConfigError, match=r"lora_base='int8' is for LoRA: set .*lora_rank"):
        check_section(dataclasses.replace(SECTION, lora_rank=0))


def test_the_account_counts_int8_weights(first, tmp_path):
    run, _ = begin(starting_from(first), tmp_path / "run", tiny.mesh())
    memory = StageMemory(run.job, run.model.config, run.model.abstract_params, run.mesh, 1 << 40)
    held = memory.state(OPTIMIZER)["frozen weights"]
    state = init_state(
        run.stages.start_params("cold_start"), make_optimizer(OPTIMIZER, 9), run.mesh, OPTIMIZER
    )
    assert held == sum(leaf.nbytes for leaf in jax.tree.leaves(state.frozen.params))
    assert held < 0.4 * sum(leaf.size * 4 for leaf in jax.tree.leaves(run.model.abstract_params))
