"""Hugging Face folders: round trips, both layouts, and what is refused by name."""

import itertools
import json
import re
import struct

import ml_dtypes
import numpy as np
import pytest

from tests.models.small import SMALL
from vilasr_jax.checkpoint import config_from_hf, export_hf, import_hf, safetensors_files
from vilasr_jax.checkpoint.hf_config import config_to_hf, preprocessor_config
from vilasr_jax.checkpoint.hf_import import open_hf, published_weights
from vilasr_jax.checkpoint.hf_layout import abstract_params, hf_tensors, named_leaves, params_from_hf
from vilasr_jax.checkpoint.safetensors_files import stored_tensors, write_safetensors
from vilasr_jax.errors import CheckpointError
from vilasr_jax.models import family_of
from vilasr_jax.models.qwen2_5_vl import preset
from vilasr_jax.models.qwen2_5_vl.hf_names import nested_name, published_name

DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


def write_folder(folder, config=SMALL, *, dtype="float32", layout="flat", change=None, **kwargs):
    """Writes a folder as others do, of random tensors that `change` may edit, and returns them by name."""
    rng, nested = np.random.default_rng(0), family_of(config).nested_name
    tensors = {
        (t.key if layout == "flat" else nested(t.key)): rng.normal(size=t.shape).astype(DTYPES[dtype])
        for t in hf_tensors(config)
    }
    if change:
        change(tensors)
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config_to_hf(config, layout=layout, dtype=dtype)))
    specs = [(name, value.dtype, value.shape) for name, value in tensors.items()]
    write_safetensors(folder, specs, tensors.get, **kwargs)
    return tensors


def assert_same_tensors(folder, tensors):
    found = {published_name(name): tensor for name, tensor in stored_tensors(folder).items()}
    assert {published_name(name) for name in tensors} == set(found)
    for name, value in tensors.items():
        read = found[published_name(name)].read()
        assert read.dtype == value.dtype and read.tobytes() == value.tobytes(), name


QUICK = {("float32", "flat", False), ("float16", "nested", False), ("bfloat16", "nested", True)}
TRIPS = [
    pytest.param(*trip, marks=() if trip in QUICK else pytest.mark.slow)
    for trip in itertools.product(DTYPES, ("flat", "nested"), (False, True))
]


@pytest.mark.parametrize("dtype, layout, tied", TRIPS)
def test_round_trip_is_bit_exact(tmp_path, dtype, layout, tied):
    config = SMALL.replace(tie_word_embeddings=tied)
    tensors = write_folder(tmp_path / "a", config, dtype=dtype, layout=layout, max_shard_bytes=200_000)
    assert len(list((tmp_path / "a").glob("*.safetensors"))) > 3
    read, params = import_hf(tmp_path / "a", dtype="float32")
    assert read == config.replace(param_dtype=dtype, init_std=read.init_std)
    export_hf(params, read, tmp_path / "b", max_shard_bytes=300_000)
    assert_same_tensors(tmp_path / "b", tensors)
    assert import_hf(tmp_path / "b", dtype="float32")[0] == read
    assert not [p for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_weights_may_be_stored_in_another_dtype(tmp_path):
    tensors = write_folder(tmp_path / "a", dtype="bfloat16")
    config, params = import_hf(tmp_path / "a", param_dtype="float32")
    head = named_leaves(params)["lm_head/kernel"]
    np.testing.assert_array_equal(head, tensors["lm_head.weight"].astype(np.float32).T)
    export_hf(params, config, tmp_path / "b", dtype="bfloat16")
    assert_same_tensors(tmp_path / "b", tensors)


@pytest.mark.parametrize("name", ["tiny", "3b", "7b", "32b", "72b"])
@pytest.mark.parametrize("layout", ["flat", "nested"])
def test_configs_come_back_the_same(name, layout):
    config = preset(name)
    read = config_from_hf(config_to_hf(config, layout=layout), init_std=config.init_std, dtype=config.dtype)
    assert read == config.replace(scan_unroll=read.scan_unroll)


def test_published_config_of_7b():
    """The fields of the published file, word for word where they matter."""
    published = {
        "model_type": "qwen2_5_vl",
        "vocab_size": 152064,
        "hidden_size": 3584,
        "intermediate_size": 18944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "hidden_act": "silu",
        "max_position_embeddings": 128000,
        "rms_norm_eps": 1e-06,
        "rope_theta": 1000000.0,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]},
        "use_sliding_window": False,
        "sliding_window": 32768,
        "tie_word_embeddings": False,
        "bos_token_id": 151643,
        "eos_token_id": 151645,
        "vision_start_token_id": 151652,
        "vision_end_token_id": 151653,
        "vision_token_id": 151654,
        "image_token_id": 151655,
        "video_token_id": 151656,
        "torch_dtype": "bfloat16",
        "vision_config": {
            "depth": 32,
            "hidden_act": "silu",
            "hidden_size": 1280,
            "intermediate_size": 3420,
            "num_heads": 16,
            "in_chans": 3,
            "out_hidden_size": 3584,
            "patch_size": 14,
            "spatial_merge_size": 2,
            "spatial_patch_size": 14,
            "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
            "tokens_per_second": 2,
            "temporal_patch_size": 2,
        },
    }
    assert config_from_hf(published) == preset("7b")


