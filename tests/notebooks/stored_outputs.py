"""Runs notebooks and stores their outputs in them: `python -m tests.notebooks.stored_outputs [01 ...]`.

Of cells with the tag "progress", which print progress and times, nothing is stored. What cells with the tag
"learned" print depends on what a model has learned, which differs between machines in the last digits.
"""

import base64
import io
import re
import sys
from pathlib import Path

import nbclient
import nbformat
from PIL import Image

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ANSI = re.compile(r"\x1b\[[\d;]*m")  # colours of a terminal
CELL_SECONDS = 40 * 60  # then it hangs; the first notebook trains their model: some minutes


def executed(path: Path, folder: Path) -> nbformat.NotebookNode:
    """The notebook, run in a folder and with outputs as they are stored."""
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(
        notebook, timeout=CELL_SECONDS, resources=resources, coalesce_streams=True
    ).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)  # times
        if cell.cell_type == "code":
            cell.execution_count = None
            cell.outputs = (
                [] if "progress" in tags(cell) else list(map(stored, filter(is_kept, cell.outputs)))
            )
    notebook.metadata.language_info = {"name": "python"}
    return notebook


def tags(cell: nbformat.NotebookNode) -> list[str]:
    """A cell's tags."""
    return cell.metadata.get("tags", [])


def is_kept(output: nbformat.NotebookNode) -> bool:
    """Whether it is more than progress: standard error, and the widgets of progress bars."""
    return output.get("name") != "stderr" and "application/vnd.jupyter.widget-view+json" not in output.get(
        "data", {}
    )


def stored(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """An output without its number, as text or as a small picture."""
    if "data" in output:
        if "execution_count" in output:
            output.execution_count = None
        kind = "image/png" if "image/png" in output.data else "text/plain"
        value = ANSI.sub("", output.data[kind])
        output.data = {kind: small(value) if kind == "image/png" else value}
        output.metadata = {}
    return output


def small(png: str) -> str:
    """The PNG in at most 64 colours."""
    file = io.BytesIO()
    picture = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB")
    picture.quantize(64, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def shown(cell: nbformat.NotebookNode) -> list[str]:
    """What a cell's outputs say: each text, and "picture" for each picture; "text" alone where learned."""
    found = []
    for output in cell.get("outputs", ()):
        if "image/png" in output.get("data", {}):
            found.append("picture")
        elif "learned" in tags(cell):
            found.append("text")
        else:
            found.append(output.get("text") or output.data["text/plain"])
    return found


def main() -> None:
    """Runs the notebooks whose names begin with one of the words, or all, in this repository's `runs`."""
    for path in NOTEBOOKS:
        if not sys.argv[1:] or path.name.startswith(tuple(sys.argv[1:])):
            nbformat.write(executed(path, path.parent), path)
            print(f"{path.name}: {path.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
