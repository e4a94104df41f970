"""Reading optimised HLO: a real program for v5e:2x2 (tests/plan/scan.hlo) and small hand-written loops.

The program is the gradient of 6 scanned layers, each a matrix product with a weight split over 4 chips and an
attention kernel; layouts and long attributes are cut from its text.
"""

from pathlib import Path

import pytest

from vilasr_jax.plan.hlo import UnknownTripCountError, arrays, parse, shape_bytes, trip_count

SCAN = (Path(__file__).parent / "scan.hlo").read_text()

LOOP = """HloModule m

%body (p: (s32[], f32[8])) -> (s32[], f32[8]) {{
  %p = (s32[], f32[8]) parameter(0)
  %i = s32[] get-tuple-element(%p), index=0
  %x = f32[8] get-tuple-element(%p), index=1
  %step = s32[] constant({step})
  %next = s32[] add(%i, %step)
  ROOT %out = (s32[], f32[8]) tuple(%next, %x)
}}

%cond (p.1: (s32[], f32[8])) -> pred[] {{
  %p.1 = (s32[], f32[8]) parameter(0)
  %i.1 = s32[] get-tuple-element(%p.1), index=0
  %bound = s32[] constant({bound})
{condition}
}}

ENTRY %main (a: f32[8]) -> f32[8] {{
  %a = f32[8] parameter(0)
  %zero = s32[] constant({start})
  %begin = (s32[], f32[8]) tuple(%zero, %a)
  %loop = (s32[], f32[8]) while(%begin), condition=%cond, body=%body{attributes}
  ROOT %result = f32[8] get-tuple-element(%loop), index=1
}}
"""
LESS = "  ROOT %lt = pred[] compare(%i.1, %bound), direction=LT"
STOPS_EARLY = """  %lt = pred[] compare(%i.1, %bound), direction=LT
  %some = pred[] constant(true)
  ROOT %both = pred[] and(%lt, %some)"""


def count(start=0, bound=28, step=1, condition=LESS, attributes=""):
    module = parse(
        LOOP.format(start=start, bound=bound, step=step, condition=condition, attributes=attributes)
    )
    entry = module.computations[module.entry]
    return trip_count(module, entry, entry.instructions["loop"])


def test_shapes():
    assert arrays("(bf16[2,3]{1,0:T(8,128)(2,1)S(1)}, /*index=1*/s32[])") == [("bf16", (2, 3)), ("s32", ())]
    assert shape_bytes("(bf16[2,3]{1,0}, f32[5], pred[7])") == 12 + 20 + 7


def test_every_loop_of_a_real_program_is_counted():
    module = parse(SCAN)
    entry = module.computations[module.entry]
    loops = [i for i in entry.instructions.values() if i.opcode == "while"]
    assert [trip_count(module, entry, loop) for loop in loops] == [6, 6]


def test_instructions_with_line_breaks_have_their_attributes():
    kernels = [
        i
        for c in parse(SCAN).computations.values()
        for i in c.instructions.values()
        if i.attribute(r'custom_call_target="(tpu_custom_call)"')
    ]
    assert len(kernels) == 3 and all("splash_mha" in kernel.op_name for kernel in kernels)


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, 28),
        ({"start": 3}, 25),
        ({"step": 5}, 6),
        ({"condition": LESS.replace("LT", "LE")}, 29),
        ({"bound": 0}, 0),
        ({"condition": STOPS_EARLY}, 28),
        ({"attributes": ', backend_config={"known_trip_count":{"n":"7"}}'}, 7),
    ],
)
def test_trip_counts(options, expected):
    assert count(**options) == expected


@pytest.mark.parametrize(
    "condition",
    [
        LESS.replace("LT", "GT"),
        "  ROOT %lt = pred[] constant(true)",
        "  ROOT %lt = pred[] compare(%i.1, %i.1), direction=LT",
    ],
)
def test_a_loop_without_a_known_end_is_an_error(condition):
    with pytest.raises(UnknownTripCountError, match="loop"):
        count(condition=condition)


def test_a_computed_end_is_read_from_the_scope_of_the_loop():
    unknown = "  ROOT %lt = pred[] compare(%i.1, %i.1), direction=LT"
    scoped = ', metadata={op_name="jit(f)/while/body/at_most_72_times/while"}'
    assert count(condition=unknown, attributes=scoped) == 72
    with pytest.raises(UnknownTripCountError):
        count(condition=unknown, attributes=scoped.replace('/while"', '/body/while"'))


def test_what_is_no_program_is_an_error():
    with pytest.raises(ValueError, match="ENTRY"):
        parse("nothing")
