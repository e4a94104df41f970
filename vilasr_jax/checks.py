"""Checks of a job before anything is written or computed.

Limits of single values and rules between them are declared in `vilasr_jax.config`. Here are the checks that
need the mesh, the data or the weights. Each raises a UserError that names the key and what to do.
"""

from __future__ import annotations

from collections.abc import Sequence

from vilasr_jax.config import TRAINED, JobConfig, RLSection, check_section
from vilasr_jax.drawing import DrawingSession
from vilasr_jax.errors import ConfigError
from vilasr_jax.models import preset, published_sizes
from vilasr_jax.models.attention_backends import require_backend
from vilasr_jax.open_checkpoint import check_preset
from vilasr_jax.parallel import host_mesh, host_rows, mesh_hosts
from vilasr_jax.processing import Tokenizer
from vilasr_jax.rewards import get_reward
from vilasr_jax.training.run import Run


def check(run: Run, stages: Sequence[str] | None = None) -> None:
    """Raises a UserError for what the unfinished `stages` of a job (by default all of its) can't do."""
    job = run.job
    stages = job.stages if stages is None else stages
    check_section(job)
    check_rewards(job.rl)
    check_weights(job, stages)
    check_int8_base(run, stages)
    check_order(run, stages)
    check_model(run)
    DrawingSession([], "", settings=run.model.settings)
    for split in ("train", "rl", "val", "test"):
        run.tasks.specs(split)
    for family in run.tasks.families:
        family.ood(run.tasks.section(family))
    check_layout(run)
    check_data(run, stages)


def check_rewards(section: RLSection) -> None:
    """Every reward is registered."""
    for name in section.rewards:
        get_reward(name)


def check_weights(job: JobConfig, stages: Sequence[str]) -> None:
    """Only an evaluation samples with other weights than those that are trained."""
    wrong = [name for name in stages if name not in ("eval", "export", "report")]
    if job.engine.weights and wrong:
        raise ConfigError(
            f"config.engine.weights={job.engine.weights!r} is for evaluations; {wrong[0]} samples with the "
            "weights that are trained: leave it out"
        )


def check_int8_base(run: Run, stages: Sequence[str]) -> None:
    """An int8 base of LoRA is for stages that sample nothing, and its float weights stay where they are."""
    job, hosts = run.job, len(mesh_hosts(run.mesh))
    perception = job.cold_start.perception_optimizer.lora_base and job.cold_start.perception_steps
    if perception and "cold_start" in stages:
        raise ConfigError("config.cold_start.perception_optimizer.lora_base: the traces alone can have it")
    for name in (name for name in TRAINED if name in stages):
        if not getattr(job, name).optimizer.lora_base:
            continue
        where = f"config.{name}.optimizer.lora_base='int8'"
        reasons = {
            "cold_start": ("validates (validate_every)", job.cold_start.validate_every),
            "reflect": ("samples its traces; name config.data.reflect_traces", not job.data.reflect_traces),
            "rl": ("samples with the weights that are trained", True),
        }
        why, wrong = reasons[name]
        if wrong:
            raise ConfigError(f"{where}: {name} {why}, which needs the float weights; leave one of them out")
        if not job.model.init_from:
            raise ConfigError(
                f"{where}: checkpoints hold the adapter alone, so the weights that it belongs to must be "
                "stored: name them in config.model.init_from"
            )
        if hosts > 1:
            raise ConfigError(f"{where} is for one host; leave it out on {hosts}")
        if job.mesh.context_parallel:
            raise ConfigError(f"{where} does without config.mesh.context_parallel; leave one of them out")


def check_order(run: Run, stages: Sequence[str]) -> None:
    """No stage is to be trained after one that comes later, which began from other weights."""
    for name in (name for name in TRAINED if name in stages):
        if later := [other for other in TRAINED[TRAINED.index(name) + 1 :] if run.stages[other].begun]:
            raise ConfigError(
                f"{run.workdir} holds {later[0]}, which comes after {name} and did not start from it; choose "
                "another --workdir"
            )


def check_model(run: Run) -> None:
    """The first weights and the tokenizer can be opened, unless the workdir holds checkpoints already."""
    job, model = run.job, run.job.model
    require_backend(
        model.attention,
        run.mesh.devices.flat[0].platform,
        context_parallel=job.mesh.context_parallel,
        packed_segments=job.packing.tokens > 0,
    )
    if not model.init_from:
        preset(model.preset, remat=model.remat, attention=model.attention)
        if model.preset in published_sizes() and not model.random_weights:
            raise ConfigError(
                f"config.model.preset={model.preset!r} starts from published weights: name their folder, or "
                "hf://ORG/NAME, with config.model.init_from, or set config.model.random_weights=True"
            )
    elif not run.stages.first_is_saved:
        _ = run.model.source
    if model.init_from and model.preset:
        check_preset(job, run.model.family, run.model.config)
    if job.tokenizer and not run.model.has_tokenizer:
        Tokenizer.from_dir(job.tokenizer)


