"""LoRA of 7B on your own pictures (docs/your_own_pictures.md): one TPU chip of 16 GiB or one GPU of 24 GiB.

    vilasr sft --config=configs/lora_7b.py --workdir=runs/photos_lora \
        --config.model.init_from=Qwen2.5-VL-7B-Instruct
    vilasr sft --config=configs/lora_7b.py:gpu --workdir=runs/photos_lora \
        --config.model.init_from=Qwen2.5-VL-7B-Instruct
    vilasr sft --config=configs/lora_7b.py --workdir=runs/photos_lora --config.model.preset=qwen3vl_8b \
        --config.image.max_pixels=262144 --config.model.init_from=Qwen3-VL-8B-Instruct

The frozen weights are int8, the adapter is float32: 8.2 GiB of 7B before activations, 8.7 of qwen3vl_8b, 4.5
of qwen3vl_4b. Checkpoints hold the adapter alone, so `init_from` must stay where it is. Rows of 4,096 tokens
hold 12 pictures of 256 tokens at most; longer conversations are left out by name.
"""

from pathlib import Path

from vilasr_jax.config import read_config, to_config_dict
from vilasr_jax.errors import ConfigError

DEVICES = {"v5e-1": "splash", "gpu": "xla"}  # and their attention


def get_config(device: str = "v5e-1"):
    """The job's configuration for "v5e-1", or "gpu"."""
    if device not in DEVICES:
        raise ConfigError(f"configs/lora_7b.py:{device}: no such device; there are: {', '.join(DEVICES)}")
    changes = {
        "name": "lora_7b",
        "stages": ("cold_start", "report"),
        "data.traces": ("photos",),
        "data.reflect_traces": (),
        "data.questions": (),
        "drawing.prompt": "vilasr_jax",
        "drawing.style": "clear",
        "drawing.max_images": 12,
        "model.attention": DEVICES[device],
        "model.param_dtype": "bfloat16",
        "model.remat": "full",
        "mesh.data": 1,
        "mesh.fsdp": 1,
        "mesh.model": 1,
        "mesh.context_parallel": False,
        "packing.tokens": 4096,
        "packing.vision_rows": 12,
        "packing.token_buckets": (2048,),
        "packing.vision_row_buckets": (6,),
        "cold_start.batch": 8,
        "cold_start.accumulate": 8,
        "cold_start.save_every": 50,
        "cold_start.optimizer.learning_rate": 2e-4,
        "cold_start.optimizer.lora_rank": 16,
        "cold_start.optimizer.lora_alpha": 32.0,
        "cold_start.optimizer.lora_base": "int8",
        "engine.slots": 8,
        "engine.prompt_tokens": (1024, 2048),
        "engine.prompt_images": (1, 4),
        "eval.sampling.max_tokens": 4096,
    }
    return to_config_dict(read_config(Path(__file__).with_name("vilasr.py:7b,v5e-8,cold_start"), changes))
