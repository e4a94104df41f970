"""The published training recipe (arXiv 2506.09965) as one job, whose stages the files of `configs/` start.

All stages share one workdir and so one config, but for the layout over devices; each file only names the
stages to run now. Where it is not as published:

- The published code shows images of another size to each stage; here one size, that of RL, serves them all.
- The published code trains stage 2 from the base model; here from stage 1.
- Trajectories of RL are not validated on the way: imported data has no held-out questions but the benchmarks.
"""

from __future__ import annotations

import dataclasses

from vilasr_jax.config import (
    BucketSection,
    ColdStartSection,
    DataSection,
    DrawingSection,
    EngineSection,
    EvalSection,
    ImageSection,
    JobConfig,
    MeshSection,
    ModelSection,
    OptimizerSection,
    PackingSection,
    ReflectSection,
    RLSection,
    SamplingSection,
)

IMAGE_TOKENS = 256  # at most, of an image
TOKENS = 18432  # of a conversation: a prompt of 5,120 and 13,312 more
TURN_TOKENS = 1024
LANGUAGE_ONLY = ("vision", "merger")  # frozen in both SFT stages
# ViLaSR-data, imported with `vilasr data import cold_start ViLaSR-data runs/data/cold_start`, and likewise
# `rrs` and `rl`; `data.root` says where else they are.
DATA = DataSection(
    root="runs/data", traces=("cold_start",), reflect_traces=("rrs",), questions=("rl",), frames=16
)


def published_7b(stages: tuple[str, ...]) -> JobConfig:
    """Qwen2.5-VL-7B-Instruct as published; the layout is for 32 chips of 16 GiB (v5e-32).

    Cold start: 33k traces, 3 epochs, batch 32. Reflect: 8k traces, the same. RL: 40k questions, 1 epoch, 32 a
    step, groups of 8, 2 updates of 128, log-probabilities computed again before the first of them. To sample
    stage 2's traces from the cold start instead of reading published ones, clear `data.reflect_traces` and
    name `data.reflect_questions`.
    """
    sft = OptimizerSection(learning_rate=1e-5, warmup_share=0.1, freeze=LANGUAGE_ONLY)
    sampling = SamplingSection(max_turn_tokens=TURN_TOKENS, max_tokens=TOKENS)
    return JobConfig(
        name="7b",
        stages=stages,
        tasks=(),
        data=DATA,
        model=ModelSection(preset="7b", dtype="bfloat16", remat="full", attention="splash"),
        image=ImageSection(min_pixels=4 * 28 * 28, max_pixels=IMAGE_TOKENS * 28 * 28),
        buckets=BucketSection(
            tokens=(4096, 8192, 12288, TOKENS), images=(8, 24, 48), patches=(4 * IMAGE_TOKENS,)
        ),
        drawing=DrawingSection(
            prompt="published", style="published", max_turns=10, maze_turns=20, max_images=45
        ),
        mesh=MeshSection(data=1, fsdp=-1, model=4, context_parallel=True),
        engine=EngineSection(
            slots=128,
            prompt_tokens=(1024, 2048, 5120),
            insert_tokens=(384, 768),
            prompt_images=(1, 4, 16),
            draw_workers=16,
        ),
        cold_start=ColdStartSection(epochs=3.0, batch=32, accumulate=4, optimizer=sft, save_every=200),
        reflect=ReflectSection(
            questions=16_000,
            samples=4,
            sampling=sampling,
            epochs=3.0,
            batch=32,
            accumulate=4,
            optimizer=sft,
            shard=1024,
            save_every=200,
        ),
        rl=RLSection(
            epochs=1.0,
            prompts=32,
            group=8,
            updates=2,
            micro_batch=8,
            old_logprobs="trained",
            sampling=sampling,
            optimizer=OptimizerSection(
                learning_rate=1e-6, schedule="constant", warmup_share=0.0, weight_decay=0.01, clip_norm=1.0
            ),
            save_every=10,
        ),
        eval=EvalSection(sampling=SamplingSection(0.75, 0.9, max_turn_tokens=TURN_TOKENS, max_tokens=TOKENS)),
    )


def small_host_3b(stages: tuple[str, ...]) -> JobConfig:
    """Qwen2.5-VL-3B-Instruct on one host of 8 chips of 16 GiB (v5e-8): the 7B recipe, in packed rows of 8,192
    tokens, conversations of at most as many, and half the rollout batch."""
    job = published_7b(stages)
    most = 8192
    sampling = dataclasses.replace(job.rl.sampling, max_tokens=most)
    return dataclasses.replace(
        job,
        name="3b",
        model=dataclasses.replace(job.model, preset="3b"),
        buckets=BucketSection(tokens=(4096, most), images=(8, 24), patches=(4 * IMAGE_TOKENS,)),
        packing=PackingSection(tokens=most, vision_rows=24, patches=4 * IMAGE_TOKENS),
        drawing=dataclasses.replace(job.drawing, max_images=24),
        mesh=MeshSection(data=1, fsdp=-1, model=2, context_parallel=True),
        engine=dataclasses.replace(job.engine, slots=32, prompt_images=(1, 4, 8)),
        cold_start=dataclasses.replace(job.cold_start, batch=16, accumulate=4),
        reflect=dataclasses.replace(job.reflect, batch=16, accumulate=4, sampling=sampling),
        rl=dataclasses.replace(job.rl, prompts=16, micro_batch=4, sampling=sampling),
        eval=dataclasses.replace(job.eval, sampling=dataclasses.replace(job.eval.sampling, max_tokens=most)),
    )