def check_layout(run: Run) -> None:
    """Batches divide over the mesh, and questions over the hosts."""
    _ = run.batching.buckets, run.batching.packing  # which raise for impossible sizes
    job, shards = run.job, run.mesh.shape["data"] * run.mesh.shape["fsdp"]
    batches = {
        "cold_start.perception_batch": job.cold_start.perception_batch,
        "cold_start.batch": job.cold_start.batch,
        "reflect.batch": job.reflect.batch,
        "rl.micro_batch": job.rl.micro_batch,
    }
    for name in ("cold_start", "reflect"):
        section = getattr(job, name)
        if section.accumulate < 1 or section.batch % (shards * section.accumulate):
            raise ConfigError(
                f"config.{name}.accumulate={section.accumulate}: {name}.batch={section.batch} must be "
                f"a multiple of that times {shards} data shards"
            )
    for host in mesh_hosts(run.mesh):
        host_rows(run.mesh, host)
        if samples(job):
            host_mesh(run.mesh, host)
    count = len(mesh_hosts(run.mesh))
    if job.rl.prompts % count:
        raise ConfigError(f"config.rl.prompts={job.rl.prompts} must be a multiple of the {count} hosts")
    for key, size in batches.items():
        if key.split(".")[0] in job.stages and (size < 1 or size % shards):
            raise ConfigError(f"config.{key}={size} must be a multiple of the mesh's {shards} data shards")


def samples(job: JobConfig) -> bool:
    """Whether any stage of the job samples conversations."""
    sampled = {"rl", "eval", "synthesize"} | (set() if job.data.reflect_traces else {"reflect"})
    validated = "cold_start" in job.stages and job.cold_start.validate_every
    return bool(validated or sampled & set(job.stages))


def check_data(run: Run, stages: Sequence[str]) -> None:
    """Every stage to run has readable data to train on, to sample from and to validate on."""
    job, data, generated = run.job, run.job.data, bool(run.tasks.families)
    wanted: dict[str, str] = {}  # key of config.data -> the stage that can't do without

    def traces(stage: str) -> None:
        if data.traces and data.traces_fraction:
            wanted["traces"] = stage
        if not generated and (not data.traces or data.traces_fraction < 1):
            what = "config.data.traces_fraction < 1 needs" if data.traces else "name config.data.traces, or"
            raise ConfigError(f"{stage} has no traces: {what} a family in config.tasks")

    def needs(use: str, stage: str) -> None:
        if getattr(data, use):
            wanted[use] = stage
        elif not generated:
            raise ConfigError(f"config.data.{use}: {stage} needs imported rows, as config.tasks is empty")

    if "cold_start" in stages:
        traces("cold_start")
        if job.cold_start.perception_steps and not generated:
            raise ConfigError("config.cold_start.perception_steps needs a family in config.tasks")
        if job.cold_start.validate_every:
            needs("benchmarks", "validation (config.cold_start.validate_every)")
    if "reflect" in stages:
        if data.reflect_traces:
            wanted["reflect_traces"] = "reflect"
        else:
            needs("reflect_questions", "reflect")
        if job.reflect.kept_fraction < 1:
            traces("reflect (config.reflect.kept_fraction < 1)")
    if "rl" in stages:
        needs("questions", "rl")
        if job.rl.epochs and not data.questions:
            raise ConfigError("config.rl.epochs counts passes over config.data.questions, which names none")
        if job.rl.epochs and job.rl.refill:
            raise ConfigError("config.rl.epochs can't be counted with config.rl.refill; give config.rl.steps")
        if job.rl.validate_every:
            needs("benchmarks", "validation (config.rl.validate_every)")
    if "synthesize" in stages:
        needs("synthesis_questions", "synthesize")
    if "eval" in stages:
        needs("benchmarks", "eval")
    for use, stage in wanted.items():
        run.tasks.imported.check(use, stage)
    if {"rl", "reflect"} & set(stages) and not data.allow_same_questions:
        seen = [(f, run.tasks.imported.origins(f)) for f in data.folders("questions")]
        for folder in data.folders("reflect_questions"):
            mine = run.tasks.imported.origins(folder)
            if same := [other for other, theirs in seen if mine & theirs]:
                raise ConfigError(
                    f"config.data.reflect_questions and config.data.questions: {folder} and {same[0]} hold "
                    "the same rows: reflect and rl would use the same questions; give each its own, or set "
                    "config.data.allow_same_questions=True"
                )
