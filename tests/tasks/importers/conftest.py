"""Folders that the importers' tests read."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.tasks.importers.published import question


@pytest.fixture
def torn(tmp_path):
    """A folder with pictures, one of them cut off."""
    folder = tmp_path / "source"
    folder.mkdir()
    Image.new("RGB", (56, 56), "teal").save(folder / "p.png")
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(folder / "torn.png")
    data = (folder / "torn.png").read_bytes()
    (folder / "torn.png").write_bytes(data[: len(data) // 2])
    return folder


@pytest.fixture
def noisy(tmp_path):
    """A folder whose 8 pictures are too big for one part of a split archive."""
    folder, rng = tmp_path / "noisy", np.random.default_rng(0)
    (folder / "shots").mkdir(parents=True)
    for number in range(8):
        noise = rng.integers(0, 255, (112, 112, 3), np.uint8)
        Image.fromarray(noise).save(folder / "shots" / f"{number}.png")
    rows = [question(n, image_path=[f"shots/{n}.png"]) for n in range(8)]
    (folder / "rl.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder
