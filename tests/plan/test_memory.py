"""What is named when a step does not fit."""

from pathlib import Path

from vilasr_jax.plan.hlo import parse
from vilasr_jax.plan.memory import largest, largest_lowered, refusal

LONG = """RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm.
Used 60.90G of 15.75G hbm. Exceeded hbm capacity by 45.15G.

Largest program allocations in hbm:

  1. Size: 20.25G
     Operator: op_name="jit(step)/jvp()/dot_general" source_file="x.py" source_line=7
     Shape: bf16[1,28,18432,18432]{3,2,1,0:T(8,128)(2,1)}
     Unpadded size: 20.25G
     ==========================

  2. Size: 3.50M
     Shape: f32[7,128]{1,0}
"""
SHORT = (
    "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO temporaries (46.00G) "
    "exceeds available HBM (15.75G)."
)


def test_the_compilers_refusal_is_read():
    used, tensors = refusal(LONG)
    assert used == int(60.9 * 2**30)
    assert [(t.name, t.shape) for t in tensors] == [
        ("jit(step)/jvp()/dot_general", "bf16[1,28,18432,18432]"),
        ("argument", "f32[7,128]"),
    ]
    assert refusal(SHORT) == (46 * 2**30, [])
    assert refusal("INTERNAL: something else") is None


def test_the_largest_arrays_of_a_program():
    found = largest(parse((Path(__file__).parent / "scan.hlo").read_text()))
    assert found and found == sorted(found, key=lambda t: -t.bytes)


def test_the_largest_arrays_before_compilation():
    found = largest_lowered("%1 = f(%0) : tensor<4x8xbf16> -> tensor<4x1000xf32>\n%2 : tensor<f32>")
    assert [(t.shape, t.bytes) for t in found] == [("f32[4,1000]", 16000), ("bf16[4,8]", 64)]