def test_several_stop_tokens_and_nulls_are_understood():
    config = {**config_to_hf(SMALL), "eos_token_id": [151645, 151643], "bos_token_id": None}
    assert config_from_hf(config, init_std=SMALL.init_std, dtype=SMALL.dtype) == SMALL


def test_published_names_of_7b():
    names = {t.key: t.shape for t in hf_tensors(preset("7b"))}
    assert len(names) == 729
    assert names["visual.patch_embed.proj.weight"] == (1280, 3, 2, 14, 14)
    assert names["visual.blocks.31.attn.qkv.bias"] == (3840,)
    assert names["visual.merger.mlp.2.weight"] == (3584, 5120)
    assert names["model.layers.27.self_attn.k_proj.weight"] == (512, 3584)
    assert names["model.layers.0.mlp.down_proj.weight"] == (3584, 18944)
    assert names["lm_head.weight"] == names["model.embed_tokens.weight"] == (152064, 3584)
    assert sum(int(np.prod(shape)) for shape in names.values()) == 8_292_166_656


@pytest.mark.parametrize("name, of_a_layer", [("72b", 12), ("qwen3vl_32b", 11)])
def test_the_largest_are_checked_without_a_weight_in_memory(tmp_path, name, of_a_layer):
    """Up to 145 GB of holes with true headers: names, shapes and sizes are checked from these alone.

    A corner of every weight is converted.
    """
    config, weight_map = preset(name), {}
    tensors = hf_tensors(config)
    for number, start in enumerate(range(0, len(tensors), 300)):
        header, offset, name = {}, 0, f"model-{number}.safetensors"
        for tensor in tensors[start : start + 300]:
            end = offset + 2 * int(np.prod(tensor.shape))
            header[tensor.key] = {"dtype": "BF16", "shape": tensor.shape, "data_offsets": [offset, end]}
            offset, weight_map[tensor.key] = end, name
        text = json.dumps(header).encode()
        with (tmp_path / name).open("wb") as f:
            f.write(struct.pack("<Q", len(text)) + text)
            f.truncate(8 + len(text) + offset)
    (tmp_path / safetensors_files.INDEX).write_text(json.dumps({"weight_map": weight_map}))
    (tmp_path / "config.json").write_text(json.dumps(config_to_hf(config, dtype="bfloat16")))
    read, wanted, stored = open_hf(tmp_path)
    assert read == config.replace(param_dtype="bfloat16") and len(wanted) == len(stored) == len(tensors)
    weights = published_weights(read, stored)
    for path, leaf in named_leaves(abstract_params(read)).items():
        corner = tuple(slice(max(0, side - 2), side) for side in leaf.shape)
        values = weights.block(path, corner, leaf.shape)
        assert values.shape == tuple(min(2, side) for side in leaf.shape) and not values.any(), path
    layers = config.num_layers
    (tmp_path / "config.json").write_text(json.dumps(config_to_hf(config.replace(num_layers=layers + 1))))
    missing = rf"\.layers\.{layers}\.input_layernorm\.weight' and {of_a_layer - 1} more missing"
    with pytest.raises(CheckpointError, match=missing):
        open_hf(tmp_path)


def test_a_tied_head_written_twice_is_fine_only_when_equal(tmp_path):
    config = SMALL.replace(tie_word_embeddings=True)

    def twice(tensors, factor=1):
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"] * np.float32(factor)

    write_folder(tmp_path / "a", config, change=twice)
    import_hf(tmp_path / "a")
    write_folder(tmp_path / "b", config, change=lambda tensors: twice(tensors, 2))
    with pytest.raises(CheckpointError, match=r"'lm_head\.weight' unexpected"):
        import_hf(tmp_path / "b")


KEY = "model.layers.1.mlp.up_proj.weight"


def _put(value):
    return lambda tensors: tensors.update({KEY: value(tensors[KEY])})


def _with(array, value):
    array[3, 5] = value
    return array


