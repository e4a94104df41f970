"""What fills a chip's memory: named from a compiled step, or from the compiler's refusal."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterable

from vilasr_jax.plan.hlo import Module, arrays, shape_bytes

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_USED = re.compile(r"Used ([\d.]+)([KMG]?) of [\d.]+[KMG]? hbm")
_TEMPORARIES = re.compile(r"Ran out of memory on HBM.*?\(([\d.]+)([KMG]?)\) exceeds")
_ALLOCATION = re.compile(
    r"Size: ([\d.]+)([KMG]?)\s*\n(?:\s*Operator: op_name=\"([^\"]*)\"[^\n]*\n)?\s*Shape: ([^\s{]+)"
)
_LOWERED = re.compile(r"tensor<((?:\d+x)+)(f32|bf16|i32|i1|f16|ui8)>")
_LOWERED_BYTES = {"f32": 4, "i32": 4, "bf16": 2, "f16": 2, "i1": 1, "ui8": 1}
_NO_ARRAY_OF_ITS_OWN = ("parameter", "tuple", "while", "get-tuple-element", "bitcast", "copy-start")


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An array: on one device, unless its name says "unsharded"."""

    name: str
    shape: str
    bytes: int


def refusal(message: str) -> tuple[int, list[Tensor]] | None:
    """What the compiler's out-of-memory error says; None for another error.

    Returns:
      Bytes requested (with arguments where the message counts them), and the allocations it names.
    """
    used = _USED.search(message) or _TEMPORARIES.search(message)
    if used is None:
        return None
    tensors = [
        Tensor(name or "argument", shape, _bytes(number, unit))
        for number, unit, name, shape in _ALLOCATION.findall(message)
    ]
    return _bytes(*used.groups()), tensors


def _bytes(number: str, unit: str) -> int:
    return int(float(number) * _UNITS[unit])


def largest(module: Module, count: int = 5) -> list[Tensor]:
    """The largest arrays that a compiled program makes in HBM, each shape once; arguments are left out."""
    fused = {
        instruction.called()
        for computation in module.computations.values()
        for instruction in computation.instructions.values()
        if instruction.opcode == "fusion"
    }
    found: dict[str, Tensor] = {}
    for name, computation in module.computations.items():
        if name in fused:
            continue
        for i in computation.instructions.values():
            on_chip = "S(1)" in i.shape
            if i.opcode in _NO_ARRAY_OF_ITS_OWN or on_chip or i.shape.startswith("(") or not arrays(i.shape):
                continue
            shape = i.shape.split("{")[0]
            found.setdefault(shape, Tensor(i.op_name or i.name, shape, shape_bytes(i.shape)))
    return merged(found.values(), count)


def largest_lowered(text: str, count: int = 5) -> list[Tensor]:
    """The largest arrays of a program that was not compiled (StableHLO text), before they are split."""
    found = {}
    for dims, kind in set(_LOWERED.findall(text)):
        sizes = [int(size) for size in dims.split("x") if size]
        shape = f"{kind}[{','.join(map(str, sizes))}]"
        found[shape] = Tensor("unsharded, as written", shape, _LOWERED_BYTES[kind] * math.prod(sizes))
    return merged(found.values(), count)


def merged(tensors: Iterable[Tensor], count: int = 5) -> list[Tensor]:
    """The largest of some tensors, largest first."""
    return sorted(tensors, key=lambda tensor: -tensor.bytes)[:count]
