"""Full fine-tuning of 3B on your own pictures (docs/your_own_pictures.md), on one GPU of 80 GiB.

    vilasr sft --config=configs/sft_3b_gpu.py --workdir=runs/photos_3b \
        --config.model.init_from=Qwen2.5-VL-3B-Instruct

The language model is trained, the vision tower is frozen, as published. Weights and AdamW are float32, steps
are computed in bfloat16: 16 bytes a trained weight with its gradient, 4 more while gradients are added up.
"""

from pathlib import Path

from vilasr_jax.config import read_config, to_config_dict


def get_config():
    """The job's configuration: packed rows of 8,192 tokens, one at a time."""
    changes = {
        "name": "sft_3b_gpu",
        "stages": ("cold_start", "eval", "export", "report"),
        "data.traces": ("photos",),
        "data.reflect_traces": (),
        "data.questions": (),
        "data.benchmarks": ("photos_test",),
        "drawing.prompt": "vilasr_jax",
        "drawing.style": "clear",
        "model.attention": "xla",
        "model.remat": "full",
        "mesh.data": 1,
        "mesh.fsdp": 1,
        "mesh.model": 1,
        "mesh.context_parallel": False,
        "cold_start.batch": 8,
        "cold_start.accumulate": 8,
        "cold_start.save_every": 100,
        "engine.slots": 16,
    }
    return to_config_dict(read_config(Path(__file__).with_name("vilasr.py:3b,v5e-8,cold_start"), changes))
