"""A tiny model learns all four task families at once: mazes, pictures, videos, rooms from several cameras.

    vilasr train --config=configs/spatial_tiny.py --workdir=runs/spatial

The same rows as files, and a look at them:

    vilasr data make --config=configs/spatial_tiny.py --workdir=data/spatial
    vilasr data show --config=configs/spatial_tiny.py --out=data/spatial.html
"""

from vilasr_jax.config import (
    BucketSection,
    ColdStartSection,
    DrawingSection,
    EngineSection,
    EvalSection,
    ImageSection,
    JobConfig,
    MazeSection,
    MeshSection,
    OptimizerSection,
    PackingSection,
    SamplingSection,
    SceneSection,
    to_config_dict,
)


def get_config():
    """The job's configuration."""
    muon = OptimizerSection(
        name="muon", learning_rate=4e-3, schedule="cosine", warmup_fraction=0.1, final_fraction=0.1
    )
    tiny = SceneSection(level="tiny")
    return to_config_dict(
        JobConfig(
            name="spatial_tiny",
            tasks=("maze", "static", "video", "multiview"),
            tokenizer_size=768,
            stages=("cold_start", "eval", "export", "report"),
            image=ImageSection(max_pixels=140 * 140),
            buckets=BucketSection(tokens=(256, 384), images=(8,), patches=(64, 100)),
            packing=PackingSection(tokens=768, vision_rows=8, patches=128),
            drawing=DrawingSection(prompt="short", style="maze", max_turns=8, max_images=10),
            maze=MazeSection(grid=4, min_moves=2, max_moves=4, wall_density=0.35, ood_grid=5),
            static=tiny,
            video=tiny,
            multiview=tiny,
            mesh=MeshSection(cpu_devices=2),
            engine=EngineSection(
                slots=128,
                prompt_tokens=(192,),
                prompt_images=(5,),
                insert_tokens=(96,),
                insert_images=(4,),
                decode_steps=48,
                stop_fraction=0.9,
            ),
            cold_start=ColdStartSection(
                loss="token_mean",
                perception_steps=1400,
                perception_batch=4,
                perception_optimizer=muon,
                traces=16_000,
                slip_fraction=0.2,
                steps=1900,
                validate_every=500,
                batch=4,
                optimizer=muon,
            ),
            eval=EvalSection(
                rows=1024,
                validation_rows=256,
                sampling=SamplingSection(0.75, 0.9, max_turn_tokens=96, max_tokens=384),
            ),
        )
    )
