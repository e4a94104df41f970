"""transformers loads what we export, and computes the same with it."""

import numpy as np
import pytest
from flax import nnx

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from tests.parity.hf_reference import hf_inputs, hf_model  # noqa: E402
from tests.parity.samples import CONFIGS, cases, our_inputs  # noqa: E402
from vilasr_jax.checkpoint import export_hf, load_hf  # noqa: E402
from vilasr_jax.checkpoint.hf_layout import abstract_params, hf_tensors, named_leaves  # noqa: E402
from vilasr_jax.checkpoint.safetensors_files import stored_tensors  # noqa: E402
from vilasr_jax.models import by_model_type, family_of, preset  # noqa: E402
from vilasr_jax.processing import train_tiny_tokenizer  # noqa: E402


def weights(model):
    return nnx.split(model)[1]


@pytest.mark.parametrize("layout", ["flat", "nested"])
@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_transformers_to_ours_and_back(tmp_path, layout, tie, name):
    reference = hf_model(CONFIGS[name], tie=tie)
    reference.save_pretrained(tmp_path / "theirs")
    ours = load_hf(tmp_path / "theirs", dtype="float32")
    export_hf(weights(ours), ours.config, tmp_path / "ours", layout=layout, max_shard_bytes=300_000)

    before, after = stored_tensors(tmp_path / "theirs"), stored_tensors(tmp_path / "ours")
    published_name = by_model_type(name).published_name
    before, after = ({published_name(key): t for key, t in tensors.items()} for tensors in (before, after))
    assert set(before) == set(after)
    for key, tensor in before.items():
        assert tensor.read().tobytes() == after[key].read().tobytes(), key

    loaded, report = transformers.AutoModelForImageTextToText.from_pretrained(
        tmp_path / "ours", attn_implementation="eager", output_loading_info=True
    )
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    samples = cases(name)["two images of two sizes"]
    with torch.no_grad():
        logits = [model(**hf_inputs(samples)).logits.numpy() for model in (reference, loaded.eval())]
    np.testing.assert_array_equal(*logits)
    np.testing.assert_allclose(ours.logits(ours(*our_inputs(samples))), logits[0], atol=2e-4)


@pytest.mark.parametrize("name, grid", [("qwen2_5_vl", [1, 14, 24]), ("qwen3_vl", [1, 12, 20])])
def test_tokenizer_and_image_processor_load(tmp_path, name, grid):
    family = by_model_type(name)
    tokenizer = train_tiny_tokenizer(["turn left at 12, then 340"], ["turn left"], 400, family)
    reference = hf_model(CONFIGS[name])
    reference.save_pretrained(tmp_path / "theirs")
    ours = load_hf(tmp_path / "theirs")
    files = {"tokenizer": tokenizer, "min_pixels": 784, "max_pixels": 78400}
    export_hf(weights(ours), ours.config, tmp_path / "ours", **files)
    loaded = transformers.AutoTokenizer.from_pretrained(tmp_path / "ours")
    text = "turn left at 340 and 12"
    assert loaded(text)["input_ids"] == tokenizer.encode(text)
    messages = [{"role": "user", "content": text}]
    assert "<|im_start|>user" in loaded.apply_chat_template(messages, tokenize=False)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "ours", use_fast=False)
    image = np.random.default_rng(0).integers(0, 256, (200, 330, 3), np.uint8)
    out = processor(images=[image], return_tensors="np")
    assert out["image_grid_thw"].tolist() == [grid]
    assert out["pixel_values"].shape == (grid[1] * grid[2], family.images.patch_dim)
    assert named_leaves(abstract_params(ours.config)).keys() == named_leaves(weights(ours)).keys()


@pytest.mark.parametrize("name", ["qwen3vl_2b", "qwen3vl_8b", "qwen3vl_32b"])
def test_sizes_have_the_names_and_shapes_of_transformers(name):
    """Headers alone: transformers' model is on no device, and ours is abstract."""
    config = preset(name)
    values = family_of(config).config_to_hf(config, layout="nested", dtype="bfloat16")
    assert family_of(config).config_from_hf(values, where="config.json") == config
    with torch.device("meta"):
        reference = getattr(transformers, values["architectures"][0])(
            transformers.AutoConfig.for_model(**values)
        )
    theirs = {key: tuple(tensor.shape) for key, tensor in reference.named_parameters()}
    assert {tensor.key: tensor.shape for tensor in hf_tensors(config)} == theirs
