"""Reading optimised HLO text: computations, instructions, and how often a loop runs.

XLA's own `cost_analysis` counts a loop's body once and has no figures for Pallas kernels; so a plan reads the
text itself. Only what a plan needs is read: names, shapes, operands, called computations, a few attributes.
"""

from __future__ import annotations

import dataclasses
import math
import re

_ITEM_BYTES = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "s4": 0.5,
    "u4": 0.5,
    "f8e4m3fn": 1,
    "f8e5m2": 1,
    "s16": 2,
    "u16": 2,
    "bf16": 2,
    "f16": 2,
    "s32": 4,
    "u32": 4,
    "f32": 4,
    "s64": 8,
    "u64": 8,
    "f64": 8,
    "c64": 8,
}
_ARRAY = re.compile(r"\b([a-z]+\d*(?:e\dm\d(?:fn)?)?|pred)\[([\d,]*)\]")
_HEAD = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(ROOT )?%?([\w.\-]+) = ")
_NAME = re.compile(r"%([\w.\-]+)")
_PASSED_ON = ("copy", "bitcast", "convert", "reshape", "copy-done", "opt-barrier")


class UnknownTripCountError(ValueError):
    """A loop whose number of iterations is not in the text."""


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line: `%name = shape opcode(operands), attributes`."""

    name: str
    shape: str
    opcode: str
    operands: tuple[str, ...]
    arguments: str  # the text between the opcode's parentheses
    attributes: str

    def attribute(self, pattern: str) -> str | None:
        """The first group of a regular expression found in the attributes."""
        match = re.search(pattern, self.attributes)
        return match[1] if match else None

    def called(self, key: str = "calls") -> str | None:
        """The name of the computation in `key=%name`; None where there is no such attribute."""
        return self.attribute(rf"\b{key}=%?([\w.\-]+)")

    @property
    def index(self) -> int:
        """Which element of a tuple a get-tuple-element reads."""
        found = self.attribute(r"index=(\d+)")
        if found is None:
            raise ValueError(f"{self.name} has no index")
        return int(found)

    @property
    def cycles(self) -> int:
        """The compiler's estimate of the clock cycles of one execution; 0 where it gives none."""
        return int(self.attribute(r'"estimated_cycles":"(\d+)"') or 0)

    @property
    def op_name(self) -> str:
        """The JAX operation that this comes from."""
        return self.attribute(r'op_name="([^"]*)"') or ""


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions by name, in order; the last is the root."""

    name: str
    instructions: dict[str, Instruction]
    root: str


@dataclasses.dataclass(frozen=True)
class Module:
    """All computations of a program."""

    computations: dict[str, Computation]
    entry: str

    def called(self, instruction: Instruction, key: str = "calls") -> Computation:
        """The computation that an instruction names in `key=%name`.

        Raises:
          KeyError: it names none.
        """
        name = instruction.called(key)
        if name is None:
            raise KeyError(f"{instruction.name} has no {key}")
        return self.computations[name]


def arrays(shape: str) -> list[tuple[str, tuple[int, ...]]]:
    """(dtype, dimensions) of each array in a shape, tuples flattened.

    >>> arrays("(bf16[2,3]{1,0:T(8,128)}, s32[])")
    [('bf16', (2, 3)), ('s32', ())]
    """
    return [(kind, tuple(int(d) for d in dims.split(",") if d)) for kind, dims in _ARRAY.findall(shape)]


def shape_bytes(shape: str) -> int:
    """Bytes of all arrays in a shape, without padding."""
    return int(sum(_ITEM_BYTES.get(kind, 4) * math.prod(dims) for kind, dims in arrays(shape)))


def parse(text: str) -> Module:
    """Reads a module's text.

    Raises:
      ValueError: the text has no entry computation.
    """
    computations: dict[str, Computation] = {}
    entry, name = "", ""
    lines: list[str] = []
    for line in text.splitlines():
        if head := _HEAD.match(line):
            name, lines = head[2], []
            entry = name if head[1] else entry
        elif line == "}" and name:
            computations[name] = _computation(name, lines)
            name = ""
        elif name and _INSTRUCTION.match(line):
            lines.append(line)
        elif name and lines:  # attributes of kernels contain line breaks
            lines[-1] += line
    if not entry:
        raise ValueError("this isn't an HLO module: it has no ENTRY")
    return Module(computations, entry)


def _computation(name: str, lines: list[str]) -> Computation:
    instructions, root = {}, ""
    for line in lines:
        start = _INSTRUCTION.match(line)
        assert start is not None, "`parse` collects lines that begin so"
        instructions[start[2]] = _instruction(start[2], line[start.end() :])
        root = start[2] if start[1] or not root else root
    return Computation(name, instructions, root)


def _instruction(name: str, rest: str) -> Instruction:
    end = _closing(rest, 0) + 1 if rest.startswith("(") else rest.index(" ")
    shape, rest = rest[:end], rest[end:].lstrip()
    opcode, _, _ = rest.partition("(")
    stop = _closing(rest, len(opcode))
    arguments = rest[len(opcode) + 1 : stop]
    return Instruction(name, shape, opcode, tuple(_NAME.findall(arguments)), arguments, rest[stop + 1 :])


def _closing(text: str, start: int) -> int:
    depth = 0
    for at in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        if depth == 0:
            return at
    return len(text)


def trip_count(module: Module, computation: Computation, loop: Instruction) -> int:
    """How often the body of `loop`, a `while` of `computation`, runs; at most, where it may end early.

    The counter, its start and step are read from the loop itself; a condition that also depends on something
    else (decoding stops early when enough rows have ended) counts as if it never did. Where the bound itself
    is computed (attention reads as much of a cache as is full), the scope "at_most_N_times" around the loop
    says it.

    Raises:
      UnknownTripCountError: the loop has no counter with a constant bound.
    """
    known = loop.attribute(r'"known_trip_count":\{"n":"(\d+)"\}')
    if known:
        return int(known)
    condition = module.called(loop, "condition")
    body = module.called(loop, "body")
    for compare, scope in _compares(module, condition):
        index, bound = _counter_and_bound(compare, scope)
        if index is None or bound is None:
            continue
        start = _initial(computation, loop, index)
        step = _step(module, body, index)
        if start is not None and step:
            more = compare.attribute(r"direction=(\w+)") in ("LE", "GE")
            return max(0, -(-(bound + more - start) // step))
    at_most = re.search(r"at_most_(\d+)_times/while$", loop.op_name)
    if at_most:
        return int(at_most[1])
    raise UnknownTripCountError(f"loop {loop.name} ({loop.op_name}): its number of iterations is not known")


def _compares(module: Module, condition: Computation):
    """The comparisons of which the condition's root consists, with the scope that resolves their operands."""
    pending = [(condition.root, _Scope(condition, None, None))]
    while pending:
        name, scope = pending.pop()
        found, scope = scope.resolve(name)
        if found.opcode == "compare":
            yield found, scope
        elif found.opcode == "and":
            pending += [(operand, scope) for operand in found.operands]
        elif found.opcode == "fusion":
            inner = module.called(found)
            pending.append((inner.root, _Scope(inner, scope, found)))


