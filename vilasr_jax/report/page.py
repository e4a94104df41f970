"""The report: one self-contained HTML file."""

import json
import os
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

from vilasr_jax.report import sections
from vilasr_jax.report.images import ImageShelf
from vilasr_jax.report.settings import settings_section
from vilasr_jax.report.workdir import Run, mapping, read_run, stage_label, stage_order

MAX_CONVERSATIONS = 4000
SCRIPTS = ("theme.js", "dom.js", "base.js", "turns.js", "charts.js", "gallery.js", "live.js")
LIVE_PAGE = "watch.html"
MAX_TEXT = 20_000  # characters of one turn that are shown


def render_report(workdir: str | Path, other: str | Path | None = None, live: int = 0) -> Path:
    """Writes `report.html` into a workdir from what is in it, and returns its path.

    Stages that have not run are left out. The curves of the workdir `other` are drawn below this run's. With
    `live` it is `watch.html`, which a browser loads again every `live` seconds.

    Raises:
      DataError: a folder does not exist.
    """
    run = read_run(workdir)
    compared = None if other is None else read_run(other)
    shelf = ImageShelf()
    conversations = pack_conversations(run, shelf)
    data: dict[str, Any] = {
        "stages": {name: stage_label(name) for name in _stages(run)},
        "curves": run.curves,
        "conversations": conversations,
    }
    if live:
        data["live"] = live
    if compared:
        data["other"] = {"name": _name(compared), "curves": compared.curves}
        data["stages"] |= {name: stage_label(name) for name in compared.curves}
    html = _fill(
        _asset("page.html"),
        {
            "TITLE": escape(_name(run)),
            "STYLE": _asset("style.css"),
            "HEADLINE": sections.headline(run),
            "SCORES": sections.score_table(run, compared),
            "BENCHMARKS": sections.benchmark_tables(run),
            "FUNNEL": sections.funnel(run),
            "NOTES": sections.notes(run),
            "SETTINGS": settings_section(run),
            "DATA": safe_json(data),
            "IMAGES": safe_json(shelf.uris),
            "SCRIPT": "\n".join(map(_asset, SCRIPTS)),
        },
    )
    out = run.path / (LIVE_PAGE if live else "report.html")
    part = out.with_suffix(".html.part")
    part.write_text(html, encoding="utf-8", errors="replace")
    os.replace(part, out)
    return out


def pack_conversations(run: Run, shelf: ImageShelf) -> list[dict[str, Any]]:
    """Conversations as the page reads them; those with images first in each stage.

    Where not all pictures have room, wrong and corrected conversations have theirs before the others.
    """
    found = {}
    places = range(len(run.conversations))
    for place in sorted(places, key=lambda place: _is_plain(run.conversations[place])):
        if item := _pack(run.conversations[place], shelf):
            found[place] = item
    packed = [found[place] for place in sorted(found)]
    packed.sort(key=lambda item: (stage_order(item["stage"]), not item["images"]))
    if len(packed) > MAX_CONVERSATIONS:
        run.notes.append(f"{len(packed) - MAX_CONVERSATIONS} conversations beyond {MAX_CONVERSATIONS}")
    if shelf.left_out:
        run.notes.append(f"{shelf.left_out} pictures, to limit the size of the page")
    return packed[:MAX_CONVERSATIONS]


def _is_plain(row: Mapping[str, Any]) -> bool:
    """Whether a conversation is right and nothing was corrected in it."""
    return bool(row.get("correct")) and not _count(row.get("corrected"))


def _name(run: Run) -> str:
    """The run's folder, with the config's name where that differs."""
    folder, name = run.path.resolve().name, str(run.config.get("name") or "")
    return folder if name in ("", folder) else f"{name} ({folder})"


def safe_json(value: Any) -> str:
    """JSON that is safe inside a `<script>` element, whatever text it holds."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=str)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _pack(row: Mapping[str, Any], shelf: ImageShelf) -> dict[str, Any] | None:
    turns = row.get("turns")
    if not isinstance(turns, list):
        return None
    folder = row["folder"]
    reward, meta = mapping(row.get("reward")), mapping(row.get("meta"))
    return {
        "id": str(row.get("id", "")),
        "stage": str(row["stage"]),
        "family": str(meta.get("family") or row.get("family") or ""),
        "question": _question(row),
        "answer": _text(row.get("answer")),
        "prediction": _text(row.get("prediction")),
        "correct": bool(row.get("correct")),
        "reward": {str(k): v for k, v in reward.items() if isinstance(v, (int, float))},
        "stop": str(row.get("stop_reason") or ""),
        "corrected": _count(row.get("corrected")),
        "drawings": _count(row.get("drawings")),
        "images": _images(row.get("images"), folder, shelf),
        "turns": [_turn(turn, folder, shelf) for turn in turns if isinstance(turn, dict)],
    }


def _question(row: Mapping[str, Any]) -> str:
    options = row.get("options")
    lines = [str(option) for option in options] if isinstance(options, (list, tuple)) else []
    return "\n".join([str(row.get("question", "")), *lines])


def _turn(turn: Mapping[str, Any], folder: Path, shelf: ImageShelf) -> dict[str, Any]:
    calls = turn.get("calls")
    calls = calls if isinstance(calls, list) else []
    return {
        "text": str(turn.get("text", ""))[:MAX_TEXT],
        "calls": [call for call in calls if isinstance(call, dict)][:64],
        "error": _text(turn.get("error")),
        "images": _images(turn.get("images"), folder, shelf),
    }


def _images(names: Any, folder: Path, shelf: ImageShelf) -> list[str]:
    keys = (shelf.add(folder, name) for name in names) if isinstance(names, list) else ()
    return [key for key in keys if key]


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _count(value: Any) -> int:
    return int(value) if isinstance(value, (bool, int, float)) else 0


def _stages(run: Run) -> list[str]:
    names = {*run.scores, *run.curves, *(str(row["stage"]) for row in run.conversations)}
    return sorted(names, key=stage_order)


def _asset(name: str) -> str:
    return files("vilasr_jax.report").joinpath("assets", name).read_text(encoding="utf-8")


def _fill(page: str, parts: Mapping[str, str]) -> str:
    """Puts each part in place of its `<!--NAME-->` or `/*NAME*/`; what is put in is not searched."""
    out, rest = [], page
    for name, part in parts.items():  # in the order of the page
        mark = f"<!--{name}-->" if f"<!--{name}-->" in rest else f"/*{name}*/"
        before, found, rest = rest.partition(mark)
        assert found, name
        out += [before, part]
    return "".join([*out, rest])
