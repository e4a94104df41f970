"""The notebooks' model: 3x3 mazes, learned in eight minutes on two slow cores. Unlike the quickstart:

vilasr train --config=configs/maze_small.py --workdir=runs/notebooks
"""

from pathlib import Path

from vilasr_jax.config import read_config, to_config_dict


def get_config():
    """The job's configuration."""
    changes = {
        "name": "maze_small",
        "image.max_pixels": 84 * 84,
        "buckets.tokens": (96, 192, 288),
        "buckets.images": (1, 6),
        "buckets.patches": (36, 64),
        "packing.vision_rows": 8,
        "packing.patches": 72,
        "drawing.max_turns": 6,
        "drawing.max_images": 6,
        "maze.grid": 3,
        "maze.min_moves": 2,
        "maze.max_moves": 4,
        "maze.ood_grid": 4,
        "engine.slots": 64,
        "engine.prompt_tokens": (80,),
        "engine.insert_tokens": (48,),
        "cold_start.perception_steps": 200,
        "cold_start.perception_batch": 4,
        "cold_start.steps": 250,
        "cold_start.batch": 4,
        "cold_start.validate_every": 125,
        "eval.rows": 96,
        "eval.validation_rows": 64,
        "eval.gallery": 24,
        "reflect.questions": 96,
        "reflect.shard": 96,
        "reflect.steps": 30,
        "rl.steps": 12,
        "rl.prompts": 8,
        "rl.validate_every": 6,
    }
    changes |= {f"{stage}.sampling.max_tokens": 288 for stage in ("eval", "reflect", "rl")}
    return to_config_dict(read_config(Path(__file__).with_name("maze_tiny.py"), changes))
