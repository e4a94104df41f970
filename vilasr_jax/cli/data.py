"""Commands for rows: data make, show, check and import."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from vilasr_jax.cli.flags import CONFIG, JSON, WORKDIR, check_at_least_1, read_job, save
from vilasr_jax.commands import Flag, command
from vilasr_jax.config import JobConfig
from vilasr_jax.errors import ConfigError
from vilasr_jax.files import folder_path

IMAGES = Flag("images", "DIR", "where relative image paths start, if not at SRC")


@command("data make", "", CONFIG, WORKDIR, JSON)
def run_data_make(words: list[str], flags: Any) -> None:
    """Rows of config.tasks as TFDS folders, in parallel.

    config.make says how many rows. The same command resumes a stopped run.
    """
    from vilasr_jax.progress import show_progress
    from vilasr_jax.tasks.dataset import make_data

    job = read_job(flags, ())
    folder = folder_path("--workdir", flags.workdir)
    with show_progress("rows") as show:
        report = make_data(job, folder, show, _model_family(job, folder))
    for name, folder in report.items():
        rows = ", ".join(f"{split} {count:,}" for split, count in folder["rows"].items())
        print(f"{name}: {rows}; {folder['bytes'] / 2**20:,.1f} MiB in {folder['folder']}")
    save(flags, report)


def _model_family(job: JobConfig, folder: Path) -> Any:
    """The family of the job's model; JAX is loaded only to read it from weights."""
    from vilasr_jax.models import family_of, preset

    if not job.model.init_from:
        return family_of(preset(job.model.preset))
    from vilasr_jax.open_checkpoint import check_preset, run_family

    family = run_family(job, folder)
    check_preset(job, family)
    return family


@command(
    "data show",
    "[DIR]",
    CONFIG,
    Flag("out", "PAGE.html", "the page", "rows.html", writes="file"),
    Flag("count", "8", "rows of each task", 8),
)
def run_data_show(words: list[str], flags: Any) -> None:
    """A page of rows with images and traces, of a config or a folder.

    DIR is a folder of `vilasr data make`.
    """
    from vilasr_jax.tasks.show import show_data

    out = folder_path("--out", flags.out)
    check_at_least_1(flags, "count")
    if out.is_dir():
        raise ConfigError(f"--out={out} is a folder; give a name for the page")
    job = read_job(flags, ())
    folder = folder_path("DIR", words[0]) if words else None
    shown = show_data(job, folder, flags.count, out, _model_family(job, out.parent))
    print(f"Wrote {out}: {shown} rows")


@command(
    "data check",
    "SRC",
    CONFIG,
    IMAGES,
    Flag("out", "PAGE.html", "the page", "check.html", writes="file"),
    Flag("count", "24", "rows on the page", 24),
    JSON,
)
def run_data_check(words: list[str], flags: Any) -> None:
    """What a model will see of your own pictures, and which rows are refused.

    SRC is a folder with train.jsonl, train.json or train.csv, or such a file of any name
    (docs/your_own_pictures.md). The page shows pictures with their targets
    as they will be drawn.

    Example
      vilasr data check photos --config=configs/pictures_tiny.py
    """
    from vilasr_jax.tasks.importers import PICTURES, find_files

    check_at_least_1(flags, "count")
    job, out = read_job(flags, ()), folder_path("--out", flags.out)
    find_files(PICTURES, words[0])
    from vilasr_jax.own_pictures import run_canvas
    from vilasr_jax.tasks.check_pictures import check_pictures, print_check

    found = check_pictures(words[0], run_canvas(job, out.parent), out, flags.count, flags.images)
    print_check(found)
    print(f"Wrote {out}")
    save(flags, found)


@command(
    "data import",
    "FORMAT SRC DST",
    IMAGES,
    dataclasses.replace(
        CONFIG, help="the config of the model that is trained, for `pictures`", required=False
    ),
    Flag("coordinates", "N", "coordinates run from 0 to N over an image (1000); 0: they are pixels", 0),
    JSON,
)
def run_data_import(words: list[str], flags: Any) -> None:
    """Published data, or your own pictures, to rows for training and evaluation.

    Rows that can't be used are left out, and listed with file and line in DST.

    FORMAT  pictures (your own: docs/your_own_pictures.md), cold_start, rrs, rl, maze,
            SpatialEval_spatialreal, vsi_bench, spar_bench or mmsi_bench
    SRC     a folder, a zip file or a part of one, or gs://BUCKET/...
    """
    from vilasr_jax.drawing.prompts import FILE
    from vilasr_jax.files import split_lines
    from vilasr_jax.progress import show_progress
    from vilasr_jax.tasks.importers import BROKEN, find_files, import_data

    name, source, target = words
    folder_path("DST", target)
    if flags.coordinates < 0:
        raise ConfigError(f"--coordinates={flags.coordinates} must be 1000, say, or 0 for pixels")
    find_files(name, source)
    canvas = None
    if flags.config is not None:
        job = read_job(flags, ())
        from vilasr_jax.own_pictures import run_canvas  # which needs JAX

        canvas = run_canvas(job, Path(target))
    with show_progress(f"import {name}", percent=True) as show:
        index = import_data(name, source, target, flags.images, show, canvas, flags.coordinates or None)
    print(f"{index['rows']:,} rows with {index['images']:,} images are in {target}")
    if index["broken"]:
        listed = split_lines((Path(target) / BROKEN).read_text())
        print("\n".join(listed[:10]), *(["..."] if len(listed) > 10 else []), sep="\n")
        print(f"{index['broken']:,} rows were left out; {Path(target) / BROKEN} lists them")
    if prompt := index.get("prompt"):
        saved = (Path(target) / FILE).exists()
        where = f"is saved in {Path(target) / FILE}" if saved else "is not saved: too few agree"
        print(f"prompt: {prompt['agree']:,} of {prompt['rows']:,} conversations have the same, which {where}")
    save(flags, index)
