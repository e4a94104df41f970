"""The notebooks' model: 3x3 mazes, learned in a few minutes on two cores.

    vilasr train --config=configs/maze_small.py --workdir=runs/notebooks
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
    ReflectSection,
    RLSection,
    SamplingSection,
    to_config_dict,
)


def get_config():
    """The job's configuration."""
    muon = OptimizerSection(
        name="muon", learning_rate=4e-3, schedule="cosine", warmup_share=0.1, final_share=0.1
    )
    sampling = SamplingSection(max_turn_tokens=48, max_tokens=288)
    return to_config_dict(
        JobConfig(
            name="maze_small",
            image=ImageSection(max_pixels=84 * 84),
            buckets=BucketSection(tokens=(96, 192, 288), images=(1, 6), patches=(36, 64)),
            drawing=DrawingSection(prompt="short", style="maze", max_turns=6, max_images=6),
            maze=MazeSection(grid=3, min_moves=2, max_moves=4, wall_density=0.35, ood_grid=4),
            mesh=MeshSection(cpu_devices=2),
            engine=EngineSection(
                slots=64, prompt_tokens=(80,), insert_tokens=(48,), decode_steps=48, stop_share=0.9
            ),
            cold_start=ColdStartSection(
                perception_steps=200,
                perception_batch=32,
                perception_optimizer=muon,
                traces=400,
                slip_share=0.25,
                steps=250,
                validate_every=125,
                batch=16,
                optimizer=muon,
            ),
            eval=EvalSection(
                rows=96,
                validation_rows=64,
                gallery=24,
                sampling=SamplingSection(0.75, 0.9, max_turn_tokens=48, max_tokens=288),
            ),
            reflect=ReflectSection(
                questions=96,
                samples=4,
                shard=96,
                kept_share=0.5,
                sampling=sampling,
                steps=30,
                batch=16,
                optimizer=OptimizerSection(learning_rate=3e-4),
            ),
            rl=RLSection(
                steps=12,
                prompts=8,
                group=8,
                updates=2,
                micro_batch=16,
                sampling=sampling,
                optimizer=OptimizerSection(learning_rate=1e-4, schedule="constant", weight_decay=0.01),
                validate_every=6,
            ),
        )
    )
