"""The published training recipe (arXiv 2506.09965) with Qwen2.5-VL or Qwen3-VL, laid out on a TPU slice.

    vilasr sft --config=configs/vilasr.py:7b,v5e-64,cold_start --workdir=runs/7b \
        --config.model.init_from=Qwen2.5-VL-7B-Instruct
    vilasr train --config=configs/vilasr.py:7b,v5e-64 --workdir=runs/7b \
        --config.model.init_from=Qwen2.5-VL-7B-Instruct

After the colon: size, slice, and the stages where these are not all three (`7b,v5e-64,reflect,rl`). Sizes of
Qwen3-VL are `qwen3vl_4b` and `qwen3vl_8b`, for which recorded coordinates are converted. The checkpoints of
one layout open in every other. Every host of a pod runs the same command.

It reads imported rows from runs/data (`--config.data.root=DIR`), written by
`vilasr data import cold_start ViLaSR-data runs/data/cold_start`, and likewise `rrs` and `rl`. To sample
stage 2's traces from the cold start instead of reading published ones, clear `data.reflect_traces` and name
`data.reflect_questions`.

Where it is not as published:

- The published code shows images of another size to each stage; here one size, that of RL, serves them all.
- The published code trains stage 2 from the base model; here from stage 1.
- RL is not validated on the way: imported data has no held-out questions but the benchmarks.
- Conversations are packed into rows of 18,432 tokens. A supervised step has 8 rows, which hold the published
  32 conversations where these have 4,600 tokens on average, or a row a shard where there are more shards.
- 3B is a recipe for one host of 8 chips: packed rows of 8,192 tokens, and half the prompts.
"""

from typing import NamedTuple

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
    to_config_dict,
)
from vilasr_jax.errors import ConfigError

PATCHES = 4 * 256  # of an image: 256 tokens at most


class Size(NamedTuple):
    """What a step learns from, the same on every slice."""

    rows: int = 8  # packed, of an SFT step; at least one a shard
    prompts: int = 32  # questions of an RL step
    slots: int = 128  # conversations sampled at once
    token_buckets: tuple[int, ...] = (4096, 8192, 12288, 18432)  # the last: a prompt of 5,120 and 13,312 more
    image_buckets: tuple[int, ...] = (8, 24, 48)
    max_images: int = 45
    side: int = 28  # pixels a side of a token
    prompt_images: tuple[int, ...] = (1, 4, 16)
    packing: PackingSection = PackingSection(
        tokens=18432,
        vision_rows=48,
        patches=PATCHES,
        token_buckets=(6144, 12288),
        vision_row_buckets=(16, 32),
    )


class Layout(NamedTuple):
    """How a slice computes a step; fsdp x model is its number of chips."""

    fsdp: int  # shards of a batch; every weight is sharded as well
    model: int  # chips per shard: as few as hold the weights, of one host where a stage samples
    remat: str = "attention"  # what the backward pass recomputes


SIZES = {
    "3b": Size(
        rows=16,
        prompts=16,
        slots=32,
        token_buckets=(4096, 8192),
        image_buckets=(8, 24),
        max_images=24,
        prompt_images=(1, 4, 8),
        packing=PackingSection(tokens=8192, vision_rows=24, patches=PATCHES),
    ),
    "7b": Size(),
    "32b": Size(),
    "72b": Size(),
    "qwen3vl_4b": Size(side=32, slots=64),  # a token's cache is 2.6 times that of 7B
    "qwen3vl_8b": Size(side=32, slots=64),
}
# By the words of get_config. The cold start alone never samples, so that fewer chips per shard may do.
LAYOUTS = {
    "3b,v5e-8": Layout(4, 2),
    "3b,v5e-32": Layout(16, 2),
    "3b,v6e-16": Layout(16, 1),
    "3b,v5p-32": Layout(16, 1),
    "7b,v5e-8,cold_start": Layout(4, 2),
    "7b,v5e-32": Layout(8, 4),
    "7b,v5e-32,cold_start": Layout(16, 2, "full"),
    "7b,v5e-64": Layout(16, 4),
    "7b,v5e-64,cold_start": Layout(32, 2),
    "7b,v6e-16": Layout(8, 2),
    "7b,v5p-32": Layout(16, 1),
    "7b,v5p-32,cold_start": Layout(16, 1, "dots"),
    "32b,v5p-32": Layout(4, 4),
    "32b,v5p-32,cold_start": Layout(8, 2),
    "32b,v5p-128": Layout(16, 4),
    "32b,v5p-128,cold_start": Layout(32, 2),
    "32b,v5p-256": Layout(32, 4),
    "72b,v5p-32,cold_start": Layout(4, 4),
    "72b,v5p-128": Layout(16, 4),
    "72b,v5p-128,cold_start": Layout(16, 4),
    "72b,v5p-256": Layout(32, 4),
    "72b,v5p-256,cold_start": Layout(32, 4, "dots"),
    "qwen3vl_4b,v5e-64": Layout(16, 4),
    "qwen3vl_4b,v5e-64,cold_start": Layout(32, 2),
    "qwen3vl_4b,v6e-16": Layout(8, 2),
    "qwen3vl_4b,v5p-32": Layout(16, 1),
    "qwen3vl_8b,v5e-64": Layout(16, 4),
    "qwen3vl_8b,v6e-16": Layout(4, 4),
    "qwen3vl_8b,v5p-32": Layout(16, 1),
}


