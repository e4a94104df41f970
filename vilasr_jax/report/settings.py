"""What a run was: its configuration, and where it was started with which versions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from html import escape
from typing import Any

from vilasr_jax.config import JobConfig, flatten, to_dict
from vilasr_jax.report.workdir import Run, mapping


def settings_section(run: Run) -> str:
    """Configuration, versions, devices, commit and dates as tables; empty where nothing is known."""
    parts = []
    if run.starts:
        last = run.starts[-1]
        versions = ", ".join(f"{name} {number}" for name, number in mapping(last.get("versions")).items())
        rows = {
            "Started": ", ".join(str(start.get("date", "")) for start in run.starts),
            "Command": last.get("command"),
            "Devices": last.get("devices"),
            "Commit": last.get("commit") or "not from a clone",
            "Versions": f"Python {last.get('python')}, {versions}",
        }
        parts.append(_table("The run", rows))
    if run.config:
        config = flatten(run.config)
        defaults = flatten(json.loads(json.dumps(to_dict(JobConfig()))))
        changed = {key: value for key, value in config.items() if defaults.get(key) != value}
        same = {key: value for key, value in config.items() if key not in changed}
        parts.append(_table(f"Configuration: {len(changed)} values that are no default", changed))
        parts.append(_table(f"Configuration: {len(same)} defaults", same))
    if not parts:
        return ""
    return (
        '<section aria-labelledby="settings" class="settings"><h2 id="settings">Settings</h2>'
        f"{''.join(parts)}</section>"
    )


def _table(title: str, rows: Mapping[str, Any]) -> str:
    lines = "".join(
        f'<tr><th scope="row">{escape(str(name))}</th><td>{escape(_words(value))}</td></tr>'
        for name, value in rows.items()
    )
    return (
        f'<details class="more"><summary>{escape(title)}</summary>'
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}">'
        f"<table><tbody>{lines}</tbody></table></div></details>"
    )


def _words(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
