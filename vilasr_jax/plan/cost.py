"""What one execution of a compiled step costs: clock cycles, kernels, and bytes between chips.

Loops are unfolded by their trip counts. Cycles are the compiler's own estimates; Pallas kernels have none and
are counted by what they compute. A collective is asynchronous when other work runs between its start and its
end. Nothing here has been compared with a TPU: sums rank layouts, absolute times are uncalibrated.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator

from vilasr_jax.plan.hlo import Computation, Instruction, Module, arrays, parse, shape_bytes, trip_count

# replica_groups=mesh['axis_0'=4,'axis_1'=16], device_ids=([16,4]T(1,0)) {'axis_1'}
_MESH_GROUPS = r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(.*?\)\))?\s*\{([^}]*)\}"
COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")


@dataclasses.dataclass(frozen=True)
class Collective:
    """One exchange between chips, all its executions in a step."""

    kind: str
    tensor: str  # the array that is exchanged
    op_name: str
    bytes: float  # bytes that one device receives, over all executions
    group: int  # devices that exchange with each other
    count: int  # executions
    asynchronous: bool


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One Pallas kernel, all its executions in a step."""

    name: str
    op_name: str
    flops: float  # over all executions
    count: int


@dataclasses.dataclass(frozen=True)
class Cost:
    """A step on one device."""

    cycles: float
    kernels: tuple[Kernel, ...]
    collectives: tuple[Collective, ...]
    loops: dict[str, int]  # trip count by the loop's operation

    def bytes(self, *, asynchronous: bool) -> float:
        """Bytes that one device receives from others."""
        return sum(c.bytes for c in self.collectives if c.asynchronous == asynchronous)

    @property
    def kernel_flops(self) -> float:
        """FLOPs of all kernels."""
        return sum(kernel.flops for kernel in self.kernels)


def step_cost(text: str) -> Cost:
    """The cost of a step, from its optimised HLO text.

    Raises:
      UnknownTripCountError: a loop's number of iterations is not known.
    """
    walk = _Walk(parse(text))
    walk.run(walk.module.computations[walk.module.entry], 1)
    return Cost(walk.cycles, tuple(walk.kernels), tuple(walk.collectives), walk.loops)


class _Walk:
    def __init__(self, module: Module):
        self.module = module
        self.cycles = 0.0
        self.kernels: list[Kernel] = []
        self.collectives: list[Collective] = []
        self.loops: dict[str, int] = {}
        self.started: set[str | None] = set()  # channels of asynchronous collectives

    def run(self, computation: Computation, times: int) -> None:
        """Adds `times` executions of a computation."""
        for instruction in computation.instructions.values():
            if instruction.opcode == "while":
                count = trip_count(self.module, computation, instruction)
                self.loops[f"{instruction.op_name} ({instruction.name})"] = count
                self.run(self.module.called(instruction, "body"), times * count)
            elif instruction.opcode == "conditional":
                self._add_costliest_branch(instruction, times)
            elif instruction.opcode in ("call", "async-start"):
                self.run(self.module.computations[_callee(instruction)], times)
            elif instruction.attribute(r'custom_call_target="(tpu_custom_call)"'):
                self.kernels.append(_kernel(computation, instruction, times))
            else:
                self.cycles += instruction.cycles * times
                self._exchange(computation, instruction, times)

    def _add_costliest_branch(self, instruction: Instruction, times: int) -> None:
        """Adds the branch of a conditional that has the most cycles and FLOPs."""
        branches = []
        for computation in _branches(self.module, instruction):
            branch = _Walk(self.module)
            branch.run(computation, times)
            branches.append(branch)
        costliest = max(branches, key=lambda branch: branch.cycles + sum(k.flops for k in branch.kernels))
        self.cycles += costliest.cycles
        self.kernels += costliest.kernels
        self.collectives += costliest.collectives
        self.loops |= costliest.loops

    def _exchange(self, computation: Computation, instruction: Instruction, times: int) -> None:
        if instruction.opcode == "fusion":
            inner = self.module.called(instruction)
            targets = [i.attribute(r'custom_call_target="(\w+)"') for i in inner.instructions.values()]
            found = [(i, kind) for i in self._inside(inner) if (kind := _kind(i))]
            channels = {i.attribute(r"channel_id=(\d+)") for i, _ in found}
            started = "AsyncCollectiveStart" in targets
            if not started and channels <= self.started:
                return  # continuation or end of an operation that was counted at its start
            if started:
                self.started |= channels
            scattered = "reduce-scatter" in instruction.name or "all-reduce-scatter" in inner.name
            for one, kind in found[:1] if started else found:
                kind = "reduce-scatter" if scattered and kind == "all-reduce" else kind
                self._add(inner, one, kind, times, started)
        elif kind := _kind(instruction):
            started = instruction.opcode.endswith("-start")
            self._add(computation, instruction, kind, times, started)

    def _inside(self, computation: Computation) -> Iterator[Instruction]:
        for instruction in computation.instructions.values():
            yield instruction
            if instruction.opcode == "fusion":
                yield from self._inside(self.module.called(instruction))

    def _add(self, computation: Computation, one: Instruction, kind: str, times: int, started: bool) -> None:
        group = group_size(one.attributes, one.opcode)
        sources = [
            computation.instructions[name].shape for name in one.operands if name in computation.instructions
        ]
        operand_bytes = sum(map(shape_bytes, sources))
        fraction = (group - 1) / group
        moved = {
            "all-gather": operand_bytes * (group - 1),
            "all-reduce": 2 * operand_bytes * fraction,
            "reduce-scatter": operand_bytes * fraction,
            "all-to-all": operand_bytes * fraction,
            "collective-permute": operand_bytes,
        }[kind]
        largest = max((array for shape in sources for array in arrays(shape)), key=lambda a: math.prod(a[1]))
        tensor = f"{largest[0]}[{','.join(map(str, largest[1]))}]"
        self.collectives.append(Collective(kind, tensor, one.op_name, moved * times, group, times, started))


