"""The report's fixed parts as HTML: headline, score table, funnel. They need no JavaScript."""

from collections.abc import Mapping
from html import escape
from typing import Any, TypeGuard

from vilasr_jax.errors import ConfigError
from vilasr_jax.models import DEFAULT_PRESET, family_of, preset
from vilasr_jax.report.workdir import FUNNEL_STEPS, Run, mapping, stage_label
from vilasr_jax.units import bytes_text

MAIN_STAGES = ("rl", "reflect", "cold_start")
COLUMNS = {
    "Model": "",
    "Right": "num",
    "95 % interval": "num",
    "0 to 100 %": "scale",
    "Questions": "num",
    "Drawings": "num",
    "Corrected": "num",
}

BENCHMARK_COLUMNS = {
    "Type": "",
    "Score": "num",
    "95 % interval": "num",
    "0 to 100": "scale",
    "Questions": "num",
}


def percent(fraction: Any, digits: int = 1) -> str:
    """0.8421 -> "84.2 %"; a dash where there is nothing."""
    return f"{100 * fraction:.{digits}f} %" if _is_number(fraction) else "–"


def plain_duration(seconds: Any) -> str:
    """1234 -> "21 min"."""
    if not _is_number(seconds):
        return "–"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def headline(run: Run) -> str:
    """The page's head: what was trained, how good it is, and a summary of the run."""
    scores = run.scores
    final = next((name for name in MAIN_STAGES if name in scores), None)
    if final is None:
        sentence = "Nothing has been evaluated yet"
        lead = "Scores and conversations appear here when the evaluation of a stage has ended."
    else:
        row = scores[final]
        sentence = f"{percent(row.get('accuracy'))} of {row.get('n', '–')} held-out questions answered right"
        low, high = interval(row)
        lead = f"After {stage_label(final).lower()}; 95 % interval {percent(low)} to {percent(high)}."
        if "untrained" in scores:
            lead += f" Before training it was {percent(scores['untrained'].get('accuracy'))}."
        if _is_number(row.get("drawings")):
            lead += f" The model draws {row['drawings']:.1f} times a question."
    summary = "".join(
        f"<div><dt>{escape(k)}</dt><dd>{escape(v)}</dd></div>" for k, v in _summary(run).items()
    )
    name = run.config.get("name") or run.path.resolve().name
    return (
        f'<p class="eyebrow">{escape(str(name))}</p><h1>{escape(sentence)}</h1>'
        f'<p class="lead">{escape(lead)}</p><dl class="summary">{summary}</dl>'
    )


def interval(row: Mapping[str, Any]) -> tuple[Any, Any]:
    """The row's 95 % interval, or two Nones."""
    pair = row.get("ci95")
    if isinstance(pair, (list, tuple)) and len(pair) == 2 and all(map(_is_number, pair)):
        return pair[0], pair[1]
    return None, None


def score_table(run: Run, other: Run | None = None) -> str:
    """Accuracy of each stage and control, with its interval as text and as a mark on a scale.

    The scores of the `other` run are below this one's.
    """
    chance, rows = run.summary.get("chance"), []
    for name, row in run.scores.items():
        kind = "control" if _is_control(name) else "stage"
        rows.append(_score_row(stage_label(name, row), row, kind, chance))
        for part in ("families", "parts"):
            rows += [_score_row(k, own, "part", own.get("chance", chance)) for k, own in _rows(row.get(part))]
    if other:
        for name, row in other.scores.items():
            words = f"{other.path.resolve().name}: {stage_label(name, row)}"
            rows.append(_score_row(words, row, "control", other.summary.get("chance")))
    if not rows:
        return '<p class="empty">No stage has been scored yet.</p>'
    note = f" The thin line marks chance, {percent(chance)}." if _is_number(chance) else ""
    return (
        f"{_table('Scores', COLUMNS, rows)}"
        '<p class="note">Each answer is a complete conversation that the model sampled. '
        "Drawings: mean number a question. "
        f"Corrected: fraction of conversations in which a drawing was moved.{note}</p>"
    )


def benchmark_tables(run: Run) -> str:
    """A table for each published benchmark: the means of its types and groups, and overall."""
    found = [
        (stage, name, scores)
        for stage, benchmarks in _rows(run.summary.get("benchmarks"))
        for name, scores in _rows(benchmarks)
    ]
    if not found:
        return ""
    tables = []
    for stage, name, scores in found:
        title = f"{name}: {stage_label(stage)}"
        parts = [*_rows(scores.get("types")), *_rows(scores.get("groups"))]
        means = [(kind, mean, "part") for kind, mean in parts]
        if isinstance(scores.get("overall"), dict):
            means.append(("Overall", scores["overall"], "stage"))
        rows = [_mean_row(*row) for row in means]
        unanswered = scores.get("unanswered")
        note = f"{unanswered:,} without an answer score 0." if _is_number(unanswered) and unanswered else ""
        data = (scores.get("settings") or {}).get("data") or {}
        if _is_number(broken := data.get("left_out_at_import")):
            note += f" {broken:,} questions were left out at import and are not scored."
        if _is_number(skipped := scores.get("lines_not_asked")):
            note += f" {skipped:,} of them could not be given to the model."
        tables.append(
            f'<h3>{escape(title)}</h3>{_table(title, BENCHMARK_COLUMNS, rows)}<p class="note">{note}</p>'
        )
    return (
        '<section aria-labelledby="benchmarks"><h2 id="benchmarks">Published benchmarks</h2>'
        '<p class="note">Scored as published; overall as each benchmark defines it.</p>'
        f"{''.join(tables)}</section>"
    )


