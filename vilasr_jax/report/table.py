"""The table that `vilasr train` prints at its end."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from vilasr_jax.report.sections import interval, percent, plain_duration
from vilasr_jax.report.workdir import stage_label, stage_order
from vilasr_jax.units import bytes_text


def print_summary(summary: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints `summary.json`'s data: accuracy, interval, drawings and corrections of each stage."""
    console = console or Console()
    table = Table(title="Held-out questions, each a conversation that ran freely", title_justify="left")
    table.add_column("Model")
    for name in ("Right", "95 % interval", "Questions", "Drawings", "Corrected"):
        table.add_column(name, justify="right")
    stages = summary.get("stages") or {}
    for name in sorted(stages, key=stage_order):
        row = stages[name]
        low, high = interval(row)
        drawings = row.get("drawings")
        table.add_row(
            stage_label(name, row),
            percent(row.get("accuracy")),
            "–" if low is None else f"{100 * low:.1f} to {100 * high:.1f}",
            str(row.get("n", "–")),
            f"{drawings:.1f}" if isinstance(drawings, (int, float)) else "–",
            percent(row.get("corrected")),
        )
    if table.row_count:
        console.print(table)
    else:
        console.print("No stage has been scored yet.")
    parts = []
    if "seconds" in summary:
        parts.append(f"Time: {plain_duration(summary['seconds'])}")
    if isinstance(summary.get("peak_rss_bytes"), (int, float)):
        parts.append(f"peak memory: {bytes_text(summary['peak_rss_bytes'])}")
    if parts:
        console.print(", ".join(parts))
