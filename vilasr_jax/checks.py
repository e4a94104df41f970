"""What can't be run is refused before anything is written, or computed for hours.

One function for each part of a job; each raises a UserError that names the key and what to do.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from vilasr_jax.checkpoint.hf_import import open_hf
from vilasr_jax.config import JobConfig, RLSection, flatten, to_dict
from vilasr_jax.drawing import DrawingSession
from vilasr_jax.errors import ConfigError
from vilasr_jax.models import preset, published_sizes
from vilasr_jax.models.attention_backends import require_backend
from vilasr_jax.processing import Tokenizer
from vilasr_jax.rewards import get_reward
from vilasr_jax.tasks.sources import FORMATS
from vilasr_jax.training.advantages import ADVANTAGES
from vilasr_jax.training.context import Context
from vilasr_jax.training.groups import OVERLONG
from vilasr_jax.training.keep import check_rule
from vilasr_jax.training.losses import POLICY_LOSSES, SFT_LOSSES
from vilasr_jax.training.optimizers import make_optimizer
from vilasr_jax.training.soft_drawing import check_soft_drawing
from vilasr_jax.training.state import check_groups

TRAINED = ("cold_start", "reflect", "rl")
OTHERS = ("synthesize", "eval", "export", "report")
OLD_LOGPROBS = ("rollout", "trained")
_MAY_BE_NEGATIVE = ("mesh.", "rl.rewards.")
_AT_LEAST_1 = (
    "eval.shard",
    "eval.samples",
    "reflect.shard",
    "synthesis.shard",
    "engine.slots",
    "engine.lanes",
    "engine.decode_steps",
    "engine.draw_workers",
    "drawing.max_turns",
    "drawing.max_images",
    "reflect.questions",
    "reflect.samples",
    "rl.prompts",
    *(
        f"{stage}.sampling.{key}"
        for stage in ("reflect", "rl", "eval", "synthesis")
        for key in ("max_turn_tokens", "max_tokens")
    ),
)


def check(context: Context, stages: Sequence[str] | None = None) -> None:
    """Raises a UserError for what the unfinished `stages` of a job (by default all of its) can't do."""
    job = context.job
    stages = job.stages if stages is None else stages
    unknown = [name for name in job.stages if name not in (*TRAINED, *OTHERS)]
    if unknown:
        raise ConfigError(f"config.stages: no stage {unknown[0]!r}")
    check_model(context)
    DrawingSession([], "", settings=context.settings)
    check_soft_drawing(job.soft_drawing)
    for split in ("train", "rl", "val", "test"):
        context.specs(split)
    for family in context.families:
        family.ood(context.section(family))
    check_choices(job)
    check_rl(job.rl)
    check_layout(context)
    check_lengths(job)
    check_data(context, stages)
    check_coordinates(context, stages)


def check_model(context: Context) -> None:
    """The first weights and the tokenizer are there, unless the workdir holds what they were needed for."""
    job, model = context.job, context.job.model
    require_backend(
        model.attention,
        context.mesh.devices.flat[0].platform,
        context_parallel=job.mesh.context_parallel,
        packed_segments=job.packing.tokens > 0,
    )
    if not model.init_from:
        preset(model.preset, remat=model.remat, attention=model.attention)
        if model.preset in published_sizes() and not model.random_weights:
            raise ConfigError(
                f"config.model.preset={model.preset!r} starts from published weights: name their "
                "Hugging Face folder with config.model.init_from, or say config.model.random_weights=True"
            )
    elif not context.has_first_weights:
        open_hf(model.init_from)
    if job.tokenizer and not context.has_tokenizer:
        Tokenizer.from_dir(job.tokenizer)


def check_choices(job: JobConfig) -> None:
    """Names and counts that are wrong by themselves."""
    for key, given, known in (
        ("cold_start.format", job.cold_start.format, FORMATS),
        ("cold_start.loss", job.cold_start.loss, SFT_LOSSES),
        ("reflect.loss", job.reflect.loss, SFT_LOSSES),
    ):
        if given not in known:
            raise ConfigError(f"config.{key}={given!r}: choose one of {', '.join(known)}")
    check_rule(job.synthesis.rule, "config.synthesis.rule")
    check_numbers(job)
    sections = (job.cold_start.perception_optimizer, *(getattr(job, name).optimizer for name in TRAINED))
    for section in sections:
        make_optimizer(section, 1)
        check_groups(section.freeze)
    for name in TRAINED:
        section = getattr(job, name)
        if section.epochs < 0:
            raise ConfigError(f"config.{name}.epochs={section.epochs:g} must not be negative")
        if name in job.stages and section.steps < 1 and not section.epochs:
            raise ConfigError(f"config.{name}.steps must be at least 1; or leave {name} out of config.stages")


