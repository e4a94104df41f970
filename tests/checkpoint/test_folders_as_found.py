"""Hugging Face folders as people have them: what tools and downloads leave behind."""

import json
import shutil

import ml_dtypes
import numpy as np
import pytest

from tests import tiny
from tests.checkpoint.test_hf_folders import write_folder
from tests.models.small import SMALL
from vilasr_jax.checkpoint import convert_from_hf, convert_to_hf, import_hf
from vilasr_jax.checkpoint.hf_import import open_hf
from vilasr_jax.checkpoint.hf_layout import named_leaves
from vilasr_jax.config import JobConfig, ModelSection
from vilasr_jax.errors import CheckpointError, ImageError, TokenizerError
from vilasr_jax.files import literal_path, mistaken_for
from vilasr_jax.models.qwen2_5_vl.hf_names import nested_name
from vilasr_jax.processing import Tokenizer, load_image
from vilasr_jax.training.run import open_run

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 4967215360\n"
PAGE = "\n<!DOCTYPE html><html><body>404 Not Found</body></html>"
HEAD = "lm_head.weight"


def renamed(rename):
    def change(tensors):
        for key in list(tensors):
            tensors[rename(key)] = tensors.pop(key)

    return change


def norms_in_float32(tensors):
    tensors.update({k: v.astype(np.float32) for k, v in tensors.items() if "norm" in k})


