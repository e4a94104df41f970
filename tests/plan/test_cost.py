"""Cycles, kernels and bytes between chips, from the program in tests/plan/scan.hlo (see test_hlo.py)."""

from pathlib import Path

import pytest

from vilasr_jax.plan.cost import group_size, step_cost
from vilasr_jax.plan.predict import predict
from vilasr_jax.slices import parse_topology

SCAN = (Path(__file__).parent / "scan.hlo").read_text()
LAYERS, ROWS, WIDTH, CHIPS = 6, 1024, 256, 4


@pytest.fixture(scope="module")
def cost():
    return step_cost(SCAN)


def test_a_collective_counts_once_per_run_of_its_loop(cost):
    found = {(c.kind, c.asynchronous): (c.bytes, c.count, c.group) for c in cost.collectives}
    weight = 2 * WIDTH * WIDTH  # bytes, bf16
    assert found == {
        ("all-gather", False): (LAYERS * weight * 3 / 4, LAYERS, CHIPS),  # forward: XLA did not overlap it
        ("all-gather", True): (LAYERS * weight * 3 / 4, LAYERS, CHIPS),  # backward
        ("all-reduce", False): (LAYERS * weight * 2 * 3 / 4, LAYERS, CHIPS),  # the weight's gradient
    }
    assert cost.bytes(asynchronous=True) == LAYERS * weight * 3 / 4


def test_attention_kernels_count_their_matrix_products(cost):
    forward = 2 * 2 * (2 * 256 * 128) * 256  # 2 products, 2 heads of [256, 128], one row a chip
    by_name = {kernel.name.split("_")[2]: kernel.flops / LAYERS for kernel in cost.kernels}
    assert by_name["fwd"] == forward
    assert by_name["dkv"] == 2.5 * forward


def test_cycles_are_those_of_the_loops_bodies_times_their_counts(cost):
    outside, inside = 0, 0
    depth = None
    for line in SCAN.splitlines():
        if line.startswith(("%", "ENTRY")):
            depth = "body" if "sunk (" in line else "entry" if line.startswith("ENTRY") else None
        if depth and '"estimated_cycles":"' in line:
            cycles = int(line.split('"estimated_cycles":"')[1].split('"')[0])
            inside, outside = inside + cycles * (depth == "body"), outside + cycles * (depth == "entry")
    assert cost.cycles == outside + LAYERS * inside


def test_a_wider_slice_is_not_slower(cost):
    small, large = (predict(cost, parse_topology(name)) for name in ("v5e:2x2", "v5e:16x16"))
    assert small.best <= small.worst and large.best <= small.best
    low, high = small.utilisation(1e9, parse_topology("v5e:2x2"))
    assert 0 < low <= high


def test_a_step_is_no_quicker_than_reading_what_it_must(cost):
    chip = parse_topology("v5e:2x2")
    slow = predict(cost, chip, reads=819e9)
    assert slow.memory == 1.0 <= slow.best and predict(cost, chip).best < slow.best


KERNEL = """HloModule m

ENTRY %main (q: bf16[2,256,128]) -> bf16[2,256,128] {
  %q = bf16[2,256,128] parameter(0)
  %k = bf16[1,512,128] parameter(1)
  ROOT %o = bf16[2,256,128] custom-call(%q, %k), custom_call_target="tpu_custom_call", metadata={op_name="x"}
}
"""


def test_a_kernels_work_depends_on_its_keys():
    kernel = step_cost(KERNEL.replace('"x"', '"causal/splash_mha_fwd"')).kernels[0]
    assert kernel.flops == 2 * 2 * (2 * 256 * 128) * 512 / 2


@pytest.mark.parametrize(
    "text, size",
    [
        ("replica_groups=[4,16]<=[64], x", 16),
        ("replica_groups=[2,4]<=[4,2]T(1,0)", 4),
        ("replica_groups={{0,1,2},{3,4,5}}", 3),
        ("replica_groups=mesh['axis_0'=4,'axis_1'=8] {'axis_1'}", 8),
        ("replica_groups=mesh['a'=4,'b'=8] {'a','b'}", 32),
        ("replica_groups=mesh['a'=4,'b'=16], device_ids=([16,4]T(1,0)) {'b'}, dimensions={0}", 16),
    ],
)
def test_group_sizes(text, size):
    assert group_size(text) == size


def test_a_collective_without_groups_is_an_error():
    with pytest.raises(ValueError, match="no group"):
        group_size("channel_id=1")


CONDITIONAL = """HloModule m

%cheap (p: f32[8]) -> f32[8] {
  %p = f32[8] parameter(0)
  ROOT %a = f32[8] copy(%p), backend_config={"window_config":{"estimated_cycles":"10"}}
}

%dear (q: f32[8]) -> f32[8] {
  %q = f32[8] parameter(0)
  ROOT %b = f32[8] copy(%q), backend_config={"window_config":{"estimated_cycles":"300"}}
}

ENTRY %main (i: s32[], x: f32[8]) -> f32[8] {
  %i = s32[] parameter(0)
  %x = f32[8] parameter(1)
  ROOT %c = f32[8] conditional(%i, %x, %x), branch_computations={%cheap, %dear}
}
"""


def test_of_a_conditional_the_dearest_branch_counts():
    assert step_cost(CONDITIONAL).cycles == 300