@pytest.mark.parametrize(
    "change, says",
    [
        (lambda tensors: tensors.pop(KEY), f"tensor '{KEY}' missing"),
        (lambda tensors: tensors.update(extra=np.zeros(3, np.float32)), "tensor 'extra' unexpected"),
        (_put(lambda a: a[:-1]), rf"'{KEY}' has shape \(70, 130\), config.json wants \(71, 130\)"),
        (_put(lambda a: _with(a, np.nan)), f"'{KEY}' holds values that are not finite"),
        (_put(lambda a: _with(a, np.inf)), f"'{KEY}' holds values that are not finite"),
        (lambda tensors: tensors.update({nested_name(KEY): tensors[KEY]}), "is there twice"),
    ],
)
def test_wrong_tensors_are_refused_by_name(tmp_path, change, says):
    write_folder(tmp_path / "a", change=change)
    with pytest.raises(CheckpointError, match=says):
        import_hf(tmp_path / "a")


def test_a_truncated_file_is_refused_by_name(tmp_path):
    write_folder(tmp_path / "a")
    file = tmp_path / "a" / "model.safetensors"
    data = file.read_bytes()
    last = next(iter(reversed(stored_tensors(tmp_path / "a"))))
    file.write_bytes(data[:-1])
    with pytest.raises(CheckpointError, match=f"ends inside tensor '{last}'"):
        import_hf(tmp_path / "a")
    for cut in (0, 5, 100):
        file.write_bytes(data[:cut])
        with pytest.raises(CheckpointError, match=r"model\.safetensors: not a safetensors file, or cut off"):
            import_hf(tmp_path / "a")


def test_other_dtypes_are_refused_by_name(tmp_path):
    write_folder(tmp_path / "a")
    header = json.dumps({"w": {"dtype": "I64", "shape": [1], "data_offsets": [0, 8]}}).encode()
    (tmp_path / "a" / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(CheckpointError, match="'w' has dtype I64"):
        import_hf(tmp_path / "a")


def test_shards_must_hold_what_the_index_says(tmp_path):
    write_folder(tmp_path / "a", max_shard_bytes=300_000)
    index = tmp_path / "a" / safetensors_files.INDEX
    value = json.loads(index.read_text())
    value["weight_map"]["ghost"] = value["weight_map"][KEY]
    index.write_text(json.dumps(value))
    with pytest.raises(CheckpointError, match="has no tensor 'ghost'"):
        import_hf(tmp_path / "a")
    (tmp_path / "a" / value["weight_map"][KEY]).unlink()
    with pytest.raises(CheckpointError, match=f"{value['weight_map'][KEY]}: missing"):
        import_hf(tmp_path / "a")


@pytest.mark.parametrize(
    "change, says",
    [
        ({"model_type": "llama"}, "model_type is 'llama'"),
        ({"hidden_size": None}, "hidden_size is missing"),
        ({"use_sliding_window": True}, "use_sliding_window is not implemented"),
        ({"rope_scaling": {"type": "yarn", "factor": 4}}, "scaled rope is not implemented"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"num_key_value_heads": 3}, "multiple of num_kv_heads"),
    ],
)
def test_configs_of_other_models_are_refused(change, says):
    with pytest.raises(CheckpointError, match=says):
        config_from_hf({**config_to_hf(SMALL), **change})


@pytest.mark.parametrize("layout", ["flat", "nested"])
@pytest.mark.parametrize(
    "name, value, ours",
    [
        ("window_size", 56, 112),
        ("patch_size", 16, 14),
        ("spatial_merge_size", 1, 2),
        ("temporal_patch_size", 1, 2),
        ("in_chans", 4, 3),
        ("in_channels", 1, 3),
    ],
)
def test_towers_whose_pictures_are_cut_otherwise_are_refused(layout, name, value, ours):
    config = config_to_hf(SMALL, layout=layout)
    config["vision_config"][name] = value
    with pytest.raises(CheckpointError, match=rf"vision_config: {name} is {value}, and only {ours} is"):
        config_from_hf(config)
    config["vision_config"][name] = None
    assert config_from_hf(config, init_std=SMALL.init_std, dtype=SMALL.dtype) == SMALL


MEAN = [0.48145466, 0.4578275, 0.40821073]


