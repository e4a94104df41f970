"""A tiny model on your own pictures (docs/your_own_pictures.md), to see that everything works.

vilasr train --config=configs/pictures_tiny.py --workdir=runs/photos
"""

from pathlib import Path

from vilasr_jax.config import read_config, to_config_dict


def get_config():
    """The job's configuration: pictures of at most 140 x 140 pixels, in memory that a laptop has."""
    changes = {
        "name": "pictures_tiny",
        "tasks": (),
        "tokenizer_size": 768,
        "data.root": "runs/data",
        "data.traces": ("photos",),
        "data.benchmarks": ("photos_test",),
        "buckets.tokens": (256, 512, 768),
        "buckets.images": (4, 8),
        "packing.tokens": 768,
        "packing.vision_rows": 8,
        "drawing.style": "clear",
        "engine.prompt_tokens": (192, 384),
        "engine.insert_tokens": (128,),
        "cold_start.perception_steps": 0,
        "cold_start.steps": 300,
        "cold_start.validate_every": 0,
        "eval.sampling.max_turn_tokens": 160,
        "eval.sampling.max_tokens": 768,
        "stages": ("cold_start", "eval", "export", "report"),
    }
    return to_config_dict(read_config(Path(__file__).with_name("maze_tiny.py"), changes))
