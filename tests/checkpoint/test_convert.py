"""Hugging Face -> Orbax -> Hugging Face, streamed."""

import resource

import jax
import numpy as np
import pytest
from flax import nnx

from tests.checkpoint.test_hf_folders import DTYPES, assert_same_tensors, write_folder
from tests.models.small import SMALL, SMALLS
from vilasr_jax.checkpoint import (
    CheckpointStore,
    convert,
    convert_from_hf,
    convert_to_hf,
    export_hf,
    import_hf,
)
from vilasr_jax.checkpoint.hf_layout import abstract_params, named_leaves
from vilasr_jax.errors import CheckpointError


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Blocks of a few rows, so that small models cross their edges."""
    monkeypatch.setattr(convert, "CHUNK_BYTES", 5_000)
    monkeypatch.setattr("vilasr_jax.checkpoint.array_files.CHUNK_BYTES", 7_000)


@pytest.mark.parametrize(
    "layout, family, tied, dtype",
    [
        ("flat", "qwen2_5_vl", False, "bfloat16"),
        ("nested", "qwen2_5_vl", True, "float32"),
        ("nested", "qwen3_vl", True, "bfloat16"),
        pytest.param("nested", "qwen2_5_vl", False, "bfloat16", marks=pytest.mark.slow),
        pytest.param("flat", "qwen2_5_vl", True, "float32", marks=pytest.mark.slow),
        pytest.param("flat", "qwen2_5_vl", False, "float16", marks=pytest.mark.slow),
        pytest.param("nested", "qwen2_5_vl", False, "float16", marks=pytest.mark.slow),
        pytest.param("flat", "qwen3_vl", False, "float32", marks=pytest.mark.slow),
    ],
)
def test_there_and_back_is_bit_exact(tmp_path, layout, family, tied, dtype):
    config = SMALLS[family].replace(tie_word_embeddings=tied)
    tensors = write_folder(tmp_path / "a", config, dtype=dtype, layout=layout, max_shard_bytes=200_000)
    (tmp_path / "a" / "tokenizer.json").write_text("{}")
    convert_from_hf(tmp_path / "a", tmp_path / "b")
    convert_to_hf(tmp_path / "b", tmp_path / "c", layout=layout, max_shard_bytes=300_000)
    assert_same_tensors(tmp_path / "c", tensors)
    read, params = import_hf(tmp_path / "c")
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(import_hf(tmp_path / "a")[1]), strict=True):
        assert a.dtype == DTYPES[dtype] and np.asarray(a).tobytes() == np.asarray(b).tobytes()
    assert read.tie_word_embeddings == tied
    assert (tmp_path / "c" / "tokenizer.json").read_text() == "{}"


def test_relative_folders(tmp_path, monkeypatch):
    tensors = write_folder(tmp_path / "a")
    monkeypatch.chdir(tmp_path)
    convert_from_hf("a", "new/b")
    convert_to_hf("new/b", "c")
    assert_same_tensors(tmp_path / "c", tensors)


def test_the_converted_checkpoint_is_one_of_ours(tmp_path):
    write_folder(tmp_path / "a", dtype="bfloat16")
    config = convert_from_hf(tmp_path / "a", tmp_path / "b", param_dtype="float32")
    _, params = import_hf(tmp_path / "a", param_dtype="float32")
    store = CheckpointStore(tmp_path / "b")
    restored = store.restore(None, {"params": abstract_params(config)})["params"]
    assert jax.tree.structure(restored) == jax.tree.structure(params)
    for a, b in zip(jax.tree.leaves(restored), jax.tree.leaves(params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_training_checkpoint_converts(tmp_path):
    tensors = write_folder(tmp_path / "a")
    config, params = import_hf(tmp_path / "a")
    with CheckpointStore(tmp_path / "run") as store:
        store.save(3, {"params": params, "opt_state": {"mu": np.zeros(3)}}, wait=True)
        store.save(7, {"params": jax.tree.map(lambda x: x + 1, params)}, wait=True)
    convert_to_hf(tmp_path / "run", tmp_path / "out", config=config, step=3)
    assert_same_tensors(tmp_path / "out", tensors)
    with pytest.raises(CheckpointError, match=r"no finished checkpoint of step 4 here \(steps: \[3, 7\]\)"):
        convert_to_hf(tmp_path / "run", tmp_path / "other", config=config, step=4)
    with pytest.raises(CheckpointError, match=r"config\.json: no such file"):
        convert_to_hf(tmp_path / "run", tmp_path / "other")
    with pytest.raises(CheckpointError, match="'language_model/embed_tokens/embedding' has shape"):
        convert_to_hf(tmp_path / "run", tmp_path / "other", config=config.replace(vocab_size=199))
    assert not (tmp_path / "other").exists()


def test_what_cannot_be_converted_leaves_nothing(tmp_path, monkeypatch):
    def spoil(tensors):
        tensors["model.layers.2.mlp.down_proj.weight"][1, 2] = np.nan

    write_folder(tmp_path / "a", change=spoil)
    with pytest.raises(
        CheckpointError, match=r"'model\.layers\.2\.mlp\.down_proj\.weight' holds values that are not"
    ):
        convert_from_hf(tmp_path / "a", tmp_path / "b")
    write_folder(tmp_path / "good")
    with monkeypatch.context() as patch:

        def full(*_):
            raise ValueError("RESOURCE_EXHAUSTED: No space left on device")

        patch.setattr(convert, "open_array", full)
        with pytest.raises(CheckpointError, match=r"could not be written .*No space left"):
            convert_from_hf(tmp_path / "good", tmp_path / "b")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "good"]
    convert_from_hf(tmp_path / "good", tmp_path / "b")
    with pytest.raises(CheckpointError, match="b: exists and is not empty"):
        convert_from_hf(tmp_path / "good", tmp_path / "b")
    with pytest.raises(CheckpointError, match="exists and is not empty"):
        convert_to_hf(tmp_path / "b", tmp_path / "good")


@pytest.mark.parametrize("room", [64, 20_000])
def test_a_full_disk_is_named_and_what_was_there_stays(tmp_path, room):
    """The system refuses to write more than `room` bytes to a file, as a full disk does."""
    write_folder(tmp_path / "a")
    config, params = import_hf(tmp_path / "a")
    convert_from_hf(tmp_path / "a", tmp_path / "b")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").write_text("kept")
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    for write in (
        lambda dst: convert_from_hf(tmp_path / "a", dst, overwrite=True),
        lambda dst: convert_to_hf(tmp_path / "b", dst, overwrite=True),
        lambda dst: export_hf(params, config, dst, overwrite=True),
    ):
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, usual[1]))
        try:
            with pytest.raises(CheckpointError, match=r"mine: could not be written .*File too large"):
                write(tmp_path / "mine")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, usual)
        assert (tmp_path / "mine" / "file").read_text() == "kept"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "mine"]


def test_a_damaged_checkpoint_is_refused_by_name(tmp_path):
    write_folder(tmp_path / "a")
    convert_from_hf(tmp_path / "a", tmp_path / "b")
    files = sorted((tmp_path / "b" / "0" / "params" / "d").iterdir(), key=lambda file: -file.stat().st_size)
    for damaged in (files[:1], files):
        for file in damaged:
            file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        with pytest.raises(CheckpointError, match=r"params: (weight '.*'|the list of weights) can't be read"):
            convert_to_hf(tmp_path / "b", tmp_path / "c")
        assert not (tmp_path / "c").exists()


def test_a_folder_without_tokenizer_converts_with_a_warning(tmp_path, caplog):
    tensors = write_folder(tmp_path / "a")
    convert_from_hf(tmp_path / "a", tmp_path / "b")
    assert "a: no tokenizer files" in caplog.text
    caplog.clear()
    convert_to_hf(tmp_path / "b", tmp_path / "c")
    assert "b: no tokenizer files" in caplog.text and "no preprocessor_config.json" in caplog.text
    assert_same_tensors(tmp_path / "c", tensors)


def test_names_of_leaves_do_not_depend_on_the_container():
    state = abstract_params(SMALL)
    assert named_leaves(state).keys() == named_leaves(nnx.to_pure_dict(state)).keys()
