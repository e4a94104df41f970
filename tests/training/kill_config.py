"""A job of a few steps a stage."""

from vilasr_jax.config import (
    BucketSection,
    ColdStartSection,
    DrawingSection,
    EngineSection,
    EvalSection,
    ImageSection,
    JobConfig,
    MazeSection,
    OptimizerSection,
    ReflectSection,
    RLSection,
    SamplingSection,
    SynthesisSection,
    to_config_dict,
)


def get_config():
    """The job's configuration."""
    muon = OptimizerSection(name="muon", learning_rate=4e-3)
    adam = OptimizerSection(learning_rate=1e-3)
    sampling = SamplingSection(max_turn_tokens=12, max_tokens=320)
    return to_config_dict(
        JobConfig(
            name="kill",
            stages=("cold_start", "reflect", "rl", "synthesize", "eval", "export"),
            image=ImageSection(max_pixels=84 * 84),
            buckets=BucketSection(tokens=(320,), images=(6,), patches=(36,)),
            drawing=DrawingSection(prompt="short", style="maze", max_turns=5, max_images=6),
            maze=MazeSection(grid=3, min_moves=2, max_moves=3, ood_grid=3),
            engine=EngineSection(slots=4, prompt_tokens=(96, 256), insert_tokens=(64,), decode_steps=12),
            cold_start=ColdStartSection(
                perception_steps=8,
                perception_batch=2,
                perception_optimizer=muon,
                traces=30,
                slip_fraction=0.5,
                steps=12,
                batch=2,
                optimizer=muon,
                save_every=3,
            ),
            reflect=ReflectSection(
                questions=12,
                samples=2,
                kept_fraction=0.6,
                shard=3,
                steps=9,
                batch=2,
                optimizer=adam,
                save_every=2,
                sampling=sampling,
            ),
            rl=RLSection(
                steps=6,
                prompts=2,
                group=4,
                updates=2,
                micro_batch=4,
                optimizer=adam,
                save_every=2,
                sampling=sampling,
            ),
            synthesis=SynthesisSection(questions=8, samples=2, shard=2, sampling=sampling),
            eval=EvalSection(rows=8, validation_rows=4, samples=2, shard=3, sampling=sampling, gallery=2),
        )
    )