def _kind(instruction: Instruction) -> str | None:
    name = instruction.opcode.removesuffix("-start")
    return name if name in COLLECTIVES else None


def _callee(instruction: Instruction) -> str:
    keys = ("to_apply", "calls", "called_computation")
    return next(name for key in keys if (name := instruction.called(key)))


def _branches(module: Module, instruction: Instruction) -> list[Computation]:
    listed = instruction.attribute(r"branch_computations=\{([^}]*)\}")
    if listed:
        return [module.computations[name] for name in re.findall(r"%?([\w.\-]+)", listed)]
    return [module.called(instruction, key) for key in ("true_computation", "false_computation")]


def group_size(attributes: str, opcode: str = "") -> int:
    """How many devices exchange with each other, from an instruction's `replica_groups`.

    >>> group_size("replica_groups=[4,16]<=[64]"), group_size("replica_groups={{0,1},{2,3}}")
    (16, 2)
    >>> group_size("replica_groups=mesh['a'=4,'b'=2] {'b'}")
    2
    """
    if opcode.startswith("collective-permute"):
        return 2
    if match := re.search(r"replica_groups=\[\d+,(\d+)\]", attributes):
        return int(match[1])
    if match := re.search(r"replica_groups=\{\{([\d,]+)\}", attributes):
        return match[1].count(",") + 1
    if match := re.search(_MESH_GROUPS, attributes):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
        return math.prod(int(sizes[name]) for name in re.findall(r"'(\w+)'", match[2]))
    raise ValueError(f"no group of devices in {attributes[:200]!r}")


def _kernel(computation: Computation, instruction: Instruction, times: int) -> Kernel:
    return Kernel(
        instruction.name, instruction.op_name, times * _splash_flops(computation, instruction), times
    )


def _splash_flops(computation: Computation, instruction: Instruction) -> float:
    """FLOPs of an attention kernel: per head 2 products of queries and keys forward, 5 backward.

    Half if causal, which the path of the operation says; 0 for another kernel.
    """
    products = {"splash_mha_fwd": 2, "splash_mha_dkv": 5, "splash_mha_dq": 3}
    match = next((value for name, value in products.items() if name in instruction.op_name), None)
    if match is None:
        return 0.0
    shapes = [
        dims
        for name in instruction.operands
        if name in computation.instructions
        for kind, dims in arrays(computation.instructions[name].shape)
        if kind in ("bf16", "f32") and len(dims) in (3, 4)
    ]
    q = max(shapes, key=math.prod)  # [.., heads, t, h]
    keys = max(dims[-2] for dims in shapes if dims[-1] == q[-1])
    causal = 0.5 if "causal" in instruction.op_name else 1.0
    return causal * match * 2 * math.prod(q) * keys
