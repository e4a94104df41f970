"""Pixels, positions and token ids against transformers, run live (the `parity` extra)."""

import importlib.util
import io
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageOps

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from vilasr_jax.checkpoint.hf_config import preprocessor_config  # noqa: E402
from vilasr_jax.conversation_settings import frame_times  # noqa: E402
from vilasr_jax.drawing import DrawingSettings, joined  # noqa: E402
from vilasr_jax.errors import ImageError  # noqa: E402
from vilasr_jax.models import family_of, preset  # noqa: E402
from vilasr_jax.processing import (  # noqa: E402
    Tokenizer,
    encode_conversation,
    encode_turn,
    load_image,
    patch_layout,
    patchify,
    resize_image,
    train_tiny_tokenizer,
)
from vilasr_jax.tasks.rows import question_row  # noqa: E402

MIN_PIXELS, MAX_PIXELS = 28 * 28 * 4, 28 * 28 * 64
CONFIG = preprocessor_config(preset("tiny"), MIN_PIXELS, MAX_PIXELS)
PRESETS = ("tiny", "qwen3vl_tiny")


def random_picture(rng):
    """Any mode, any size; a third go through a file with an EXIF rotation."""
    mode = rng.choice(["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "RGB"])
    width, height = rng.integers(1, 300, 2).tolist()
    shape = rng.integers(0, 12)
    if shape == 0:
        width = 1
    elif shape == 1:
        width, height = int(rng.integers(400, 900)), int(rng.integers(5, 12))
    bands = len(Image.new("RGB" if mode == "P" else str(mode), (1, 1)).getbands())
    pixels = rng.integers(0, 256, (height, width, bands), dtype=np.uint8)
    if mode == "P":
        image = Image.fromarray(pixels).quantize(16)
        if rng.integers(2):
            image.info["transparency"] = 3
    elif mode == "1":
        image = Image.fromarray(pixels[..., 0] > 99)
    elif mode == "L":
        image = Image.fromarray(pixels[..., 0])
    else:
        image = Image.frombytes(str(mode), (width, height), pixels.tobytes())
    if mode in ("RGB", "L") and rng.integers(3) == 0:
        exif, buffer = Image.Exif(), io.BytesIO()
        exif[0x0112] = int(rng.integers(2, 9))
        image.save(buffer, "PNG", exif=exif)
        return buffer.getvalue()
    return image


@pytest.mark.parametrize("name", PRESETS)
def test_pixels_of_200_pictures(tmp_path, name):
    values, spec = preprocessor_config(preset(name), MIN_PIXELS, MAX_PIXELS), family_of(preset(name)).images
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(values))
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    processor = Qwen2VLImageProcessorPil.from_pretrained(tmp_path)
    rng = np.random.default_rng(0)
    refused = 0
    for number in range(200):
        source = random_picture(rng)
        reference = Image.open(io.BytesIO(source)) if isinstance(source, bytes) else source
        reference = ImageOps.exif_transpose(reference)
        try:
            image = resize_image(load_image(source), MIN_PIXELS, MAX_PIXELS, spec)
            patches, grid = patchify(image, spec=spec)
        except ImageError:
            refused += 1
            with pytest.raises(ValueError, match="aspect ratio"):
                processor(images=reference, return_tensors="np")
            continue
        theirs = processor(images=reference, return_tensors="np")
        assert tuple(theirs["image_grid_thw"][0]) == grid, number
        np.testing.assert_array_equal(theirs["pixel_values"], patches, err_msg=str(number))
    assert 0 < refused < 20


@pytest.mark.skipif(
    importlib.util.find_spec("torchvision") is not None, reason="torchvision resizes otherwise"
)
def test_auto_image_processor_reads_the_config(tmp_path):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(CONFIG))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2_5_vl"}))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    rng = np.random.default_rng(1)
    image = Image.fromarray(rng.integers(0, 256, (70, 130, 3), dtype=np.uint8))
    theirs = processor(images=image, return_tensors="np")
    patches, grid = patchify(resize_image(image, MIN_PIXELS, MAX_PIXELS))
    assert tuple(np.asarray(theirs["image_grid_thw"])[0]) == grid
    np.testing.assert_allclose(np.asarray(theirs["pixel_values"]), patches, atol=1e-6)