def _table(title: str, columns: Mapping[str, str], rows: list[str]) -> str:
    """A table of HTML rows with heads (words -> class), in a part of the page that scrolls by itself."""
    heads = "".join(f'<th scope="col" class="{kind}">{words}</th>' for words, kind in columns.items())
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="{escape(title)}">'
        f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table></div>"
    )


def _mean_row(words: str, row: Mapping[str, Any], kind: str) -> str:
    mean, (low, high) = row.get("mean"), interval(row)
    text = f"{100 * low:.1f} to {100 * high:.1f}" if low is not None else "–"
    return (
        f'<tr class="{kind}"><th scope="row">{escape(words or "all")}</th>'
        f'<td class="num strong">{100 * mean:.1f}</td><td class="num">{text}</td>'
        f'<td class="scale">{_mark(mean, low, high, None)}</td>'
        f'<td class="num">{escape(str(row.get("n", "–")))}</td></tr>'
        if _is_number(mean)
        else ""
    )


def _rows(table: Any) -> list[tuple[str, dict[str, Any]]]:
    """The named rows of a table read from a file, whatever it holds."""
    items = table.items() if isinstance(table, dict) else ()
    return [(str(name), row) for name, row in items if isinstance(row, dict)]


def _score_row(words: str, row: Mapping[str, Any], kind: str, chance: Any) -> str:
    accuracy, (low, high), drawings = row.get("accuracy"), interval(row), row.get("drawings")
    text = f"{100 * low:.1f} to {100 * high:.1f}" if low is not None else "–"
    return (
        f'<tr class="{kind}"><th scope="row">{escape(words)}</th>'
        f'<td class="num strong">{percent(accuracy)}</td><td class="num">{text}</td>'
        f'<td class="scale">{_mark(accuracy, low, high, chance)}</td>'
        f'<td class="num">{escape(str(row.get("n", "–")))}</td>'
        f'<td class="num">{f"{drawings:.1f}" if _is_number(drawings) else "–"}</td>'
        f'<td class="num">{percent(row.get("corrected"))}</td></tr>'
    )


def funnel(run: Run) -> str:
    """How many sampled traces survive each rule of rejection sampling."""
    steps = [(k, run.funnel[k]) for k in FUNNEL_STEPS if _is_number(run.funnel.get(k))]
    if not steps:
        return ""
    most, items, before = max(count for _, count in steps) or 1, [], None
    for name, count in steps:
        fraction = f"{percent(count / before, 0)} of the step before" if before else ""
        items.append(
            f'<li><span class="count">{count:,.0f}</span>'
            f'<span class="what">{escape(FUNNEL_STEPS[name])}</span><span class="fraction">{fraction}</span>'
            f'<span class="bar" style="width:{100 * count / most:.2f}%" aria-hidden="true"></span></li>'
        )
        before = count
    return (
        '<section aria-labelledby="funnel"><h2 id="funnel">From samples to training traces</h2>'
        '<p class="note">Reflective rejection sampling accepts a conversation only if every rule holds.</p>'
        f'<ol class="funnel">{"".join(items)}</ol></section>'
    )


def notes(run: Run) -> str:
    """A list of files that could not be read, if any."""
    if not run.notes:
        return ""
    return f'<p class="note warn"><strong>Left out:</strong> {escape("; ".join(run.notes))}.</p>'


def _model_name(name: str) -> str:
    """A preset with the name of its family, if it is one of ours."""
    try:
        return f"{family_of(preset(name)).title} {name}"
    except ConfigError:
        return name


def _summary(run: Run) -> dict[str, str]:
    model = mapping(run.config.get("model"))
    summary: dict[str, str] = {}
    if name := model.get("preset") or (model and not model.get("init_from") and DEFAULT_PRESET):
        summary["Model"] = _model_name(str(name))
    if _is_number(run.summary.get("parameters")):
        summary["Parameters"] = _short(run.summary["parameters"])
    metas = (row.get("meta") for row in run.conversations)
    families = {str(meta["family"]) for meta in metas if isinstance(meta, dict) and meta.get("family")}
    if families:
        summary["Questions about"] = ", ".join(sorted(families))
    cold_start = mapping(run.config.get("cold_start"))
    if _is_number(cold_start.get("traces")):
        summary["Expert traces"] = f"{cold_start['traces']:,}"
    if "seed" in run.config:
        summary["Seed"] = str(run.config["seed"])
    if "seconds" in run.summary:
        summary["Time"] = plain_duration(run.summary["seconds"])
    if _is_number(run.summary.get("peak_rss_bytes")):
        summary["Peak memory"] = bytes_text(run.summary["peak_rss_bytes"])
    return summary


def _short(number: float) -> str:
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:.0f}"


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_control(name: str) -> bool:
    return name not in ("untrained", *MAIN_STAGES)


def _mark(accuracy: Any, low: Any, high: Any, chance: Any) -> str:
    if not _is_number(accuracy):
        return ""
    low, high = (accuracy, accuracy) if low is None else (low, high)
    line = f'<i class="chance" style="left:{100 * chance:.2f}%"></i>' if _is_number(chance) else ""
    width = max(0.4, 100 * (high - low))
    return (
        f'<span class="track" aria-hidden="true">{line}'
        f'<i class="fill" style="width:{100 * accuracy:.2f}%"></i>'
        f'<i class="range" style="left:{100 * low:.2f}%;width:{width:.2f}%"></i></span>'
    )