def edit(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_mixed_dtypes_are_read_as_config_json_says(tmp_path, caplog):
    folder = tmp_path / "a"
    tensors = write_folder(folder, dtype="bfloat16", change=norms_in_float32)
    for said, requested, got in (
        ("bfloat16", None, "bfloat16"),
        ("float32", None, "float32"),
        (None, None, "bfloat16"),  # that of the most values
        ("bfloat16", "float32", "float32"),
    ):
        edit(folder, torch_dtype=said)
        config, params = import_hf(folder, param_dtype=requested)
        assert config.param_dtype == got
        norm = named_leaves(params)["language_model/norm/scale"]
        assert norm.dtype == got
        np.testing.assert_array_equal(norm, tensors["model.norm.weight"].astype(norm.dtype))
    assert "mixed dtypes (bfloat16, float32) are read as bfloat16" in caplog.text
    convert_from_hf(folder, tmp_path / "b", param_dtype="float32")
    convert_to_hf(tmp_path / "b", tmp_path / "c")
    head = named_leaves(import_hf(tmp_path / "c")[1])["lm_head/kernel"]
    np.testing.assert_array_equal(head, tensors[HEAD].astype(np.float32).T)


@pytest.mark.parametrize(
    "rename",
    [
        lambda key: f"language_model.{key}" if key.startswith(("model.", "lm_head")) else key,
        lambda key: key.replace("model.", "language_model.", 1) if key.startswith("model.") else key,
        lambda key: f"base_model.model.{key}",
        lambda key: f"module.{nested_name(key)}",
        lambda key: f"_orig_mod.module.{key}",
    ],
)
def test_key_prefixes_of_other_versions_and_tools_are_read(tmp_path, rename):
    tensors = write_folder(tmp_path / "a", change=renamed(rename))
    params = named_leaves(import_hf(tmp_path / "a")[1])
    np.testing.assert_array_equal(params["lm_head/kernel"], tensors[rename(HEAD)].T)


def test_stale_inv_freq_is_left_out_and_named(tmp_path, caplog):
    def buffers(tensors):
        tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
        tensors["visual.rotary_pos_emb.inv_freq"] = np.ones(4, np.float32)

    write_folder(tmp_path / "a", dtype="bfloat16", change=buffers)
    assert import_hf(tmp_path / "a")[0].param_dtype == "bfloat16"
    assert "2 inv_freq buffers are left out" in caplog.text


@pytest.mark.parametrize("text, says", [(POINTER, "git lfs pull"), (PAGE, "web page")])
def test_pointers_and_error_pages_are_named(tmp_path, text, says):
    folder = tmp_path / "a"
    write_folder(folder)
    (folder / "model.safetensors").write_text(text)
    with pytest.raises(CheckpointError, match=rf"a/model\.safetensors: .*{says}"):
        import_hf(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (folder / "tokenizer.json").write_text("{}")
        (folder / name).write_text(text)
        with pytest.raises(TokenizerError, match=rf"{name}: .*{says}"):
            Tokenizer.from_dir(folder)
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=rf"config\.json: .*{says}"):
        import_hf(folder)
    (folder / "picture.png").write_text(text)
    for source in (folder / "picture.png", text.encode()):
        with pytest.raises(ImageError, match=says):
            load_image(source)
    assert mistaken_for(b'{"a": 1}') == mistaken_for(b"") == ""


def test_left_over_files_do_not_count(tmp_path, caplog):
    shards = {"max_shard_bytes": 200_000}
    adapter = {"base_model.model.x": np.zeros(2, np.float32)}
    write_folder(tmp_path / "a", **shards)  # no index, an adapter and the same weights once more
    (tmp_path / "a" / "model.safetensors.index.json").unlink()
    write_folder(tmp_path / "b", change=lambda tensors: (tensors.clear(), tensors.update(adapter)))
    shutil.copy(tmp_path / "b" / "model.safetensors", tmp_path / "a" / "adapter_model.safetensors")
    write_folder(tmp_path / "c")
    shutil.copy(tmp_path / "c" / "model.safetensors", tmp_path / "a" / "consolidated.safetensors")
    open_hf(tmp_path / "a")
    index = {"weight_map": {HEAD: "model-00001-of-00002.safetensors"}}
    (tmp_path / "c" / "model.safetensors.index.json").write_text(json.dumps(index))
    open_hf(tmp_path / "c")
    assert "model.safetensors is read alone" in caplog.text
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "adapter_config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"an adapter .* merge it"):
        import_hf(tmp_path / "d")


def test_a_contradictory_tie_is_decided_by_the_weights(tmp_path):
    for tied in (True, False):
        folder = tmp_path / str(tied)
        write_folder(folder, SMALL.replace(tie_word_embeddings=tied), layout="nested")
        text = json.loads((folder / "config.json").read_text())["text_config"]
        for root in (True, False):
            edit(folder, tie_word_embeddings=root, text_config={**text, "tie_word_embeddings": not root})
            assert import_hf(folder)[0].tie_word_embeddings == tied
            job = JobConfig(model=ModelSection(init_from=str(folder)))
            kept = open_run(job, tmp_path / f"{tied} {root}", tiny.mesh())
            kept.model.__dict__["tokenizer"] = tiny.tokenizer()
            kept.model.save_config()  # a run's own copy says what was decided
            assert kept.model.config.tie_word_embeddings == tied


def test_folders_with_brackets_are_no_patterns(tmp_path):
    place = tmp_path / "run [v1]*"
    place.mkdir()
    tensors = write_folder(place / "hf")
    convert_from_hf(place / "hf", place / "orbax")
    convert_to_hf(place / "orbax", place / "back")
    head = named_leaves(import_hf(place / "back")[1])["lm_head/kernel"]
    np.testing.assert_array_equal(head, tensors[HEAD].T)
    assert [path.name for path in literal_path(place).glob("or*")] == ["orbax"]
    assert str(literal_path("gs://bucket/a")) == "gs://bucket/a"


def test_bfloat16_survives_a_float32_config(tmp_path):
    write_folder(tmp_path / "a", dtype="bfloat16")
    edit(tmp_path / "a", torch_dtype="float32")  # uniform weights stay as they are stored
    assert named_leaves(import_hf(tmp_path / "a")[1])["lm_head/kernel"].dtype == ml_dtypes.bfloat16


def test_values_too_large_for_a_dtype_are_refused_by_name(tmp_path):
    def large(tensors):
        tensors["model.norm.weight"][0] = 70_000.0

    write_folder(tmp_path / "a", change=large)
    says = r"a/model\.safetensors: tensor 'model\.norm\.weight' holds values that float16 has no room for"
    with pytest.raises(CheckpointError, match=says):
        import_hf(tmp_path / "a", param_dtype="float16")
    with pytest.raises(CheckpointError, match=says):
        convert_from_hf(tmp_path / "a", tmp_path / "b", param_dtype="float16")
    assert not (tmp_path / "b").exists()
    norm = named_leaves(import_hf(tmp_path / "a", param_dtype="bfloat16")[1])["language_model/norm/scale"]
    assert norm[0] == 70_144