@dataclasses.dataclass(frozen=True)
class _Scope:
    """A computation, and for a fused one the place it is called from."""

    computation: Computation
    outer: _Scope | None
    call: Instruction | None

    def resolve(self, name: str) -> tuple[Instruction, _Scope]:
        """The instruction behind copies, conversions and the parameters of fusions."""
        found = self.computation.instructions[name]
        if found.opcode in _PASSED_ON and found.operands:
            return self.resolve(found.operands[0])
        if found.opcode == "parameter" and self.outer is not None and self.call is not None:
            return self.outer.resolve(self.call.operands[int(found.arguments)])
        return found, self

    def constant(self, name: str) -> int | None:
        """The integer behind a name, if it is one."""
        found, _ = self.resolve(name)
        return int(found.arguments) if found.opcode == "constant" and _is_int(found.arguments) else None

    def counter(self, name: str) -> int | None:
        """Which element of the loop's state a name is, if it is one."""
        found, _ = self.resolve(name)
        return found.index if found.opcode == "get-tuple-element" else None


def _is_int(text: str) -> bool:
    return re.fullmatch(r"-?\d+", text) is not None


def _counter_and_bound(compare: Instruction, scope: _Scope) -> tuple[int | None, int | None]:
    left, right = compare.operands
    direction = compare.attribute(r"direction=(\w+)")
    if direction in ("LT", "LE"):
        return scope.counter(left), scope.constant(right)
    if direction in ("GT", "GE"):
        return scope.counter(right), scope.constant(left)
    return None, None


def _initial(computation: Computation, loop: Instruction, index: int) -> int | None:
    scope = _Scope(computation, None, None)
    state, _ = scope.resolve(loop.operands[0])
    return scope.constant(state.operands[index]) if state.opcode == "tuple" else None


def _step(module: Module, body: Computation, index: int) -> int | None:
    scope = _Scope(body, None, None)
    state, _ = scope.resolve(body.root)
    if state.opcode != "tuple":
        return None
    change, scope = scope.resolve(state.operands[index])
    part = None
    if change.opcode == "get-tuple-element":
        part = change.index
        change, scope = scope.resolve(change.operands[0])
    if change.opcode == "fusion":
        inner = module.called(change)
        scope = _Scope(inner, scope, change)
        change, scope = scope.resolve(inner.root)
        if change.opcode == "tuple" and part is not None:
            change, scope = scope.resolve(change.operands[part])
    if change.opcode != "add":
        return None
    left, right = change.operands
    for counter, step in ((left, right), (right, left)):
        if scope.counter(counter) == index and scope.constant(step) is not None:
            return scope.constant(step)
    return None
