"""`versions.lock`: what the launch scripts install is one version of each package."""

import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.launch.fake_cloud import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]
PINS = dict(
    line.split("==")
    for line in (ROOT / "launch" / "versions.lock").read_text().splitlines()
    if line[0] != "#"
)


@pytest.mark.parametrize("text", PROJECT["dependencies"] + EXTRAS["tpu"] + EXTRAS["dev"])
def test_the_lock_file_has_a_version_that_fits(text):
    wanted = Requirement(text)
    if wanted.name != "vilasr-jax":
        assert wanted.specifier.contains(PINS[canonicalize_name(wanted.name)])


def test_what_a_tpu_needs_is_pinned():
    assert {"jax", "jaxlib", "libtpu", "orbax-checkpoint", "tensorstore"} <= PINS.keys()


@pytest.mark.parametrize("script", ["venv.sh", "Dockerfile", "Dockerfile.gpu"])
def test_installing_scripts_use_the_lock_file(script):
    assert "--constraint launch/versions.lock" in (ROOT / "launch" / script).read_text()
