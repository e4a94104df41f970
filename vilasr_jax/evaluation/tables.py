"""Scores as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from vilasr_jax.evaluation.score_file import ScoredRun


def print_scores(run: ScoredRun, console: Console | None = None) -> None:
    """Prints one run: means of types, groups and overall with intervals, and the lines without a score."""
    console = console or Console()
    table = Table(title=f"{run.label}: {run.benchmark or 'plain means'}", title_justify="left")
    table.add_column("Type")
    for name in ("Score", "95 % interval", "Questions"):
        table.add_column(name, justify="right")
    means = run.table.means
    for name, mean in means.items():
        if name == "overall":
            table.add_section()
        interval = f"{100 * mean.low:.1f} to {100 * mean.high:.1f}"
        table.add_row(name, f"{100 * mean.mean:.1f}", interval, f"{mean.n:,}")
    console.print(table)
    lenient = 100 * run.lenient_table.overall.mean
    console.print(f"read leniently (a bracket before a letter, a unit after a number): {lenient:.1f}")
    scores = run.to_dict()
    if "pass_at_k" in scores:
        passed = ", ".join(f"pass@{k} {100 * value:.1f}" for k, value in scores["pass_at_k"].items())
        console.print(f"{scores['samples']} samples a question: {passed}")
    if unknown := run.table.unknown_types:
        named = ", ".join(unknown[:10])
        console.print(f"not among the types of {run.benchmark}, weighed row by row: {named}", markup=False)
    if run.skipped:
        console.print(
            f"{run.skipped:,} lines are of questions that the model did not get (not readable, or larger "
            "than the engine's buckets); they count as wrong"
        )
    if run.unanswered:
        console.print(f"{run.unanswered:,} lines hold no answer and score 0")
    if run.broken:
        console.print(f"{len(run.broken):,} lines can't be scored and count as wrong:")
    for line in run.broken[:10]:
        console.print(line, markup=False)
    if len(run.broken) > 10:
        console.print("...")


def print_comparison(comparison: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints several runs: a column each, and differences to the first with interval and p value."""
    console = console or Console()
    labels = comparison["runs"]
    table = Table(
        title=f"{comparison['benchmark'] or 'plain means'}, {comparison['n']:,} common questions",
        title_justify="left",
    )
    table.add_column("Type")
    table.add_column("n", justify="right")
    for number, label in enumerate(labels):
        table.add_column(label, justify="right", overflow="fold")
        if number:
            table.add_column("difference, p", justify="right")
    for row in comparison["rows"]:
        if row["name"] == "overall":
            table.add_section()
        cells = [row["name"], f"{row['n']:,}", f"{100 * row['means'][0]:.1f}"]
        for mean, difference in zip(row["means"][1:], row["differences"], strict=True):
            low, high = (100 * bound for bound in difference["ci95"])
            gain, p = 100 * difference["mean"], difference["p"]
            cells += [f"{100 * mean:.1f}", f"{gain:+.1f} ({low:+.1f} to {high:+.1f}), {p:.3f}"]
        table.add_row(*cells)
    console.print(table)
    if comparison["left_out"]:
        console.print(f"{comparison['left_out']:,} questions that not every run has were left out")