@pytest.mark.parametrize("fps", [2, 0.7, 24, 1 / 3])
def test_times_of_frames(fps):
    """The text before each frame, where a temporal patch holds the same frame twice, as each of ours does."""
    theirs = transformers.models.qwen3_vl.processing_qwen3_vl.Qwen3VLProcessor
    count, family = 23, family_of(preset("qwen3vl_tiny"))
    marks = {"vision_start_token": "", "vision_end_token": "", "video_token": "<image>"}
    own = SimpleNamespace(
        video_processor=SimpleNamespace(merge_size=2, temporal_patch_size=2),
        _calculate_timestamps=lambda *given: theirs._calculate_timestamps(None, *given),
        **marks,
    )
    twice = [number // 2 for number in range(2 * count)]
    video = {
        "video_grid_thw": [torch.tensor([count, 2, 2])],
        "video_metadata": [SimpleNamespace(fps=fps, frames_indices=twice)],
    }
    settings = DrawingSettings(prompt="short", timestamp=family.timestamp)
    row = question_row(
        [Image.new("RGB", (32, 32))] * count,
        "?",
        (),
        "video",
        seconds=frame_times(settings, count, fps, True),
    )
    said = joined(row.session(settings).messages[1], "<image>")
    ours = "".join(re.findall(r"<[\d.]+ seconds><image>", said))
    assert ours == theirs.replace_video_token(own, video, 0) and ours.count("<image>") == count


def test_layout_of_50_grids():
    vision = pytest.importorskip("transformers.vision_utils")
    rng = np.random.default_rng(2)
    for _ in range(50):
        grid = (int(rng.integers(1, 4)), *(2 * rng.integers(1, 12, 2)).tolist())
        pos_hw, window_ids, image_ids = patch_layout(grid)
        thw = torch.tensor([grid])
        np.testing.assert_array_equal(pos_hw, vision.get_vision_position_ids(thw, 2))
        index, bounds = vision.get_vision_window_index(thw, 2, 112, 14)
        in_windows = window_ids.reshape(-1, 4)[index.numpy()].reshape(-1)
        changes = np.flatnonzero(np.diff(in_windows)) + 1
        np.testing.assert_array_equal(changes, bounds.numpy()[1:-1])
        assert len(set(window_ids)) == len(bounds) - 1
        frames = np.flatnonzero(np.diff(image_ids)) + 1
        np.testing.assert_array_equal(frames, vision.get_vision_cu_seqlens(thw).numpy()[1:-1])


@pytest.fixture(scope="module", params=PRESETS)
def model(request):
    """transformers' model of a family, for its way to count positions."""
    family = family_of(preset(request.param))
    small = preset(
        request.param,
        hidden_size=8,
        num_layers=1,
        num_heads=2,
        num_kv_heads=1,
        intermediate_size=8,
        vocab_size=64,
        vision={"depth": 1, "hidden_size": 8, "intermediate_size": 8, "tokens_per_second": 2},
    )
    config = transformers.AutoConfig.for_model(**family.config_to_hf(small, layout="nested"))
    return transformers.AutoModel.from_config(config), family


def test_positions_of_1000_conversations(model):
    model, family = model
    clips = family.model_type == "qwen2_5_vl"  # in the other, a frame is a picture after the text of its time
    rng = np.random.default_rng(3)
    special = _special()
    for number in range(1000):
        ids, kinds, grids, seconds = [], [], [], []
        for _ in range(rng.integers(1, 7)):
            words = int(rng.integers(0, 20))
            ids += rng.integers(0, 20, words).tolist()
            kind = int(rng.integers(0, 3))
            if not kind:
                continue
            grid = (int(rng.integers(1, 6)) if kind == 2 else 1, *(2 * rng.integers(1, 8, 2)).tolist())
            pad = special.image_pad if kind == 1 else special.video_pad
            for size in [grid[0]] if clips else [1] * grid[0]:
                ids += [7, 8] if kind == 2 and not clips else []
                tokens = [pad] * (size * grid[1] * grid[2] // 4)
                ids += [special.vision_start, *tokens, special.vision_end]
            grids.append(grid)
            kinds.append(kind)
            if kind == 2:
                seconds.append(float(rng.choice([1.0, 0.5, 1 / 3, rng.uniform(0.05, 4)])))
        if not ids:
            continue
        ids = np.array(ids)
        of_kind = [[grid for grid, k in zip(grids, kinds, strict=True) if k == kind] for kind in (1, 2)]
        types = np.where(ids == special.image_pad, 1, np.where(ids == special.video_pad, 2, 0))
        theirs, _ = model.get_rope_index(
            input_ids=torch.tensor(ids)[None],
            mm_token_type_ids=torch.tensor(types)[None],
            image_grid_thw=torch.tensor(of_kind[0]) if of_kind[0] else None,
            video_grid_thw=torch.tensor(of_kind[1]) if of_kind[1] else None,
            **({"second_per_grid_ts": torch.tensor(seconds) if seconds else None} if clips else {}),
        )
        ours, _ = family.positions(ids, grids, special, second_per_grid_ts=seconds, tokens_per_second=2)
        np.testing.assert_array_equal(ours, theirs[:, 0].numpy(), err_msg=str(number))


def _special():
    from vilasr_jax.processing import SpecialTokens

    return SpecialTokens(*range(50, 57))


PHRASES = (
    "<think>",
    "</think>\nAction: Path Tracer\n",
    "A",
    '{"index": ',
    " is at ",
    "[\\](?:x)*+^$ ",
    "émile",
)
CORPUS = ["<think>the letter A is at 14, 42", "</think>\nAction: Path Tracer\n", '{"index": 1, "bbox": [-7]}']


def random_text(rng, alphabet=None):
    if rng.integers(2):
        words = [
            *PHRASES,
            *CORPUS,
            "14",
            "1400",
            "-7",
            " ",
            "\n",
            "\n\n",
            "  x",
            "é",
            "漢字",
            "Apple",
            "the's",
        ]
        return "".join(rng.choice(words, rng.integers(0, 8)))
    points = rng.choice([0x80, 0x800, 0xD7FF, 0x1FAFF], rng.integers(0, 12))
    codes = [int(rng.integers(0, limit)) for limit in points]
    return "".join(chr(code) for code in codes if not 0xD800 <= code < 0xE000)


@pytest.fixture(scope="module", params=PRESETS)
def tiny(tmp_path_factory, request):
    folder = tmp_path_factory.mktemp("tiny")
    tokenizer = train_tiny_tokenizer(CORPUS, PHRASES, 360, family_of(preset(request.param)))
    tokenizer.save(folder)
    return tokenizer, transformers.AutoTokenizer.from_pretrained(folder), folder


def test_ids_of_the_tiny_tokenizer(tiny):
    ours, theirs, _ = tiny
    rng = np.random.default_rng(4)
    for _ in range(500):
        text = random_text(rng)
        ids = ours.encode(text)
        assert ids == theirs(text)["input_ids"], repr(text)
        assert ours.decode(ids) == theirs.decode(ids) == text
    assert (theirs.eos_token, theirs.pad_token) == ("<|im_end|>", "<|endoftext|>")
    assert len(theirs) == ours.vocab_size


def test_ids_of_the_older_two_file_layout(tmp_path):
    rng = np.random.default_rng(5)
    from tokenizers import Tokenizer as Backend
    from tokenizers import models, pre_tokenizers, trainers

    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    texts = [random_text(rng) for _ in range(300)]
    backend.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=600, initial_alphabet=alphabet))
    backend.model.save(str(tmp_path))
    ours = Tokenizer.from_dir(tmp_path)
    merges = [tuple(line.split(" ")) for line in (tmp_path / "merges.txt").read_text().splitlines()[1:]]
    vocab = json.loads((tmp_path / "vocab.json").read_text())
    theirs = transformers.Qwen2Tokenizer(vocab=vocab, merges=merges)
    for _ in range(500):
        text = random_text(rng)
        assert ours.encode(text) == theirs(text)["input_ids"], repr(text)
    ours.save(tmp_path / "again")
    assert Tokenizer.from_dir(tmp_path / "again").encode(texts[0]) == ours.encode(texts[0])


