"""The quickstart: a tiny model learns to answer maze questions by drawing, in minutes on two cores.

vilasr train --config=configs/maze_tiny.py --workdir=runs/quickstart
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
    ReflectSection,
    RLSection,
    SamplingSection,
    to_config_dict,
)


def get_config():
    """The job's configuration."""
    muon = OptimizerSection(
        name="muon", learning_rate=4e-3, schedule="cosine", warmup_fraction=0.1, final_fraction=0.1
    )
    sampling = SamplingSection(max_turn_tokens=48, max_tokens=480)
    return to_config_dict(
        JobConfig(
            name="maze_tiny",
            image=ImageSection(max_pixels=140 * 140),
            buckets=BucketSection(tokens=(128, 320, 416, 480), images=(1, 6, 8), patches=(100, 144)),
            packing=PackingSection(tokens=560, vision_rows=10, patches=100),
            drawing=DrawingSection(prompt="short", style="maze", max_turns=9, max_images=8),
            maze=MazeSection(grid=5, min_moves=4, max_moves=6, wall_density=0.35),
            mesh=MeshSection(cpu_devices=2),
            engine=EngineSection(
                slots=128, prompt_tokens=(96,), insert_tokens=(64,), decode_steps=48, stop_fraction=0.9
            ),
            cold_start=ColdStartSection(
                loss="token_mean",
                perception_steps=240,
                perception_batch=8,
                perception_optimizer=muon,
                traces=400,
                slip_fraction=0.25,
                steps=800,
                validate_every=200,
                batch=8,
                optimizer=muon,
            ),
            eval=EvalSection(
                validation_rows=128, sampling=SamplingSection(0.75, 0.9, max_turn_tokens=48, max_tokens=480)
            ),
            reflect=ReflectSection(
                loss="token_mean",
                questions=192,
                samples=4,
                shard=96,
                kept_fraction=0.5,
                sampling=sampling,
                steps=40,
                batch=8,
                optimizer=OptimizerSection(learning_rate=1e-4),
            ),
            rl=RLSection(
                steps=54,
                prompts=16,
                group=8,
                updates=2,
                micro_batch=8,
                sampling=sampling,
                optimizer=OptimizerSection(learning_rate=1e-4, schedule="constant", weight_decay=0.01),
                validate_every=27,
            ),
        )
    )
