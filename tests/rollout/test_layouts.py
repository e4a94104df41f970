"""The model split over devices, several processes, and memory."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx

from tests import tiny
from vilasr_jax.config import EngineSection, MeshSection
from vilasr_jax.errors import ConfigError
from vilasr_jax.models.qwen2_5_vl import Qwen2_5_VL, param_shardings
from vilasr_jax.parallel import make_mesh
from vilasr_jax.parallel.memory import GIB
from vilasr_jax.rollout import Engine, Trajectory
from vilasr_jax.rollout.memory import rollout_account

CONFIG = tiny.config().replace(num_heads=4, num_kv_heads=2, intermediate_size=38)


def engine(mesh, config=CONFIG, sampling=tiny.SAMPLING, **changes):
    sizes = {"slots": 4, "lanes": 1, "decode_steps": 5, "prompt_tokens": (40,), "insert_tokens": (32,)}
    graphdef = nnx.graphdef(nnx.eval_shape(lambda: Qwen2_5_VL(config, rngs=nnx.Rngs(0))))
    section = EngineSection(**{**sizes, **changes})
    return Engine(
        config,
        graphdef,
        tiny.tokenizer(),
        tiny.suppressed(),
        engine=section,
        sampling=sampling,
        patches=tiny.PATCHES,
        mesh=mesh,
    )


def params(config=CONFIG):
    return nnx.split(Qwen2_5_VL(config, rngs=nnx.Rngs(3)))[1]


@pytest.mark.slow
def test_tensor_parallel_equals_one_device():
    """Parameters laid out for training, over all three axes: the engine gathers and splits them itself."""
    mesh = make_mesh(MeshSection(data=2, fsdp=2, model=2), jax.devices()[:8])
    one, split = engine(tiny.mesh()), engine(mesh)
    trained = jax.device_put(params(), param_shardings(params(), mesh))
    state = split.steps.init_state(split.lane_slots, 150)
    assert state.cache.k[0].sharding.shard_shape(state.cache.k[0].shape) == (1, 1, 150, 14)
    want = one.generate(tiny.place(params(), tiny.mesh()), tiny.requests(8), jax.random.key(0))
    got = split.generate(trained, tiny.requests(8), jax.random.key(0))
    for a, b in zip(want, got, strict=True):
        np.testing.assert_array_equal(a.tokens, b.tokens)
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)


def test_weights_are_cast_once():
    """A model that computes in bfloat16 keeps float32 masters; the engine reads bfloat16, norms apart.

    Of matrices a CPU has the bits.
    """
    config = CONFIG.replace(dtype="bfloat16")
    placed = engine(tiny.mesh(), config).layout(params(config))
    kinds = {jax.tree_util.keystr(path): x.dtype for path, x in jax.tree_util.tree_leaves_with_path(placed)}
    assert {str(kind) for name, kind in kinds.items() if "scale" in name} == {"float32"}
    others = {name: str(kind) for name, kind in kinds.items() if "scale" not in name}
    matrices = {name for name in others if "kernel" in name or "embed_tokens" in name}
    assert {others[name] for name in matrices} == {"uint16"}
    assert {others[name] for name in others.keys() - matrices} == {"bfloat16"}


def test_what_does_not_fit_is_refused(capsys):
    runner = engine(tiny.mesh(), memory_gib=5e-4)
    with pytest.raises(ConfigError, match=r"4 conversations of 150 tokens x 448 bytes = .* in all .* GiB"):
        runner.generate(params(), tiny.requests(1), jax.random.key(0))
    assert "rollout: 4 conversations of 150 tokens" in capsys.readouterr().err
    needed = rollout_account(runner.steps, runner.layout, runner.engine, params(), 0).total
    with pytest.raises(ConfigError, match="does not fit"):
        engine(tiny.mesh(), memory_gib=(needed - 1) / GIB).load(params())
    runner = engine(tiny.mesh(), memory_gib=needed / GIB)
    assert len(runner.generate(params(), tiny.requests(1), jax.random.key(0))) == 1


def run_process() -> None:
    """One of two processes: answers its part."""
    port, number, out = sys.argv[1:]
    jax.config.update("jax_num_cpu_devices", 2)
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(f"localhost:{port}", 2, int(number))
    mesh = make_mesh(MeshSection(data=2, fsdp=1, model=2))
    shared = jax.device_put(params(), jax.NamedSharding(mesh, jax.P()))
    runner = engine(mesh)
    own = tiny.requests(5, samples=2)[int(number) :: 2]
    trajectories = runner.generate(shared, own, jax.random.key(0))
    Path(out).write_text(json.dumps([t.to_bytes().hex() for t in trajectories]))


@pytest.mark.slow
def test_two_processes_equal_one(tmp_path):
    with socket.socket() as s:
        s.bind(("localhost", 0))
        port = s.getsockname()[1]
    code = "from tests.rollout.test_layouts import run_process; run_process()"
    outs = [tmp_path / f"{n}.json" for n in range(2)]
    environment = dict(os.environ, JAX_PLATFORMS="cpu", PYTHONPATH=os.pathsep.join(sys.path))
    processes = [
        subprocess.Popen([sys.executable, "-c", code, str(port), str(n), str(out)], env=environment)
        for n, out in enumerate(outs)
    ]
    assert [process.wait(900) for process in processes] == [0, 0]
    parts = [json.loads(out.read_text()) for out in outs]
    want = engine(tiny.mesh()).generate(params(), tiny.requests(5, samples=2), jax.random.key(0))
    for i, a in enumerate(want):
        question, sample = divmod(i, 2)
        data = parts[question % 2][question // 2 * 2 + sample]
        b = Trajectory.from_bytes(bytes.fromhex(data))
        assert a.id == b.id and a.turns == b.turns and a.stop_reason == b.stop_reason
        np.testing.assert_array_equal(a.tokens, b.tokens)
        assert [x.tobytes() for x in a.images] == [x.tobytes() for x in b.images]
