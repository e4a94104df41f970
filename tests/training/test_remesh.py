"""A run resumes from its checkpoint on another number of devices."""

import jax
import numpy as np
import pytest

from tests.training import samples
from tests.training.test_sharded import model
from vilasr_jax.checkpoint import CheckpointStore
from vilasr_jax.config import MeshSection, OptimizerSection
from vilasr_jax.models.qwen2_5_vl import param_shardings
from vilasr_jax.parallel import make_mesh, place, put_batch
from vilasr_jax.training.optimizers import make_optimizer
from vilasr_jax.training.state import init_state, split_frozen
from vilasr_jax.training.steps import make_sft_step

SECTION = OptimizerSection(freeze=("vision",))


def step_on(mesh, state, number):
    graphdef, _ = model()
    step = make_sft_step(graphdef, make_optimizer(SECTION, 9), mesh=mesh)
    state, metrics = step(state, put_batch(mesh, samples.batch(range(8 * number, 8 * number + 8))))
    return state, float(metrics["loss"][0] / metrics["loss"][1])


def fresh(mesh):
    params = model()[1]
    return init_state(place(params, param_shardings(params, mesh)), make_optimizer(SECTION, 9), mesh, SECTION)


def restored(store, mesh):
    """The saved state on another mesh."""
    state = fresh(mesh)
    items = {"params": state.all_params, "opt_state": state.opt_state}
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), items)
    got = store.restore(None, abstract)
    trained, frozen = split_frozen(got["params"], SECTION.freeze)
    return state._replace(params=trained, frozen=frozen, opt_state=got["opt_state"])


@pytest.mark.slow
@pytest.mark.parametrize("then", [MeshSection(fsdp=2), MeshSection(fsdp=2, model=2)])
def test_from_eight_devices_onto_fewer(tmp_path, then):
    eight = make_mesh(MeshSection(data=2, fsdp=2, model=2))
    state, _ = step_on(eight, fresh(eight), 0)
    with CheckpointStore(tmp_path) as store:
        store.save(1, {"params": state.all_params, "opt_state": state.opt_state}, wait=True)
        devices = max(then.fsdp, 1) * then.model
        fewer = make_mesh(MeshSection(data=1, fsdp=then.fsdp, model=then.model), jax.devices()[:devices])
        other = restored(store, fewer)
    _, expected = step_on(eight, state, 1)
    _, loss = step_on(fewer, other, 1)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
