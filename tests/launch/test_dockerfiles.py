"""The images install the package from what their Dockerfile copies before `pip install`."""

import re
import shutil
import subprocess
import sys

import pytest

from tests.launch.fake_cloud import ROOT

pytest.importorskip("hatchling")


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.gpu"])
def test_the_package_builds_from_what_is_copied(name, tmp_path):
    before, found, _ = (ROOT / "launch" / name).read_text().partition("RUN pip install")
    assert found
    for words in re.findall(r"^COPY (.*)$", before, re.MULTILINE):
        *sources, target = words.split()
        for source in sources:
            place = tmp_path / "image" / (source if target == "./" else target)
            place.parent.mkdir(parents=True, exist_ok=True)
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, place, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / source, place)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run([*pip, f"--target={tmp_path / 'site'}", tmp_path / "image"], capture_output=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "vilasr_jax" / "configs" / "maze_tiny.py").is_file()
