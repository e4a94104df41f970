"""docs/your_own_pictures.md, walked with twelve drawn pictures and a model of twenty steps."""

import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tests.docs.readme import DOCUMENTS, ROOT, shell_lines

pytestmark = pytest.mark.slow
PAGE = "docs/your_own_pictures.md"


def photos(folder):
    """Pictures with a door and a lamp on either side of it, and rows like the guide's."""
    (folder / "images").mkdir(parents=True)
    example = json.loads(re.search(r"```json\n(.*?)```", DOCUMENTS[PAGE], re.DOTALL)[1])
    rows = []
    for number in range(12):
        rng = random.Random(number)
        picture, left = Image.new("RGB", (640, 480), "white"), rng.random() < 0.5
        name = "images/hall.png" if number == 0 else f"images/{number}.png"
        lamp, door = ((60, 100, 200, 300), (400, 60, 600, 460))
        if not left:
            lamp, door = ((440, 100, 580, 300), (40, 60, 240, 460))
        draw = ImageDraw.Draw(picture)
        draw.rectangle(door, fill="brown")
        draw.ellipse(lamp, fill="gold")
        picture.save(folder / name)
        boxes = [{"box": [*door], "label": "door"}, {"box": [*lamp], "label": "lamp"}]
        answer = "a lamp" if left else "a chair"
        line = {"line": [320, 240, lamp[0] + 70, 200], "label": "left"}
        rows.append({**example, "image": name, "answer": answer, "boxes": boxes, "lines": [line]})
    for name, some in (("train", rows[:8]), ("test", rows[8:])):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in some))


def test_the_guide_leads_to_a_model_and_a_page(tmp_path):
    photos(tmp_path / "photos")
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    env["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    lines = [line for line in shell_lines(PAGE) if "7b" not in line]
    assert [line.split()[1] for line in lines] == ["data", "data", "data", "train", "solve"]
    for line in lines:
        if " train " in line:
            line += " --config.cold_start.steps=20"
        done = subprocess.run(["bash", "-euc", line], cwd=tmp_path, env=env, text=True, capture_output=True)
        assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
        if " check " in line:
            assert "8 rows: 8 with drawings (16 boxes, 8 lines)" in done.stdout
            assert (tmp_path / "check.html").read_text().count("<figure>") == 24
        if " solve " in line:
            assert "--- turn 1" in done.stdout
    report = (tmp_path / "runs" / "photos" / "report.html").read_text()
    assert "pictures: Cold start" in report and "What is left of the door?" in report
    assert '"images":["' in report  # of conversations
