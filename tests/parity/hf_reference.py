"""The reference: a small transformers model with the weights of `samples.py`, and its inputs."""

import numpy as np
import torch
import transformers

from tests.parity.samples import CONFIG, IMAGE, VIDEO, random_tensor
from vilasr_jax.checkpoint.hf_config import config_to_hf
from vilasr_jax.models import family_of

torch.set_num_threads(1)


def hf_model(config=CONFIG, *, tie=False, dtype=torch.float32, seed=0):
    """transformers' model of `config`'s family and sizes."""
    published_name = family_of(config).published_name
    values = config_to_hf(config.replace(tie_word_embeddings=tie), layout="nested")
    config = transformers.AutoConfig.for_model(**values)
    model = getattr(transformers, values["architectures"][0])._from_config(
        config, attn_implementation="eager"
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(random_tensor(published_name(name), parameter.shape, seed=seed)))
    return model.to(dtype).eval()


def hf_inputs(samples, *, side="right"):
    """Keyword arguments of the transformers model for a padded batch."""
    length = max(len(s.ids) for s in samples)
    ids = np.zeros((len(samples), length), np.int64)
    mask = np.zeros_like(ids)
    for row, s in enumerate(samples):
        where = slice(0, len(s.ids)) if side == "right" else slice(length - len(s.ids), length)
        ids[row, where], mask[row, where] = s.ids, 1
    kinds = {"pixel_values": (False, "image_grid_thw"), "pixel_values_videos": (True, "video_grid_thw")}
    inputs = {
        "input_ids": torch.tensor(ids),
        "attention_mask": torch.tensor(mask),
        "mm_token_type_ids": torch.tensor((ids == IMAGE) + 2 * (ids == VIDEO)),
    }
    for name, (video, grid_name) in kinds.items():
        media = [m for s in samples for m in zip(s.patches, s.grids, s.is_video, strict=True)]
        chosen = [(p, g) for p, g, v in media if v == video]
        if chosen:
            inputs[name] = torch.tensor(np.concatenate([p for p, _ in chosen]))
            inputs[grid_name] = torch.tensor([g for _, g in chosen])
    seconds = [x for s in samples for x in s.seconds or []]
    if seconds and samples[0].family.model_type == "qwen2_5_vl":
        inputs["second_per_grid_ts"] = torch.tensor(seconds)
    return inputs