def check_numbers(job: JobConfig) -> None:
    """Every number is finite and none is negative but where that means something; counts are at least 1."""
    values = flatten(to_dict(job))
    for key, value in values.items():
        for number in value if isinstance(value, tuple) else (value,):
            if not isinstance(number, (int, float)) or isinstance(number, bool):
                continue
            if not math.isfinite(number):
                raise ConfigError(f"config.{key}={value!r} must be a finite number")
            if number < 0 and not key.startswith(_MAY_BE_NEGATIVE):
                raise ConfigError(f"config.{key}={value!r} must not be negative")
    for key in _AT_LEAST_1:
        if values[key] < 1:
            raise ConfigError(f"config.{key} must be at least 1")
    image = job.image
    if not 0 < image.min_pixels <= image.max_pixels:
        raise ConfigError(
            f"config.image: min_pixels={image.min_pixels} must be more than 0 and no more than "
            f"max_pixels={image.max_pixels}"
        )


def check_layout(context: Context) -> None:
    """Batches divide over the mesh, and questions over the hosts."""
    _ = context.buckets, context.packing  # which refuse sizes that can't be
    job, shards = context.job, context.mesh.shape["data"] * context.mesh.shape["fsdp"]
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
                f"config.{name}.accumulate={section.accumulate}: {name}.batch={section.batch} does not make "
                f"so many parts for {shards} data shards"
            )
    if dict(context.mesh.local_mesh.shape)["model"] != context.mesh.shape["model"]:
        raise ConfigError(
            f"config.mesh.model={context.mesh.shape['model']} reaches over several hosts; sampling needs it "
            "within one: make it no more than a host's devices"
        )
    if job.rl.prompts % context.host[1]:
        hosts = context.host[1]
        raise ConfigError(f"config.rl.prompts={job.rl.prompts} must be a multiple of the {hosts} hosts")
    for key, size in batches.items():
        if key.split(".")[0] in job.stages and (size < 1 or size % shards):
            raise ConfigError(f"config.{key}={size} must be a multiple of the mesh's {shards} data shards")


def check_lengths(job: JobConfig) -> None:
    """What is sampled fits what is trained, prompts fit the engine, and the job says how to sample."""
    if job.engine.own_sampling:
        raise ConfigError("config.engine.own_sampling is for servers, whose requests say how to sample")
    packed = bool(job.packing.tokens)
    for name in ("reflect", "rl"):
        tokens = getattr(job, name).sampling.max_tokens
        most = job.packing.tokens if packed else job.buckets.tokens[-1]
        where = "the largest training bucket, config.buckets.tokens"
        where = "a packed row, config.packing.tokens" if packed else where
        if name in job.stages and tokens > most:
            raise ConfigError(f"config.{name}.sampling.max_tokens={tokens} is more than {where}={most}")
        images, most = job.drawing.max_images, job.buckets.images[-1]
        if name in job.stages and images > most:
            raise ConfigError(
                f"config.drawing.max_images={images} is more than the largest training bucket, "
                f"config.buckets.images={most}"
            )
    tokens, images = job.rl.sampling.max_tokens, job.drawing.max_images
    room = job.engine.prompt_tokens[-1], job.engine.prompt_images[-1]
    if "rl" in job.stages and job.rl.recovery and (room[0] < tokens or room[1] < images):
        raise ConfigError(
            f"config.rl.recovery={job.rl.recovery:g}: a replayed conversation is a prompt of up to {tokens} "
            f"tokens and {images} images, but config.engine.prompt_tokens ends at {room[0]} and "
            f"prompt_images at {room[1]}"
        )


