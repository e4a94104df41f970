import os
import shutil
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tensorstore as ts
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec

from vilasr_jax.checkpoint import store as store_module
from vilasr_jax.checkpoint.array_files import open_array, read, weight_folder
from vilasr_jax.checkpoint.store import CheckpointStore
from vilasr_jax.errors import CheckpointError


def make_params(scale=1.0):
    return {
        "decoder": {"q": scale * jnp.arange(15.0).reshape(3, 5), "b": jnp.full((7,), scale)},
        "head": [jnp.ones(2)],
    }


def abstract(tree):
    return jax.eval_shape(lambda: tree)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_items_come_back_in_the_containers_requested(tmp_path):
    params = make_params()
    opt_state = optax.adamw(1e-3).init(params)
    key = jax.random.key(3)
    stage = {"name": "rl", "step": 4, "seen": [1, 2], "note": None, "rate": 0.1}
    with CheckpointStore(tmp_path / "new") as store:
        assert store.latest_step() is None
        items = {"params": params, "opt_state": opt_state, "rng": {"key": key}, "data_iter": {"position": 9}}
        store.save(4, {**items, "stage": stage}, metadata={"model": "tiny"}, wait=True)
    store = CheckpointStore(tmp_path / "new")
    assert store.latest_step() == 4
    assert store.metadata() == {"model": "tiny"}
    got = store.restore(
        4,
        {
            "params": abstract(params),
            "opt_state": abstract(opt_state),
            "stage": None,
            "data_iter": None,
            "rng": abstract({"key": key}),
        },
    )
    assert got.step == 4 and got["stage"] == stage and got["data_iter"] == {"position": 9}
    assert_same(got["params"], params)
    assert_same(got["opt_state"], opt_state)
    assert jax.random.key_data(got["rng"]["key"]).tolist() == jax.random.key_data(key).tolist()
    assert isinstance(store.restore(4, {"rng": None})["rng"]["key"], jax.Array)
    assert list(store.restore(None, {"params": abstract(params)})) == ["params"]
    assert store.restore(None, {"params": None})["params"]["decoder"]["b"].shape == (7,)


def test_nnx_state_comes_back(tmp_path):
    model = nnx.Linear(3, 5, rngs=nnx.Rngs(0))
    state = nnx.state(model)
    with CheckpointStore(tmp_path) as store:
        store.save(0, {"params": state}, wait=True)
        got = store.restore(0, {"params": abstract(state)})["params"]
    np.testing.assert_array_equal(got["kernel"][...], state["kernel"][...])


