"""The notebooks: small, with outputs of a run; `pytest -m slow tests/notebooks` runs all."""

import os
import time

import pytest

nbformat = pytest.importorskip("nbformat")
pytest.importorskip("nbclient")

from tests.notebooks.stored_outputs import NOTEBOOKS, ROOT, executed, is_kept, shown, tags  # noqa: E402


def test_there_are_six():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_small_and_with_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 300_000
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert cells[0].source.startswith("TPU = False  # the one line to change")
    assert sum(cell.source.count("TPU = ") for cell in cells) == 1
    outputs = [output for cell in cells for output in cell.outputs]
    assert not any(output.output_type == "error" for output in outputs) and all(map(is_kept, outputs))
    assert not any(cell.execution_count or cell.metadata.get("execution") for cell in cells)
    assert not any(cell.outputs for cell in cells if "progress" in tags(cell))
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any(output.get("text") for output in outputs)


@pytest.mark.slow
def test_they_run_and_show_what_is_stored(tmp_path, monkeypatch):
    """All in order, in one copy of the repository's working folder; `-s` shows the time of each."""
    for name in ("configs", "vilasr_jax", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    began = time.monotonic()
    for path in NOTEBOOKS:
        start = time.monotonic()
        new, old = executed(path, tmp_path / "notebooks"), nbformat.read(path, as_version=4)
        for cell, before in zip(new.cells, old.cells, strict=True):
            same = shown(cell) == shown(before)
            if not same:
                print(f"{path.name} shows something else than is stored, cell:\n{cell.source}")
            assert same or not os.environ.get("STORED_OUTPUTS")  # other machines may show other figures
        print(f"{path.stem}: {time.monotonic() - start:.0f} s")
    print(f"in all: {time.monotonic() - began:.0f} s")
