"""A plan as a printed table."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

from vilasr_jax.plan.predict import KERNEL_FRACTION, LINK_FRACTION
from vilasr_jax.plan.run import accounts_of
from vilasr_jax.slices import parse_topology

_GIB = 2**30
ASSUMPTIONS = (
    "Memory is the compiler's own account. Seconds are UNCALIBRATED: nothing here ran on a TPU. At best: the "
    "compiler's cycle estimates at an inferred clock, attention kernels at the chip's peak, asynchronous "
    f"collectives hidden. At worst: kernels at {KERNEL_FRACTION:.0%} of the peak, links at "
    f"{LINK_FRACTION:.0%} of their bandwidth, nothing hidden."
)


def rows(result: dict[str, Any], price: float = 0.0) -> list[dict[str, str]]:
    """The table's cells, a row a step."""
    chips = parse_topology(result["topology"]).size
    return [_row(answer, chips, price) for answer in result["steps"]]


def _row(answer: dict[str, Any], chips: int, price: float) -> dict[str, str]:
    row = {"step": answer["step"]}
    if "peak_bytes" not in answer:
        return row | {"fits": "?", "note": answer.get("error", "")}
    row["fits"] = "yes" if answer["fits"] else "NO"
    fraction = answer["peak_bytes"] / answer["limit_bytes"]
    row["peak GiB"] = f"{answer['peak_bytes'] / _GIB:.2f} ({fraction:.0%})"
    held = sorted(answer["arguments"].items(), key=lambda item: -item[1])
    row["held GiB"] = ", ".join(f"{name} {size / _GIB:.2f}" for name, size in held if size > 0.005 * _GIB)
    if "compile_seconds" in answer:
        row["compile"] = f"{answer['compile_seconds']:.0f} s, {answer['host_bytes'] / _GIB:.1f} GiB"
    if "seconds" not in answer:
        return row | {"note": answer.get("error", "")}
    seconds, each = answer["seconds"], answer["executions"]
    row["model TFLOP"] = f"{answer['flops'] / 1e12 / each:,.2f}"
    row["sync GB"] = f"{answer['synchronous_bytes'] / 1e9 / each:.3f}"
    row["async GB"] = f"{answer['asynchronous_bytes'] / 1e9 / each:.3f}"
    row["seconds"] = f"{seconds['best'] / each:.4g} to {seconds['worst'] / each:.4g}"
    low, high = answer["utilisation"]
    row["MFU bound"] = f"{low:.0%} to {high:.0%}" if answer["flops"] else ""
    if seconds["memory"]:
        row["memory bound s"] = f"{seconds['memory'] / each:.4g}"
    if price and answer["samples"]:
        cost = [chips * price * seconds[end] / 3600 / answer["samples"] * 1000 for end in ("best", "worst")]
        row["cost of 1,000 samples"] = f"{cost[0]:,.2f} to {cost[1]:,.2f}"
    return row


def print_plan(result: dict[str, Any], price: float = 0.0, console: Console | None = None) -> None:
    """The table, then what is large in each step and which tensors cause its traffic."""
    console = console or Console()
    cells = rows(result, price)
    columns = list(dict.fromkeys(name for row in cells for name in row))
    cut = f", cut to {result['layers']} layers" if result["layers"] else ""
    table = Table(title=f"{result['config']} on {result['topology']}{cut}")
    for name in columns:
        table.add_column(name)
    for row in cells:
        table.add_row(*(row.get(name, "") for name in columns))
    console.print(table)
    for account in accounts_of(result):
        console.print(str(account), soft_wrap=True, highlight=False, markup=False)
    for answer in result["steps"]:
        for tensor in answer.get("largest", [])[:3]:
            console.print(
                f"{answer['step']}: {tensor['bytes'] / _GIB:.2f} GiB {tensor['shape']} {tensor['name']}",
                soft_wrap=True,
                highlight=False,
                markup=False,
            )
        for one in answer.get("collectives", [])[:3]:
            how = "async" if one["asynchronous"] else "sync"
            console.print(
                f"{answer['step']}: {one['bytes'] / 1e9:.2f} GB {how} {one['kind']} x {one['count']} of "
                f"{one['tensor']} over {one['group']} chips, {one['op_name']}",
                soft_wrap=True,
                highlight=False,
                markup=False,
            )
    console.print(ASSUMPTIONS, soft_wrap=True, highlight=False)


def print_sweep(result: dict[str, Any], console: Console | None = None) -> None:
    """What was tried, the best first, and the recommendation."""
    console = console or Console()
    table = Table(title=f"{result['step']} on {result['topology']}")
    for name in ("keys", "fits", "peak GiB", "seconds a sample (uncalibrated)", "MFU bound"):
        table.add_column(name)
    for one in sorted(result["tried"], key=_per_sample):
        usable = one.get("seconds") and one.get("samples")
        table.add_row(
            one["label"],
            {True: "yes", False: "NO"}.get(one.get("fits"), one.get("error", "?")[:60]),
            f"{one['peak_bytes'] / _GIB:.2f}" if "peak_bytes" in one else "",
            f"{_per_sample(one):.3g}" if usable else "",
            f"at most {one['utilisation'][1]:.0%}" if usable else "",
        )
    console.print(table)
    left = f"; {result['untried']} more were not tried for lack of time" if result["untried"] else ""
    best = result["recommended"] or "none fits"
    console.print(f"Recommended: {best}{left}", soft_wrap=True, highlight=False)
    console.print(ASSUMPTIONS, soft_wrap=True, highlight=False)


def _per_sample(one: dict[str, Any]) -> float:
    if not (one.get("fits") and one.get("seconds") and one.get("samples")):
        return float("inf")
    return one["seconds"]["best"] / one["samples"]
