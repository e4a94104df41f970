"""The documentation site is built without a broken link, and holds the references."""

import os
import re
import subprocess
import sys

import pytest

from tests.docs.readme import ROOT

for name in ("sphinx", "myst_parser", "furo"):
    pytest.importorskip(name, reason="the extra [docs] is missing")
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp("site")
    env = {**os.environ, "VILASR_PYTHON": sys.executable}
    done = subprocess.run(
        ["bash", "launch/docs.sh", str(out)], cwd=ROOT, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return out


def text(page):
    return re.sub(r"<[^>]*>", "", page.read_text())


def test_the_front_page_leads_to_the_others(site):
    index = (site / "index.html").read_text()
    for page in ("docs/training", "launch/README", "RESULTS", "docs/reference/config"):
        assert f'href="{page}.html"' in index and (site / f"{page}.html").is_file()


def test_keys_commands_and_docstrings_are_there(site):
    reference = site / "docs" / "reference"
    assert "rl.steps" in text(reference / "config.html")
    assert "vilasr data check SRC" in text(reference / "commands.html")
    sampler = text(reference / "vilasr_jax.sampler.html")
    assert "Samples conversations about one question." in sampler and "Parameters" in sampler
