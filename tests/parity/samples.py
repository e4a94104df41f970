"""Small conversations with images and videos, and weights, the same on every machine; no torch here."""

import zlib

import numpy as np

from vilasr_jax.models import VisionInput, by_model_type, default_family, preset
from vilasr_jax.processing import SpecialTokens, patch_layout

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
TOKENS = dict(
    vocab_size=VOCAB,
    image_token_id=IMAGE,
    video_token_id=VIDEO,
    vision_start_token_id=START,
    vision_end_token_id=END,
    bos_token_id=206,
    eos_token_id=205,
)
CONFIG = preset(
    "tiny",
    **TOKENS,
    hidden_size=104,
    intermediate_size=71,
    head_dim=26,
    mrope_section=(3, 5, 5),
    vision={"depth": 3, "hidden_size": 40, "intermediate_size": 59},
)


QWEN3_CONFIG = preset(
    "qwen3vl_tiny",
    **TOKENS,
    hidden_size=104,
    intermediate_size=71,
    num_layers=4,
    head_dim=26,
    mrope_section=(5, 4, 4),
    vision={
        "depth": 5,
        "hidden_size": 40,
        "intermediate_size": 59,
        "position_side": 7,
        "deepstack_block_indexes": (0, 1, 3),
    },
)
CONFIGS = {"qwen2_5_vl": CONFIG, "qwen3_vl": QWEN3_CONFIG}


def random_tensor(key: str, shape, *, seed: int = 0, scale: float = 0.12) -> np.ndarray:
    """Values of the published tensor `key`, a function of key and seed alone: normal, around 1 for norms."""
    values = np.random.RandomState(zlib.crc32(key.encode()) ^ seed).standard_normal(shape) * scale
    is_norm = "norm" in key or "ln_q" in key
    return (values + is_norm).astype(np.float32)


class Sample:
    """One sequence: text with images and videos at random places.

    Args:
      parts: an int is that many text tokens; (t, h, w) an image's (t = 1) or video's grid in patches.
      seed: of tokens and pixels.
      seconds: seconds between temporal patches of the videos.
      family: whose patches they are, and whose way to count positions.
    """

    def __init__(self, parts, seed=0, seconds=None, family=None):
        self.family = family = family or default_family()
        rng = np.random.RandomState(seed)  # a stream that numpy promises not to change
        ids, self.grids, self.is_video = [], [], []
        for part in parts:
            if isinstance(part, int):
                ids += rng.randint(0, 200, part).tolist()
                continue
            video = part[0] > 1
            self.grids.append(part)
            self.is_video.append(video)
            t, h, w = part
            if video and family.model_type == "qwen3_vl":  # a frame is a picture after the text of its time
                for _ in range(t):
                    ids += [*rng.randint(0, 200, 3).tolist(), START, *[VIDEO] * (h * w // 4), END]
                continue
            ids += [START, *[VIDEO if video else IMAGE] * (t * h * w // 4), END]
        self.ids = np.array(ids, np.int32)
        values = family.images.patch_dim
        self.patches = [rng.normal(size=(t * h * w, values)).astype(np.float32) for t, h, w in self.grids]
        self.seconds = [seconds] * sum(self.is_video) if seconds is not None else None
        self.positions, _ = family.positions(
            self.ids, self.grids, SPECIAL, second_per_grid_ts=self.seconds, tokens_per_second=2
        )


def our_inputs(samples, *, side="right", pack=True, least=(0, 0)):
    """(tokens, positions, segment_ids, image_index, vision) of our model for the same batch.

    Args:
      samples: the batch.
      side: of the padding.
      pack: all images of a sample in one vision row, or a row each.
      least: (tokens, patches) to which rows are padded at least.
    """
    b, t = len(samples), max(least[0], *(len(s.ids) for s in samples))
    tokens, segments = np.zeros((b, t), np.int32), np.zeros((b, t), np.int32)
    positions = np.zeros((3, b, t), np.int32)
    index = np.full((b, t), -1, np.int32)
    rows = [[list(range(len(s.grids)))] if pack else [[i] for i in range(len(s.grids))] for s in samples]
    n = max(len(r) for r in rows)
    lengths = [sum(len(s.patches[i]) for i in row) for s, r in zip(samples, rows, strict=True) for row in r]
    p = max([least[1], *lengths])
    vision = VisionInput(
        np.zeros((b, n, p, samples[0].family.images.patch_dim), np.float32),
        np.zeros((b, n, p, 2), np.int32),
        np.zeros((b, n, p), np.int32),
        np.zeros((b, n, p), np.int32),
    )
    for at, s in enumerate(samples):
        where = slice(0, len(s.ids)) if side == "right" else slice(t - len(s.ids), t)
        tokens[at, where], segments[at, where], positions[:, at, where] = s.ids, 1, s.positions
        slots = []
        for row, members in enumerate(rows[at]):
            begin, windows, frames = 0, 0, 0
            for i in members:
                pos_hw, window_ids, image_ids = patch_layout(s.grids[i], s.family.images)
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


def cases(model_type: str) -> dict[str, list[Sample]]:
    """Batches of a family's conversations, by name."""

    def sample(parts, seed=0, seconds=None):
        return Sample(parts, seed, seconds, by_model_type(model_type))

    return {
        "text": [sample([37])],
        "one image": [sample([5, (1, 8, 12), 7])],
        "two images of two sizes": [sample([5, (1, 8, 12), 7, (1, 18, 10), 3])],
        "five ragged images over three turns": [
            sample([3, (1, 6, 10), 5, (1, 10, 6), 4, (1, 14, 22), 2, (1, 2, 2), 8, (1, 4, 30), 3])
        ],
        "a video": [sample([4, (3, 10, 14), 6], seconds=1.5)],
        "a mixed batch": [
            sample([5, (1, 8, 12), 7], 1),
            sample([21], 2),
            sample([2, (2, 6, 10), 9, (1, 12, 4), 1], 3, seconds=0.5),
        ],
    }


CASES = cases("qwen2_5_vl")
