"""A simulated job as printed tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from vilasr_jax.plan.simulation.step_times import ENDS

_GB = 1e9
ASSUMPTIONS = (
    "SIMULATED from the plan's UNCALIBRATED seconds: nothing here ran on a TPU. Smaller calls than the "
    "compiled ones are scaled by their model FLOPs. Not simulated: the start, compilations, validation, "
    "evaluation, rewards, failures, traffic of the bucket."
)


def print_job(found: Mapping[str, Any], price: float = 0.0, console: Console | None = None) -> None:
    """Seconds and their parts at best and at worst, hours, cost, host memory and network."""
    console = console or Console()

    def line(text: str) -> None:
        console.print(text, soft_wrap=True, highlight=False, markup=False)

    if "sft" in found:
        _print_sft(found["sft"], console)
    if "rl" in found:
        _print_rl(found["rl"], console)
    for stage in ("sft", "rl"):
        if stage in found:
            worst = found[stage]["worst"]
            line(f"{stage}, memory of a host at most: {_sizes(worst['host_memory'])}")
            line(
                f"{stage}, a step's gathers without weights and gradients: {_sizes(worst['network'])} a host"
            )
    costs = found["host_costs"]
    listed = ", ".join(f"{name} {one['value']:.3g} ({one['source']})" for name, one in costs.items())
    line(f"Costs of a host: {listed}")
    if not price:
        line("No cost: give the price of a chip per hour with --chip_hour")
    line(ASSUMPTIONS)


def _print_sft(ends: Mapping[str, Any], console: Console) -> None:
    best = ends["best"]
    row = f"{best['conversations_a_row']:.1f} conversations a row, {best['used_tokens']:.0%} of it used"
    title = f"{best['stage']}: an epoch of {best['rows']:,} rows, {best['steps']:,} steps; {row}"
    table = _table(title)
    _add(table, "seconds a step", ends, lambda one: f"{one['seconds_a_step']:.2f}")
    _add_parts(table, ends)
    _add(table, "useful-token MFU bound", ends, lambda one: f"{one['useful_mfu']:.0%}")
    _add_costs(table, "an epoch", ends)
    console.print(table)


def _print_rl(ends: Mapping[str, Any], console: Console) -> None:
    best = ends["best"]
    what = f"{best['conversations']:,} conversations, {best['tokens']:,} tokens, {best['sampled']:,} sampled"
    engine = f"{best['slots_of_a_host']} slots a host, {best['gradient_calls']} gradient calls"
    title = f"rl: a step of {what}; {engine}"
    table = _table(title)
    _add(table, "seconds", ends, lambda one: f"{one['seconds']:.1f}")
    _add_parts(table, ends)
    _add(table, "useful-token MFU bound of the step", ends, lambda one: f"{one['useful_mfu']:.0%}")
    _add(table, "... of the gradient calls", ends, lambda one: f"{one['useful_mfu_of_gradients']:.0%}")
    _add_costs(table, f"{best['steps']:,} steps", ends)
    console.print(table)


def _table(title: str) -> Table:
    table = Table(title=title)
    for name in ("", "at best", "at worst"):
        table.add_column(name)
    return table


def _add(table: Table, name: str, ends: Mapping[str, Any], text: Any) -> None:
    table.add_row(name, *(text(ends[end]) for end in ENDS))


def _add_parts(table: Table, ends: Mapping[str, Any]) -> None:
    for name in ends["best"]["parts"]:
        _add(table, f"  {name}", ends, lambda one, name=name: f"{one['parts'][name] / one['seconds']:.1%}")


def _add_costs(table: Table, what: str, ends: Mapping[str, Any]) -> None:
    if ends["best"]["hours"]:
        _add(table, f"hours of {what}", ends, lambda one: f"{one['hours']:.2f}")
    if "cost" in ends["best"]:
        _add(table, f"cost of {what}", ends, lambda one: f"{one['cost']:,.0f}")


def _sizes(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {size / _GB:.4g} GB" for name, size in sizes.items())
