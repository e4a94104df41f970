"""Conversions from and to `gs://`, with the real client libraries, against a bucket in memory."""

import jax
import numpy as np
import pytest
from etils import epath

from tests import tiny
from tests.checkpoint.fake_gcs import FakeGCS
from tests.checkpoint.test_hf_folders import assert_same_tensors, write_folder
from vilasr_jax import cli
from vilasr_jax.checkpoint import convert_from_hf, convert_to_hf, export_hf, import_hf
from vilasr_jax.checkpoint.safetensors_files import stored_tensors
from vilasr_jax.config import JobConfig
from vilasr_jax.errors import CheckpointError
from vilasr_jax.job import open_workdir
from vilasr_jax.models.qwen2_5_vl import preset
from vilasr_jax.open_checkpoint import open_checkpoint
from vilasr_jax.processing import Tokenizer, train_tiny_tokenizer
from vilasr_jax.trained_model import open_model
from vilasr_jax.training.run import open_run

pytest.importorskip("gcsfs")
CONFIG = preset(
    "tiny",
    num_layers=2,
    hidden_size=26,
    intermediate_size=37,
    num_heads=1,
    num_kv_heads=1,
    head_dim=26,
    mrope_section=(3, 5, 5),
    vocab_size=211,
    vision={
        "depth": 1,
        "hidden_size": 8,
        "num_heads": 1,
        "intermediate_size": 9,
        "fullatt_block_indexes": (0,),
    },
)


@pytest.fixture(scope="module")
def gcs():
    """A bucket "gs://bucket" that gcsfs, google-cloud-storage and TensorStore talk to over HTTP."""
    fake = FakeGCS()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STORAGE_EMULATOR_HOST", fake.url)
        patch.setenv("TENSORSTORE_GCS_HTTP_URL", fake.url)
        patch.setenv("GOOGLE_AUTH_TOKEN_FOR_TESTING", "token")
        patch.setenv("GOOGLE_CLOUD_PROJECT", "project")
        patch.setenv("NO_GCE_CHECK", "true")
        patch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        yield fake
    fake.close()


def upload(folder, name):
    for file in folder.rglob("*"):
        if file.is_file():
            (epath.Path(f"gs://bucket/{name}") / file.relative_to(folder)).write_bytes(file.read_bytes())


def test_there_and_back_in_a_bucket_is_bit_exact(gcs, tmp_path):
    tensors = write_folder(tmp_path / "a", CONFIG, dtype="bfloat16", max_shard_bytes=30_000)
    (tmp_path / "a" / "tokenizer.json").write_text("{}")
    upload(tmp_path / "a", "hf")
    convert_from_hf("gs://bucket/hf", "gs://bucket/out/orbax")
    assert {name.split("/")[1] for name in gcs.objects if name.startswith("out/")} == {"orbax"}
    convert_to_hf("gs://bucket/out/orbax", "gs://bucket/out/hf", max_shard_bytes=40_000)
    assert_same_tensors(epath.Path("gs://bucket/out/hf"), tensors)
    assert epath.Path("gs://bucket/out/hf/tokenizer.json").read_text() == "{}"
    convert_to_hf("gs://bucket/out/orbax", tmp_path / "b")
    assert_same_tensors(tmp_path / "b", tensors)


def test_folders_and_runs_in_a_bucket_open(gcs, tmp_path):
    job = JobConfig()
    open_workdir(job, tmp_path / "run")
    run = open_run(job, tmp_path / "run", tiny.mesh())
    params = run.model.initial_params()
    stage = run.stages["rl"]
    for step, factor in ((3, 2), (5, 1)):
        stage.save(step, {"params": jax.tree.map(lambda x, n=factor: n * x, params)}, wait=True)
    stage.close()
    upload(tmp_path / "run", "run")
    assert cli_code("convert", "to-hf", "gs://bucket/run:rl@5", "gs://bucket/from_run") == 0
    assert cli_code("convert", "from-hf", "gs://bucket/from_run", "gs://bucket/from_run_orbax") == 0
    names = ("gs://bucket/run:rl@5", "gs://bucket/from_run", "gs://bucket/from_run_orbax")
    for model in map(open_model, names):
        assert model.tokenizer.encode("Where") == run.model.tokenizer.encode("Where")
        assert model.prompts == run.model.prompts
        for one, other in zip(jax.tree.leaves(model.params), jax.tree.leaves(params), strict=True):
            np.testing.assert_array_equal(one, other)
    with pytest.raises(
        CheckpointError, match=r"rl is not finished; it holds gs://bucket/run:rl@5 \(steps 3, 5"
    ):
        open_checkpoint("gs://bucket/run:rl")
    with pytest.raises(CheckpointError, match="gs://bucket/nowhere: no such folder; expected a Hugging"):
        open_checkpoint("gs://bucket/nowhere")


def cli_code(*words):
    with pytest.raises(SystemExit) as stop:
        cli.main(["vilasr", *words])
    return stop.value.code


def test_rows_of_a_tensor_are_read_alone(gcs):
    rows = np.arange(3 << 20, dtype=np.float32).reshape(-1, 1024)
    from vilasr_jax.checkpoint.safetensors_files import write_safetensors

    folder = epath.Path("gs://bucket/large")
    write_safetensors(folder, [("w", rows.dtype, rows.shape)], lambda name: rows)
    tensor = stored_tensors(folder)["w"]
    gcs.requests.clear()
    np.testing.assert_array_equal(tensor.read(slice(7, 9)), rows[7:9])
    assert max(size for _, _, size in gcs.requests) < rows.nbytes * 3 / 4  # the rows, and what is read ahead


def test_export_with_a_tokenizer_and_import(gcs, tmp_path):
    write_folder(tmp_path / "a", CONFIG)
    config, params = import_hf(tmp_path / "a")
    tokenizer = train_tiny_tokenizer(["look at image 1"], ["look at"], 300)
    export_hf(params, config, "gs://bucket/exported", tokenizer=tokenizer)
    again, read = import_hf("gs://bucket/exported")
    assert again == config
    np.testing.assert_array_equal(read["lm_head"]["kernel"][...], params["lm_head"]["kernel"][...])
    assert Tokenizer.from_dir("gs://bucket/exported").encode("look at 1") == tokenizer.encode("look at 1")


def test_what_fails_leaves_nothing_in_the_bucket(gcs, tmp_path):
    write_folder(tmp_path / "a", CONFIG)
    before = dict(gcs.objects)
    gcs.full = gcs.stored() + 20_000
    try:
        with pytest.raises(CheckpointError, match="gs://bucket/full: could not be written"):
            convert_from_hf(tmp_path / "a", "gs://bucket/full")
    finally:
        gcs.full = None
    assert gcs.objects.keys() == before.keys()