def check_data(context: Context, stages: Sequence[str]) -> None:
    """Every stage to run has something to learn from, to ask and to be validated on, and it can be read."""
    job, data, made = context.job, context.job.data, bool(context.families)
    wanted: dict[str, str] = {}  # key of config.data -> the stage that can't do without

    def traces(stage: str) -> None:
        if data.traces and data.traces_share:
            wanted["traces"] = stage
        if not made and (not data.traces or data.traces_share < 1):
            what = "config.data.traces_share < 1 needs" if data.traces else "name config.data.traces, or"
            raise ConfigError(f"{stage} has no traces: {what} a family in config.tasks")

    def needs(use: str, stage: str) -> None:
        if getattr(data, use):
            wanted[use] = stage
        elif not made:
            raise ConfigError(f"config.data.{use}: {stage} needs imported rows, as config.tasks is empty")

    if "cold_start" in stages:
        traces("cold_start")
        if job.cold_start.perception_steps and not made:
            raise ConfigError("config.cold_start.perception_steps needs a family in config.tasks")
        if job.cold_start.validate_every:
            needs("benchmarks", "validation (config.cold_start.validate_every)")
    if data.reflect_traces and data.reflect_questions:
        raise ConfigError(
            "config.data.reflect_traces and config.data.reflect_questions are both given: reflect trains on "
            "recorded conversations or samples its own; clear one with ()"
        )
    if "reflect" in stages:
        if data.reflect_traces:
            wanted["reflect_traces"] = "reflect"
        else:
            needs("reflect_questions", "reflect")
        if job.reflect.kept_share < 1:
            traces("reflect (config.reflect.kept_share < 1)")
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
        context.imported.check(use, stage)
    if {"rl", "reflect"} & set(stages) and not data.share_questions:
        seen = [(f, context.imported.origins(f)) for f in data.folders("questions")]
        for folder in data.folders("reflect_questions"):
            mine = context.imported.origins(folder)
            if same := [other for other, theirs in seen if mine & theirs]:
                raise ConfigError(
                    f"config.data.reflect_questions and config.data.questions: {folder} and {same[0]} hold "
                    "the same rows: reflect and rl would ask the same questions; give each its own, or say "
                    "config.data.share_questions=True"
                )


def check_coordinates(context: Context, stages: Sequence[str]) -> None:
    """Raises ConfigError for what is written in pixels alone, where the model's coordinates are others."""
    job, family = context.job, context.model_family
    if family.coordinates is None:
        return
    section = job.cold_start
    pixels = {
        "cold_start.perception_steps": "cold_start" in stages and section.perception_steps,
        "cold_start.format": "cold_start" in stages and section.format == "text",
        "soft_drawing.weight": job.soft_drawing.weight,
        "data.traces": job.data.traces,
        "data.reflect_traces": job.data.reflect_traces,
    }
    for key in (key for key, used in pixels.items() if used):
        raise ConfigError(
            f"config.{key}: its coordinates are pixels, but {family.model_type} reads and writes them from "
            f"0 to {family.coordinates}"
        )


def check_rl(section: RLSection) -> None:
    """Raises ConfigError for settings of the RL stage that don't exist or can't work together."""
    for key, given, known in (
        ("advantage", section.advantage, ADVANTAGES),
        ("loss", section.loss, POLICY_LOSSES),
        ("overlong", section.overlong, OVERLONG),
        ("old_logprobs", section.old_logprobs, OLD_LOGPROBS),
    ):
        if given not in known:
            raise ConfigError(f"config.rl.{key}={given!r}: choose one of {', '.join(known)}")
    for name in section.rewards:
        get_reward(name)
    sampling = section.sampling
    if sampling.top_p < 1 or sampling.top_k or sampling.temperature <= 0:
        raise ConfigError(
            f"config.rl.sampling: temperature={sampling.temperature:g}, top_p={sampling.top_p:g}, top_k="
            f"{sampling.top_k}; the policy gradient is that of the whole distribution, which needs a "
            "temperature above 0, top_p=1.0 and top_k=0"
        )
    if section.group < 2:
        raise ConfigError(f"config.rl.group={section.group}: samples are compared in groups of 2 at least")
    if section.updates < 1 or section.prompts * section.group < section.updates:
        raise ConfigError(
            f"config.rl.updates={section.updates}: at least 1, at most prompts x group = "
            f"{section.prompts * section.group}"
        )
