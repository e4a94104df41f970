"""The plan's steps are the run's: each traces with the abstract arguments that the plan makes for it."""

import jax
import pytest

from tests.training import samples
from tests.training.test_resume import scripted_run
from vilasr_jax.config import (
    BucketSection,
    ColdStartSection,
    EngineSection,
    EvalSection,
    JobConfig,
    MeshSection,
    OptimizerSection,
    PackingSection,
    RLSection,
    SamplingSection,
)
from vilasr_jax.errors import ConfigError
from vilasr_jax.parallel import make_mesh
from vilasr_jax.plan.run import step_names, with_keys
from vilasr_jax.plan.steps import Steps
from vilasr_jax.plan.worker import argument_bytes
from vilasr_jax.tasks.sources import MappedSource

SAMPLING = SamplingSection(max_turn_tokens=12, max_tokens=80)
JOB = JobConfig(
    name="small",
    buckets=BucketSection(tokens=(80,), images=(2,), patches=(36,)),
    mesh=MeshSection(data=1, fsdp=1, model=1),
    engine=EngineSection(slots=4, prompt_tokens=(32,), insert_tokens=(24,), decode_steps=5),
    cold_start=ColdStartSection(
        batch=4, accumulate=2, optimizer=OptimizerSection(freeze=("vision", "merger"))
    ),
    rl=RLSection(micro_batch=4, sampling=SAMPLING),
    eval=EvalSection(sampling=SAMPLING),
)


@pytest.fixture(scope="module")
def steps():
    return Steps(JOB, make_mesh(JOB.mesh, jax.devices()[:1]))


@pytest.mark.parametrize("name", step_names(JOB))
def test_each_step_traces(steps, name):
    step = steps.build(name)
    step.function.trace(*step.arguments)
    assert len(step.parts) == len(step.arguments)
    assert step.flops > 0 or name == "grpo_apply"


def test_memory_is_reported_by_part(steps):
    held = argument_bytes(steps.build("sft"))
    assert held["opt_state"] == pytest.approx(2 * held["params"], rel=1e-3)  # Adam: two a trained weight
    assert held["frozen"] > 0 and held["batch"] > 4 * 2 * 36 * 1176 * 4


def test_decoding_reads_layers_head_and_cache(steps):
    step = steps.build("decode")
    held = argument_bytes(step)
    assert held["cache"] < step.reads / step.executions < held["cache"] + held["params"]


def test_packed_rows_have_the_budgets_shape():
    job = with_keys(JOB, {"packing.tokens": 160, "packing.vision_rows": 3, "packing.patches": 72})
    batch = Steps(job, make_mesh(job.mesh, jax.devices()[:1])).build("sft").arguments[1]
    assert batch.tokens.shape == (4, 160) and batch.vision.patches.shape == (4, 3, 72, 1176)
    assert isinstance(job.packing, PackingSection)


def test_the_plan_compiles_the_largest_rows_of_a_run(tmp_path):
    smaller = {"packing.token_buckets": (60, 90), "packing.vision_row_buckets": (1, 2)}
    job = with_keys(JOB, {"packing.tokens": 160, "packing.vision_rows": 3, "packing.patches": 72, **smaller})
    run = scripted_run(job, tmp_path)
    data = run.batching.batches([MappedSource(range(9), samples.example)], [1], seed=0, batch=4)
    planned = Steps(job, make_mesh(job.mesh, jax.devices()[:1])).build("sft").arguments[1]
    layout = [[(x.shape, x.dtype) for x in jax.tree.leaves(one)] for one in (next(data), planned)]
    assert layout[0] == layout[1]
    few = run.batching.collate(run.batching.fill([samples.example(1)], 4), 4, {})
    assert few.tokens.shape == (4, 60) and few.vision.patches.shape == (4, 1, 72, 1176)


def test_a_batch_that_the_mesh_does_not_divide_is_refused():
    job = with_keys(JOB, {"mesh.fsdp": 8, "cold_start.batch": 4})
    if jax.device_count() < 8:
        with pytest.raises(ConfigError, match="do not cover"):
            make_mesh(job.mesh, jax.devices())
        return
    with pytest.raises(ConfigError, match="a multiple"):
        Steps(job, make_mesh(job.mesh, jax.devices()[:8])).build("sft")