def test_the_exported_chat_template_gives_the_same_ids(tiny):
    ours, theirs, _ = tiny
    rng = np.random.default_rng(6)
    side = ours.special.family.images.factor
    image = {
        "type": "image",
        "image": Image.new("RGB", (side, side)),
    }  # one pad token, as the template writes
    for number in range(100):
        messages = []
        if rng.integers(2):
            messages.append({"role": "system", "content": random_text(rng)})
        for _ in range(rng.integers(1, 4)):
            parts = [image if rng.integers(2) else _text(random_text(rng)) for _ in range(rng.integers(0, 5))]
            messages.append({"role": "user", "content": parts})
            said = random_text(rng).lstrip()  # a model's first line break is a token of its own
            messages.append({"role": "assistant", "content": [_text(said)]})
        prompt = bool(rng.integers(2))
        if prompt:
            messages.pop()
        ids = theirs.apply_chat_template(messages, add_generation_prompt=prompt)["input_ids"]
        assert encode_conversation(ours, messages, add_generation_prompt=prompt).ids.tolist() == ids, number
        if prompt and len(messages) > 2 and messages[-2]["role"] == "assistant":
            turn = encode_turn(ours, messages[-1], closed=True).ids.tolist()
            assert ids[-len(turn) :] == turn


def _text(text):
    return {"type": "text", "text": text}
