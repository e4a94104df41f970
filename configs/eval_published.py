"""The published evaluation: temperature 0.75, top-p 0.9, 351,232 pixels (448 tokens) an image, 16 frames a
video, 10 turns (20 for mazes), 45 images a conversation.

    vilasr data import cold_start ViLaSR-data runs/data/cold_start      (keeps the published prompt)
    vilasr data import vsi_bench ViLaSR-eval runs/data/vsi_bench        (and maze, spar_bench, ...)
    vilasr eval --config=configs/eval_published.py --workdir=runs/published \
        --config.drawing.prompt=runs/data/cold_start \
        --config.model.init_from=MODEL --config.data.benchmarks="('vsi_bench',)"

The published code lets a turn grow to 16,384 tokens; here it has 4,096, and a conversation 32,768.
"""

from vilasr_jax.config import (
    BucketSection,
    DataSection,
    DrawingSection,
    EngineSection,
    EvalSection,
    ImageSection,
    JobConfig,
    ModelSection,
    SamplingSection,
    to_config_dict,
)

BENCHMARKS = ("maze", "SpatialEval_spatialreal", "vsi_bench", "spar_bench", "mmsi_bench")
PIXELS = 448 * 28 * 28


def get_config():
    """The job's configuration."""
    return to_config_dict(
        JobConfig(
            name="eval_published",
            tasks=(),
            stages=("eval",),
            model=ModelSection(dtype="bfloat16", param_dtype="bfloat16"),
            image=ImageSection(max_pixels=PIXELS),
            buckets=BucketSection(tokens=(32768,), images=(45,), patches=(448 * 4,)),
            drawing=DrawingSection(
                prompt="published", style="published", max_turns=10, maze_turns=20, max_images=45
            ),
            engine=EngineSection(
                slots=32,
                prompt_tokens=(2048, 9216),
                insert_tokens=(640, 2048),
                prompt_images=(2, 16),
                insert_images=(1, 4),
                decode_steps=64,
            ),
            eval=EvalSection(
                samples=1,
                shard=256,
                sampling=SamplingSection(0.75, 0.9, max_turn_tokens=4096, max_tokens=32768),
            ),
            data=DataSection(root="runs/data", benchmarks=BENCHMARKS, frames=16),
        )
    )
