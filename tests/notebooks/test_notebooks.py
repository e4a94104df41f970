"""The notebooks: plain, small, and run from top to bottom (`pytest -m slow tests/notebooks`)."""

import time
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
CELL_SECONDS = 40 * 60  # then it hangs; the first notebook trains their model: some minutes


def test_there_are_five():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_plain_and_small(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 400_000
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    assert code[0].startswith("TPU = False  # the one line to change")
    assert sum(source.count("TPU = ") for source in code) == 1
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not any(output.output_type == "error" for output in outputs)


@pytest.mark.slow
def test_they_run(tmp_path, monkeypatch):
    """All in order, in one copy of the repository's working folder; `-s` shows the time of each."""
    nbclient = pytest.importorskip("nbclient")
    for name in ("configs", "vilasr_jax", "pyproject.toml"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    began = time.monotonic()
    for path in NOTEBOOKS:
        notebook = nbformat.read(path, as_version=4)
        resources = {"metadata": {"path": str(tmp_path / "notebooks")}}
        start = time.monotonic()
        nbclient.NotebookClient(notebook, timeout=CELL_SECONDS, resources=resources).execute()
        print(f"{path.stem}: {time.monotonic() - start:.0f} s")
    print(f"in all: {time.monotonic() - began:.0f} s")
