"""`vilasr data show`: a self-contained HTML page of rows, each with its images, expert turns and drawings."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import random
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path

from absl import logging
from PIL import Image

from vilasr_jax.config import DATA_FOLDERS, JobConfig
from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.errors import ConfigError, DataError
from vilasr_jax.models import ModelFamily
from vilasr_jax.tasks.dataset import DatasetRows
from vilasr_jax.tasks.family import Family
from vilasr_jax.tasks.registry import get_family
from vilasr_jax.tasks.rows import Row, Trace
from vilasr_jax.tasks.stored import INDEX, StoredRow, StoredRows


def show_data(job: JobConfig, folder: Path | None, count: int, path: Path, model_family: ModelFamily) -> int:
    """Writes the page of the job's tasks, `count` rows each: new ones, or those in `folder`.

    Images, coordinates and actions are those that a model of `model_family` reads and writes; actions in a
    folder of imported rows or synthesized traces have the form in which they are recorded. Drawings are drawn
    again.

    Raises:
      ConfigError: there is nothing to show: no task, and no folder of rows.
    """
    settings = DrawingSettings(
        style=job.drawing.style,
        max_turns=99,
        max_images=job.drawing.max_images,
        image_unit=model_family.images.factor,
        tools=job.drawing.tools,
        coordinates=model_family.coordinates,
        actions=job.drawing.actions,
        timestamp=model_family.timestamp,
    )
    if folder is not None and (folder / INDEX).exists():
        rows = StoredRows([folder])
        some = [rows[number] for number in range(min(count, len(rows)))]
        traces = _readable(some, job.image.min_pixels, job.image.max_pixels, model_family)
        settings = dataclasses.replace(settings, actions=some[0].actions)
        return show_rows([(f"{folder}, {len(rows):,} rows", traces)], settings, path, recorded=True)
    if not job.tasks:
        named = [f for use in DATA_FOLDERS for f in job.data.folders(use)]
        where = f"{folder} holds no imported rows, and " if folder else ""
        imported = (
            f"imported rows are shown by their folder, such as `vilasr data show {(named or ['DIR'])[0]}`"
        )
        raise ConfigError(f"{where}config.tasks names no task to show; {imported}")
    parts = []
    for family in map(get_family, job.tasks):
        if folder is None:
            section = getattr(job, family.name, None)
            if section is not None:
                section = family.fitted(section, model_family.images.factor)
            spec = family.spec(section, "train")
            parts.append((family.name, expert_traces(family, spec, count)))
        else:
            dataset = DatasetRows(folder, family.name, "train")
            first = (dataset[number] for number in range(min(count, len(dataset))))
            shown = [row.trace(("expert", "slip")[number % 2]) for number, row in enumerate(first)]
            parts.append((f"{family.name}, {len(dataset):,} rows to train on", shown))
    return show_rows(parts, settings, path)


def expert_traces(family: Family, spec: object, count: int, first: int = 0) -> Iterable[Trace]:
    """Expert traces of `count` rows, every second one with a slip."""
    for number, row in enumerate(family.rows(spec, count, first)):
        yield family.expert_trace(row, random.Random(f"trace {row.id}"), slip=number % 2 == 1)


def stored_trace(stored: StoredRow, min_pixels: int, max_pixels: int, family: ModelFamily) -> Trace:
    """A stored row with what the assistant said in its recorded conversation, if it has one.

    Images and coordinates are those that a model of the `family` reads.
    """
    row, said = stored.row(min_pixels, max_pixels, family=family), []
    if stored.messages:
        messages = stored.conversation(min_pixels, max_pixels, family=family)
        first = next(message for message in messages if message["role"] == "user")
        row = dataclasses.replace(row, images=tuple(p["image"] for p in first["content"] if "image" in p))
        said = [m["content"][0]["text"] for m in messages if m["role"] == "assistant" and m["content"]]
    return Trace(row, tuple(said))


def _readable(
    rows: Iterable[StoredRow], min_pixels: int, max_pixels: int, family: ModelFamily
) -> Iterator[Trace]:
    """Those of the rows that can be read, the others named in the log."""
    for row in rows:
        try:
            yield stored_trace(row, min_pixels, max_pixels, family)
        except DataError as error:
            logging.warning("not shown: %s", error)


def show_rows(
    parts: Sequence[tuple[str, Iterable[Trace]]],
    settings: DrawingSettings,
    path: Path,
    refused: Sequence[str] = (),
    recorded: bool = False,
) -> int:
    """Writes the page of (title, traces) parts, and lines about rows that are refused.

    Turns are shown as a model writes them: those of `recorded` traces as they are, others in the form and the
    coordinates of the settings. Returns how many rows it shows.
    """
    sections, links, count = [], [], 0
    if refused:
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in refused)
        title = f'<h2 id="refused">{len(refused):,} rows are refused</h2>'
        sections.append(f'<section>{title}<ul class="refused">{lines}</ul></section>')
        links.append('<a href="#refused">Refused</a>')
    for number, (title, traces) in enumerate(parts, 1):
        cards = [_card(trace, settings, recorded) for trace in traces]
        count += len(cards)
        head = f'<h2 id="part{number}">{html.escape(title)}</h2>'
        sections.append(f"<section>{head}\n{''.join(cards)}</section>")
        links.append(f'<a href="#part{number}">{html.escape(title.partition(",")[0])}</a>')
    page = _asset("rows.html")
    for name, text in {  # texts of rows last, and escaped: no mark in them is replaced
        "<!--TITLE-->": f"{count} rows",
        "/*STYLE*/": _asset("style.css"),
        "/*SCRIPT*/": "\n".join(map(_asset, ("theme.js", "turns.js", "rows.js"))),
        "<!--HEADLINE-->": f"{count} rows",
        "<!--NAV-->": "".join(links) if len(links) > 1 else "",
        "<!--PARTS-->": "\n".join(sections),
    }.items():
        page = page.replace(name, text)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page)
    return count


def _asset(name: str) -> str:
    return files("vilasr_jax.report").joinpath("assets", name).read_text(encoding="utf-8")


def _card(trace: Trace, settings: DrawingSettings, recorded: bool) -> str:
    row = trace.row
    session = row.session(settings)
    turns = []
    for number, turn in enumerate(trace.turns):
        text = turn if recorded else session.as_written(turn)
        session.step(text)
        event = session.events[-1]
        drawn = [(index, session.images[index - 1]) for index in event["drawn"]]
        kind, slip = ("turn wrong", " (with a slip)") if number in trace.mistakes else ("turn", "")
        error = f'<p class="fault">{html.escape(event["error"])}</p>' if event["error"] else ""
        words = f"<h3>Turn {number + 1}{slip}</h3><pre>{html.escape(text)}</pre>{error}"
        turns.append(f'<li class="{kind}"><div>{words}</div>{_images(drawn)}</li>')
    kind = str(row.meta.get("kind", ""))
    return (
        f'<article><p class="meta">{html.escape(" · ".join(filter(None, (row.id, kind))))}</p>'
        f'<div class="turn"><div><p class="question">{html.escape(row.question)}</p>{_options(row)}</div>'
        f'{_images(enumerate(row.images, 1))}</div><ol class="turns">{"".join(turns)}</ol></article>\n'
    )


def _options(row: Row) -> str:
    said = "".join(f"<li>{html.escape(option)}</li>" for option in row.options)
    choices = f"<ul>{said}</ul>" if said else ""
    return f'{choices}<p class="verdict right">→ {html.escape(row.answer)}</p>'


def _images(images: Iterable[tuple[int, Image.Image]]) -> str:
    figures = []
    for index, image in images:
        file = io.BytesIO()
        image.save(file, "PNG", optimize=True)
        data = base64.b64encode(file.getvalue()).decode()
        figures.append(
            f'<figure><img alt="image {index}" width="{image.width}" height="{image.height}" '
            f'src="data:image/png;base64,{data}"><figcaption>image {index}</figcaption></figure>'
        )
    return f'<div class="pics">{"".join(figures)}</div>' if figures else ""
