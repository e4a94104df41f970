"""What needs a process of its own: NNX's tree mode, and weights split over several (virtual) devices."""

import os
import pathlib
import subprocess
import sys

import pytest

SCRIPT = """
import flax, jax, numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from tests.models.small import SMALLS, image_rows, text_batch
from vilasr_jax.models.params import build
from vilasr_jax.models.qwen2_5_vl import VisionInput, init_cache, layout, partition_specs

assert not flax.config.nnx_graph_mode and len(jax.devices()) == 4
SMALL = SMALLS["MODEL_TYPE"]
sizes = dict(hidden_size=104, num_heads=4, num_kv_heads=2, intermediate_size=74, vocab_size=212)
config = SMALL.replace(**sizes, vision=SMALL.vision.__class__(**{**vars(SMALL.vision), "out_hidden_size": 104,
                                                               "intermediate_size": 58}))
graphdef, params = nnx.split(build(config))
tokens, positions, segments = text_batch(2, 11)
vision = VisionInput(*(np.concatenate([a, a]) for a in image_rows([(1, 2, 4)], 8, config=config)))
index = np.where(np.arange(11) < 2, np.arange(11), -1)[None].repeat(2, 0).astype(np.int32)

def forward(params, tokens, positions, segments, index, vision):
    model = nnx.merge(graphdef, params)
    return model.logits(model(tokens, positions, segments, index, vision))

def read(params, tokens, positions, cache):
    model = nnx.merge(graphdef, params)
    hidden, cache = model.extend(model.embed(tokens), positions, tokens >= 0, cache)
    return model.logits(hidden), cache

args = tokens, positions, segments, index, vision
plain = jax.jit(forward)(params, *args)
mesh = Mesh(np.array(jax.devices()).reshape(1, 2, 2), ("data", "fsdp", "model"))
specs = partition_specs(params)
shardings = jax.tree.map(lambda s: NamedSharding(mesh, s), specs, is_leaf=lambda s: isinstance(s, P))
split = jax.device_put(params, shardings)
assert sum(not leaf.is_fully_replicated for leaf in jax.tree.leaves(split)) > 15
rows = NamedSharding(mesh, layout("training").tokens_bt)
tokens_split = jax.device_put(tokens, rows)
np.testing.assert_allclose(jax.jit(forward)(split, tokens_split, *args[1:]), plain, atol=3e-5)

rows = config.replace(context_parallel=True, remat="attention")
with jax.set_mesh(mesh):
    parallel = nnx.graphdef(nnx.eval_shape(lambda: build(rows)))

    def loss(graphdef, params):
        model = nnx.merge(graphdef, params)
        return jax.nn.log_softmax(model.logits(model(*args)))[..., 0].mean()

    wanted, got = (jax.jit(jax.grad(lambda p, g=g: loss(g, p)))(split) for g in (graphdef, parallel))
for a, b in zip(jax.tree.leaves(wanted), jax.tree.leaves(got), strict=True):
    np.testing.assert_allclose(a, b, atol=3e-5)

text = jax.jit(lambda p: nnx.merge(graphdef, p).logits(nnx.merge(graphdef, p)(*args[:3])))(params)
cached, _ = jax.jit(read)(split, tokens_split, positions, init_cache(config, 2, 13))
np.testing.assert_allclose(cached, text, atol=3e-5)
print("equal")
"""


@pytest.mark.parametrize("name", ["qwen2_5_vl", pytest.param("qwen3_vl", marks=pytest.mark.slow)])
def test_sharded_weights_and_tree_mode_give_the_same(name):
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "NNX_GRAPH_MODE": "false",
    }
    root = pathlib.Path(__file__).parents[2]
    command = [sys.executable, "-c", SCRIPT.replace("MODEL_TYPE", name)]
    run = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    assert run.stdout.endswith("equal\n"), run.stderr[-3000:]