def test_abstract_tree_says_dtype_and_sharding(tmp_path):
    mesh = jax.make_mesh((1,), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    with CheckpointStore(tmp_path) as store:
        store.save(1, {"params": {"w": jnp.ones((4, 3))}}, wait=True)
        want = {"w": jax.ShapeDtypeStruct((4, 3), jnp.bfloat16, sharding=sharding)}
        got = store.restore(1, {"params": want})["params"]["w"]
    assert got.dtype == jnp.bfloat16 and got.sharding == sharding


def test_keeps_the_newest_and_replaces_a_step(tmp_path):
    with CheckpointStore(tmp_path, newest=2) as store:
        for step in (1, 2, 3):
            store.save(step, {"params": make_params(step)})
        store.save(3, {"params": make_params(30)}, wait=True)
        assert store.steps() == [2, 3]
        assert store.restore(None, {"params": None})["params"]["decoder"]["b"][0] == 30


def test_arrays_may_be_donated_right_after_the_call(tmp_path):
    bump = jax.jit(lambda x: x + 1, donate_argnums=0)
    with CheckpointStore(tmp_path) as store:
        for step in range(3):
            device, host = jnp.full((256, 257), float(step)), np.full((256, 257), float(step))
            store.save(step, {"params": {"device": device, "host": host}})
            host += 1
            for _ in range(20):
                device = bump(device)
            device.block_until_ready()
            store.wait()
            got = store.restore(step, {"params": None})["params"]
            assert (np.asarray(got["device"]) == step).all() and (np.asarray(got["host"]) == step).all()


def test_wrong_shape_names_the_parameter_and_both_shapes(tmp_path):
    with CheckpointStore(tmp_path) as store:
        store.save(1, {"params": make_params()}, wait=True)
        wrong = make_params()
        wrong["decoder"]["q"] = jnp.zeros((3, 6))
        with pytest.raises(CheckpointError, match=r"decoder/q is \(3, 5\) in the checkpoint and \(3, 6\)"):
            store.restore(1, {"params": abstract(wrong)})
        wrong = make_params()
        wrong["decoder"]["k"] = wrong["decoder"].pop("q")
        with pytest.raises(CheckpointError, match="lacks 'decoder/k'"):
            store.restore(1, {"params": abstract(wrong)})
        del wrong["decoder"]["k"]
        with pytest.raises(CheckpointError, match="model lacks 'decoder/q'"):
            store.restore(1, {"params": abstract(wrong)})
        with pytest.raises(CheckpointError, match="no item 'opt_state'"):
            store.restore(1, {"opt_state": None})


def test_missing_checkpoints_are_errors_and_nothing_is_written(tmp_path):
    with pytest.raises(CheckpointError, match="no finished checkpoint"):
        CheckpointStore(tmp_path / "none").restore(None, {"params": None})
    assert not (tmp_path / "none").exists()
    with CheckpointStore(tmp_path) as store:
        store.save(1, {"params": make_params()}, wait=True)
        with pytest.raises(CheckpointError, match=r"no checkpoint of step 2; saved steps: \[1\]"):
            store.restore(2, {"params": None})
        with pytest.raises(CheckpointError, match="at least one item with arrays"):
            store.save(2, {"opt_state": (optax.EmptyState(),)})


def test_state_without_arrays_comes_back(tmp_path):
    opt_state = optax.sgd(0.1).init(make_params())
    with CheckpointStore(tmp_path) as store:
        store.save(1, {"params": make_params(), "opt_state": opt_state}, wait=True)
        assert store.restore(1, {"opt_state": abstract(opt_state)})["opt_state"] == opt_state


def break_data(step_dir):
    for path in (step_dir / "params").rglob("*"):
        if path.is_file() and path.stat().st_size:
            path.write_bytes(b"\0" * path.stat().st_size)


@pytest.mark.parametrize("damage", ["bytes", "lost"])
def test_broken_newest_step_falls_back_and_training_goes_on(tmp_path, damage, caplog):
    with CheckpointStore(tmp_path) as store:
        for step in (10, 20):
            store.save(step, {"params": make_params(step), "stage": {"step": step}}, wait=True)
    if damage == "bytes":
        break_data(tmp_path / "20")
    else:
        shutil.rmtree(tmp_path / "20" / "params")
        (tmp_path / "20" / "params").mkdir()
    want = {"params": abstract(make_params()), "stage": None}
    with CheckpointStore(tmp_path) as store:
        with caplog.at_level("WARNING", logger="absl"):
            got = store.restore(None, want)
        assert "step 20 is broken" in caplog.text and "going back to step 10" in caplog.text
        assert got.step == 10 and got["stage"]["step"] == 10 and store.latest_step() == 10
        store.save(12, {"params": make_params(12), "stage": {"step": 12}}, wait=True)
        assert store.steps() == [10, 12]
        break_data(tmp_path / "10")
        with pytest.raises(
            CheckpointError, match="broken checkpoint"
        ):  # an older step is read as requested or not at all
            store.restore(10, want)
        assert store.restore(None, want).step == 12


@pytest.mark.parametrize("step", [10, 20])
def test_an_explicit_step_is_read_or_refused(tmp_path, step):
    with CheckpointStore(tmp_path) as store:
        for number in (10, 20):
            store.save(number, {"params": make_params(number)}, wait=True)
    break_data(tmp_path / str(step))
    store, want = CheckpointStore(tmp_path), {"params": abstract(make_params())}
    with pytest.raises(CheckpointError, match=f"{step}: broken checkpoint"):
        store.restore(step, want)
    assert store.restore(30 - step, want)["params"]["decoder"]["b"][0] == 30 - step
    assert store.latest_step() == 20  # a refused step still counts


def test_hosts_go_back_to_the_same_step(tmp_path, monkeypatch):
    with CheckpointStore(tmp_path) as writing:
        for number in (10, 20):
            writing.save(number, {"params": make_params(number)}, wait=True)
    others = iter(["damaged on another host", ""])
    monkeypatch.setattr(store_module, "gather", lambda own: [own, next(others)])
    assert CheckpointStore(tmp_path).restore(None, {"params": abstract(make_params())}).step == 10


KILLED = """
import sys, jax.numpy as jnp
from vilasr_jax.checkpoint.store import CheckpointStore
store = CheckpointStore(sys.argv[1])
for step in range(10_000):
    params = {f"w{i}": jnp.full((64, 64), float(step)) for i in range(20)}
    store.save(step, {"params": params, "stage": {"step": step}})
    print(step, flush=True)
"""


def test_sigkill_while_writing_leaves_a_readable_newest_step(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(tmp_path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )
    for line in child.stdout:
        if int(line) == 3:
            time.sleep(0.03)
            child.send_signal(signal.SIGKILL)
            break
    child.wait()
    child.stdout.close()
    with CheckpointStore(tmp_path) as store:
        got = store.restore(None, {"params": None, "stage": None})
        assert got.step >= 1 and got["stage"]["step"] == got.step
        assert all((np.asarray(w) == got.step).all() for w in got["params"].values())
        store.save(got.step + 1, {"params": got["params"]}, wait=True)
        assert not [p for p in tmp_path.iterdir() if "tmp" in p.name]


def test_the_best_step_is_kept_with_the_newest(tmp_path):
    scores = {1: 0.2, 2: 0.9, 3: None, 4: 0.5, 5: None}
    with CheckpointStore(tmp_path, newest=2, best=1) as store:
        for step, score in scores.items():
            store.save(step, {"params": {"w": np.full(3, step, np.float32)}}, score=score, wait=True)
        assert store.steps() == [2, 4, 5]
        assert (store.latest_step(), store.best_step()) == (5, 2)
        assert store.restore(2, {"params": None})["params"]["w"][0] == 2
    assert CheckpointStore(tmp_path).best_step() == 2
    assert CheckpointStore(tmp_path / "none").best_step() is None


def test_one_layer_of_a_stack_is_read_alone(tmp_path):
    """What `convert to-hf` holds of a training checkpoint is one layer, however many there are."""
    rng = np.random.default_rng(0)
    mesh = jax.make_mesh((2,), ("fsdp",))
    kernel = rng.normal(size=(11, 64, 96)).astype(np.float32)
    split = jax.device_put(kernel, NamedSharding(mesh, PartitionSpec(None, "fsdp")))
    params = {"layers": {"kernel": jnp.asarray(kernel), "split": split}, "head": jnp.ones((30, 7))}
    with CheckpointStore(tmp_path) as store:
        store.save(1, {"params": params}, wait=True)
        assert_same(store.restore(1, {"params": None})["params"], params)
    for name in ("kernel", "split"):
        array = open_array(weight_folder(tmp_path), f"layers/{name}")
        assert array.chunk_layout.read_chunk.shape[0] == 1
        before = bytes_read()
        np.testing.assert_array_equal(read(array[7]), kernel[7])
        assert kernel[0].nbytes / 2 < bytes_read() - before < 2 * kernel[0].nbytes  # of 11


def bytes_read() -> int:
    """By TensorStore from files, since the start."""
    found = ts.experimental_collect_matching_metrics("/tensorstore/kvstore/file/bytes_read")
    return sum(value["value"] for metric in found for value in metric["values"])