@pytest.mark.parametrize(
    "name, value, says",
    [
        ("patch_size", 16, "patch_size is 16, and this model's pictures have 14"),
        ("temporal_patch_size", 1, "temporal_patch_size is 1, and this model's pictures have 2"),
        ("merge_size", 4, "merge_size is 4, and this model's pictures have 2"),
        ("patch_size", {"height": 14}, r"patch_size is \{'height': 14\}, "),
        ("image_mean", [0.5] * 3, r"image_mean is \[0\.5, 0\.5, 0\.5\], .* have \[0\.48145466, "),
        ("image_mean", MEAN[::-1], r"image_mean is \[0\.40821073, "),
        ("image_mean", MEAN[:2], "image_mean is "),
        ("image_std", [0.229, 0.224, 0.225], r"image_std is \[0\.229, .* have \[0\.26862954, "),
        ("image_std", 0.5, r"image_std is 0\.5, "),
        ("do_resize", False, "do_resize is False, and this model's pictures have True"),
        ("resample", 0, "resample is 0, and this model's pictures have 3"),
        ("do_rescale", False, "do_rescale is False, "),
        ("rescale_factor", 1 / 127.5, r"rescale_factor is 0\.0078\d*, "),
        ("do_normalize", False, "do_normalize is False, "),
    ],
)
def test_preprocessors_of_other_pictures_are_refused(tmp_path, name, value, says):
    write_folder(tmp_path / "a")
    path = tmp_path / "a" / "preprocessor_config.json"
    path.write_text(json.dumps({**preprocessor_config(SMALL, 3136, 12_845_056), name: value}))
    with pytest.raises(CheckpointError, match=rf"preprocessor_config\.json: {says}"):
        import_hf(tmp_path / "a")


@pytest.mark.parametrize(
    "file, key",
    [
        ("video_preprocessor_config.json", None),
        ("processor_config.json", "image_processor"),
        ("processor_config.json", "video_processor"),
    ],
)
def test_all_processors_of_a_folder_are_checked(tmp_path, file, key):
    write_folder(tmp_path / "a")
    values = {**preprocessor_config(SMALL, 3136, 12_845_056), "patch_size": 16}
    (tmp_path / "a" / file).write_text(json.dumps({key: values} if key else values))
    with pytest.raises(CheckpointError, match=f"/{re.escape(file)}: patch_size is 16, "):
        import_hf(tmp_path / "a")


def test_preprocessors_of_other_sizes_of_pictures_are_read(tmp_path):
    write_folder(tmp_path / "a")
    said = preprocessor_config(SMALL, 784, 5_000_000) | {"size": None, "merge_size": None}
    said["image_mean"] = [float(np.float32(value)) for value in MEAN]
    same = {
        "do_resize": True,
        "do_normalize": True,
        "resample": 3,
        "rescale_factor": float(np.float32(1 / 255)),
    }
    for values in (said, {}, {"min_pixels": 1}, same):
        (tmp_path / "a" / "preprocessor_config.json").write_text(json.dumps(values))
        assert import_hf(tmp_path / "a", init_std=SMALL.init_std, dtype=SMALL.dtype)[0] == SMALL


def test_folders_that_are_none(tmp_path):
    with pytest.raises(CheckpointError, match="nowhere: no such folder"):
        import_hf(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"config\.json: no such file"):
        import_hf(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not readable as JSON"):
        import_hf(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config_to_hf(SMALL)))
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(CheckpointError, match="pickled weights are never read"):
        import_hf(tmp_path)


def test_export_replaces_only_on_request_and_leaves_nothing_half(tmp_path, monkeypatch):
    params = params_from_hf(SMALL, lambda t: np.ones(t.shape, np.float32))
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("kept")
    with pytest.raises(CheckpointError, match="exists and is not empty"):
        export_hf(params, SMALL, tmp_path / "out")

    flat = {**named_leaves(params)}
    flat["lm_head/kernel"] = flat["lm_head/kernel"].at[0, 0].set(np.nan)
    with pytest.raises(CheckpointError, match="'lm_head/kernel' holds values that are not finite"):
        export_hf(flat, SMALL, tmp_path / "out", overwrite=True)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(safetensors_files, "_write_file", full)
        with pytest.raises(CheckpointError, match=r"out: could not be written .*No space left"):
            export_hf(params, SMALL, tmp_path / "out", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["mine"]
    export_hf(params, SMALL, tmp_path / "out", overwrite=True)
    assert not (tmp_path / "out" / "mine").exists() and [p.name for p in tmp_path.iterdir()] == ["out"]


def test_export_of_weights_that_do_not_fit_is_refused_by_name(tmp_path):
    flat = dict(named_leaves(params_from_hf(SMALL, lambda t: np.ones(t.shape, np.float32))))
    path = "language_model/layers/k_proj/bias"
    for change, says in (
        ({path: None}, f"weight '{path}' is missing"),
        ({path: flat[path][:2]}, rf"weight '{path}' has shape \(2, 26\), the config asks for \(3, 26\)"),
        ({"more": flat[path]}, "weight 'more' is unexpected"),
    ):
        wrong = {name: leaf for name, leaf in {**flat, **change}.items() if leaf is not None}
        with pytest.raises(CheckpointError, match=says):
            export_hf(wrong, SMALL, tmp_path / "out")
    assert not (tmp_path / "out").exists()
