"""`vilasr data show`: a self-contained HTML page of rows, each with its images, expert turns and drawings."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import random
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from absl import logging
from PIL import Image

from vilasr_jax.config import JobConfig
from vilasr_jax.drawing import DrawingSettings
from vilasr_jax.errors import DataError
from vilasr_jax.models import ModelFamily
from vilasr_jax.tasks.dataset import DatasetRows
from vilasr_jax.tasks.family import Family
from vilasr_jax.tasks.registry import get_family
from vilasr_jax.tasks.rows import Row, Trace
from vilasr_jax.tasks.stored import INDEX, StoredRow, StoredRows

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 2rem; max-width: 1200px; color: #222;
  background: #f4f5f7; }
h1 { font-size: 1.5rem; } h2 { margin-top: 2.5rem; font-size: 1.2rem; }
article { background: #fff; border: 1px solid #dde; border-radius: 8px; padding: 1rem 1.25rem;
  margin: 1rem 0; }
.id { color: #778; font-size: .85rem; } .question { font-weight: 600; margin: .25rem 0; }
.right { color: #0a7a3c; font-weight: 600; }
.images { display: flex; flex-wrap: wrap; gap: 8px; margin: .5rem 0; }
figure { margin: 0; } figcaption { color: #778; font-size: .75rem; }
img { border: 1px solid #ccd; max-width: 100%; image-rendering: pixelated; }
.turn { border-left: 3px solid #4a7fe0; padding-left: .75rem; margin: .75rem 0; }
.turn.wrong { border-color: #d84b4b; } pre { white-space: pre-wrap; margin: .25rem 0; font-size: .82rem; }
@media (prefers-color-scheme: dark) { body { background: #17181c; color: #dde; }
  article { background: #22242a; border-color: #333; } }
"""


def show_data(job: JobConfig, folder: Path | None, count: int, path: Path, model_family: ModelFamily) -> int:
    """Writes the page of the job's tasks, `count` rows each: new ones, or those in `folder`.

    Images, coordinates and actions are those that a model of `model_family` reads and writes; actions in a
    folder of imported rows or synthesized traces have the form in which they are recorded. Drawings are drawn
    again.
    """
    settings = DrawingSettings(
        style=job.drawing.style,
        max_turns=99,
        max_images=job.drawing.max_images,
        image_unit=model_family.images.factor,
        tools=job.drawing.tools,
        coordinates=model_family.coordinates,
        actions=job.drawing.actions,
    )
    if folder is not None and (folder / INDEX).exists():
        rows = StoredRows([folder])
        some = [rows[number] for number in range(min(count, len(rows)))]
        traces = _readable(some, job.image.min_pixels, job.image.max_pixels, model_family)
        settings = dataclasses.replace(settings, actions=some[0].actions)
        return show_rows([(f"{folder}, {len(rows):,} rows", traces)], settings, path, recorded=True)
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
            traces = [row.trace(("expert", "slip")[number % 2]) for number, row in enumerate(first)]
            parts.append((f"{family.name}, {len(dataset):,} rows to train on", traces))
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
    sections, count = [], 0
    for title, traces in parts:
        cards = [_card(trace, settings, recorded) for trace in traces]
        count += len(cards)
        sections.append(f"<h2>{html.escape(title)}</h2>\n" + "\n".join(cards))
    if refused:
        lines = "".join(f"<li>{html.escape(line)}</li>" for line in refused)
        sections.insert(0, f'<h2>{len(refused):,} rows are refused</h2>\n<ul class="refused">{lines}</ul>')
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><title>Rows</title>'
        f"<style>{_STYLE}</style></head>\n<body><h1>{count} rows</h1>\n{''.join(sections)}</body></html>\n"
    )
    return count


def _card(trace: Trace, settings: DrawingSettings, recorded: bool) -> str:
    row = trace.row
    session = row.session(settings)
    turns = []
    for number, turn in enumerate(trace.turns):
        text = turn if recorded else session.as_written(turn)
        session.step(text)
        event = session.events[-1]
        drawn = [(index, session.images[index - 1]) for index in event["drawn"]]
        kind = "turn wrong" if number in trace.mistakes else "turn"
        error = f"<p>{html.escape(event['error'])}</p>" if event["error"] else ""
        turns.append(f'<div class="{kind}"><pre>{html.escape(text)}</pre>{error}{_images(drawn)}</div>')
    return (
        f'<article><div class="id">{html.escape(row.id)} · {html.escape(str(row.meta.get("kind", "")))}</div>'
        f'<p class="question">{html.escape(row.question)}</p>{_options(row)}'
        f"{_images(enumerate(row.images, 1))}{''.join(turns)}</article>"
    )


def _options(row: Row) -> str:
    said = " &nbsp; ".join(html.escape(option) for option in row.options)
    return f'<p>{said} <span class="right">→ {html.escape(row.answer)}</span></p>'


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
    return f'<div class="images">{"".join(figures)}</div>' if figures else ""