def get_config(words: str = "7b,v5e-64"):
    """The job's configuration for "SIZE,SLICE" or "SIZE,SLICE,STAGE,..."."""
    name, _, rest = words.partition(",")
    on, _, rest = rest.partition(",")
    stages = tuple(rest.split(",")) if rest else ("cold_start", "reflect", "rl")
    layout = LAYOUTS.get(words) or LAYOUTS.get(f"{name},{on}")
    if name not in SIZES:
        sizes = f"{', '.join(SIZES)}, each with a slice, as in 7b,v5e-8,cold_start"
        raise ConfigError(f"vilasr:{words}: no size {name!r}; there are: {sizes}")
    if layout is None:
        slices = "; ".join(f"vilasr:{key}" for key in LAYOUTS if key.startswith(f"{name},"))
        what = f"no layout of {name} for {on!r}" if on else f"which slice? {name} alone is no layout"
        raise ConfigError(f"vilasr:{words}: {what}; there are: {slices}")
    size = SIZES[name]
    batch = max(size.rows, layout.fsdp)
    # The learning rates (here and in rl) are the published ones, the same for every size and slice.
    sft = OptimizerSection(learning_rate=1e-5, warmup_fraction=0.1, freeze=("vision", "merger"))
    sampling = SamplingSection(max_turn_tokens=1024, max_tokens=size.token_buckets[-1])
    return to_config_dict(
        JobConfig(
            name=name,
            stages=stages,
            tasks=(),
            data=DataSection(
                root="runs/data",
                traces=("cold_start",),
                reflect_traces=("rrs",),
                questions=("rl",),
                frames=16,
            ),
            model=ModelSection(preset=name, dtype="bfloat16", remat=layout.remat, attention="splash"),
            mesh=MeshSection(data=1, fsdp=layout.fsdp, model=layout.model, context_parallel=layout.model > 1),
            image=ImageSection(min_pixels=4 * size.side**2, max_pixels=256 * size.side**2),
            buckets=BucketSection(tokens=size.token_buckets, images=size.image_buckets, patches=(PATCHES,)),
            packing=size.packing,
            drawing=DrawingSection(
                prompt="published", style="published", max_turns=10, maze_turns=20, max_images=size.max_images
            ),
            engine=EngineSection(
                slots=size.slots,
                prompt_tokens=(1024, 2048, 5120),
                insert_tokens=(384, 768),
                prompt_images=size.prompt_images,
                draw_workers=16,
            ),
            cold_start=ColdStartSection(  # 33k traces
                epochs=3.0, batch=batch, accumulate=batch // layout.fsdp, optimizer=sft, save_every=200
            ),
            reflect=ReflectSection(  # 8k traces
                questions=16_000,
                samples=4,
                sampling=sampling,
                epochs=3.0,
                batch=batch,
                accumulate=batch // layout.fsdp,
                optimizer=sft,
                shard=256,  # 63 of them: whole rounds of 8, 16 or 32 hosts, but for one
                save_every=200,
            ),
            rl=RLSection(  # 40k questions
                epochs=1.0,
                prompts=size.prompts,
                group=8,
                updates=2,
                micro_batch=layout.fsdp,
                old_logprobs="trained",
                sampling=sampling,
                optimizer=OptimizerSection(
                    learning_rate=1e-6,
                    schedule="constant",
                    warmup_fraction=0.0,
                    weight_decay=0.01,
                    clip_norm=1.0,
                ),
                save_every=10,
            ),
            eval=EvalSection(
                sampling=SamplingSection(
                    temperature=0.75, top_p=0.9, max_turn_tokens=1024, max_tokens=size.token_buckets[-1]
                )
            ),
        )
    )
