"""A small random transformers model, and inputs for it and for ours made from the same conversation."""

import numpy as np
import torch
import transformers

from vilasr_jax.models.qwen2_5_vl import VisionInput
from vilasr_jax.processing import mrope_positions, patch_layout
from vilasr_jax.processing.tokenizer import SpecialTokens

VOCAB, IMAGE, VIDEO, START, END = 211, 200, 201, 202, 203
SPECIAL = SpecialTokens(
    im_start=204,
    im_end=205,
    endoftext=206,
    vision_start=START,
    vision_end=END,
    image_pad=IMAGE,
    video_pad=VIDEO,
)
torch.set_num_threads(1)


def hf_model(*, tie=False, dtype=torch.float32, seed=0, scale=0.12):
    """Qwen2_5_VLForConditionalGeneration with odd widths and random weights, norms and biases."""
    config = transformers.Qwen2_5_VLConfig(
        text_config={
            "vocab_size": VOCAB, "hidden_size": 104, "intermediate_size": 71, "num_hidden_layers": 3,
            "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-6,
            "max_position_embeddings": 997, "bos_token_id": 206, "eos_token_id": 205,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [3, 5, 5]},
        },
        vision_config={
            "depth": 3, "hidden_size": 40, "intermediate_size": 59, "num_heads": 2, "out_hidden_size": 104,
            "fullatt_block_indexes": [1], "tokens_per_second": 2,
        },
        image_token_id=IMAGE, video_token_id=VIDEO, vision_start_token_id=START, vision_end_token_id=END,
        tie_word_embeddings=tie,
    )  # fmt: skip
    model = transformers.Qwen2_5_VLForConditionalGeneration._from_config(config, attn_implementation="eager")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, scale, generator=generator)
            if "norm" in name or "ln_q" in name:
                parameter.add_(1)
    model.tie_weights()
    return model.to(dtype).eval()


class Sample:
    """One sequence: text with images and videos at random places.

    Args:
      parts: an int is that many text tokens; (t, h, w) an image's (t = 1) or video's grid in patches.
      seed: of tokens and pixels.
      seconds: seconds between temporal patches of the videos.
    """

    def __init__(self, parts, seed=0, seconds=None):
        rng = np.random.default_rng(seed)
        ids, self.grids, self.is_video = [], [], []
        for part in parts:
            if isinstance(part, int):
                ids += rng.integers(0, 200, part).tolist()
                continue
            video = part[0] > 1
            self.grids.append(part)
            self.is_video.append(video)
            ids += [START, *[VIDEO if video else IMAGE] * (part[0] * part[1] * part[2] // 4), END]
        self.ids = np.array(ids, np.int32)
        self.patches = [rng.normal(size=(t * h * w, 1176)).astype(np.float32) for t, h, w in self.grids]
        self.seconds = [seconds] * sum(self.is_video) if seconds is not None else None
        self.positions, _ = mrope_positions(
            self.ids, self.grids, SPECIAL, second_per_grid_ts=self.seconds, tokens_per_second=2
        )


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
    if seconds:
        inputs["second_per_grid_ts"] = torch.tensor(seconds)
    return inputs


def our_inputs(samples, *, side="right", pack=True):
    """(tokens, positions, segment_ids, image_index, vision) of our model for the same batch.

    Args:
      samples: the batch.
      side: of the padding.
      pack: all images of a sample in one vision row, or a row each.
    """
    b, t = len(samples), max(len(s.ids) for s in samples)
    tokens, segments = np.zeros((b, t), np.int32), np.zeros((b, t), np.int32)
    positions = np.zeros((3, b, t), np.int32)
    index = np.full((b, t), -1, np.int32)
    rows = [[list(range(len(s.grids)))] if pack else [[i] for i in range(len(s.grids))] for s in samples]
    n = max(len(r) for r in rows)
    lengths = [sum(len(s.patches[i]) for i in row) for s, r in zip(samples, rows, strict=True) for row in r]
    p = max(lengths, default=0)
    vision = VisionInput(
        np.zeros((b, n, p, 1176), np.float32), np.zeros((b, n, p, 2), np.int32),
        np.zeros((b, n, p), np.int32), np.zeros((b, n, p), np.int32),
    )  # fmt: skip
    for at, s in enumerate(samples):
        where = slice(0, len(s.ids)) if side == "right" else slice(t - len(s.ids), t)
        tokens[at, where], segments[at, where], positions[:, at, where] = s.ids, 1, s.positions
        slots = []
        for row, members in enumerate(rows[at]):
            begin, windows, frames = 0, 0, 0
            for i in members:
                pos_hw, window_ids, image_ids = patch_layout(s.grids[i])
                end = begin + len(pos_hw)
                vision.patches[at, row, begin:end] = s.patches[i]
                vision.pos_hw[at, row, begin:end] = pos_hw
                vision.window_ids[at, row, begin:end] = window_ids + windows
                vision.image_ids[at, row, begin:end] = image_ids + frames
                slots.append(np.arange(begin // 4, end // 4) + row * p // 4)
                begin, windows, frames = end, windows + window_ids.max(), frames + image_ids.max()
        is_pad = np.isin(s.ids, (IMAGE, VIDEO))
        if slots:
            index[at, where] = np.where(is_pad, 0, -1)
            index[at, where][is_pad] = np.concatenate(slots)
    return tokens, positions, segments, index, (vision if p else None)
