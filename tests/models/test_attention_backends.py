"""Backends are chosen by what they can do."""

import dataclasses
from pathlib import Path

import pytest

import vilasr_jax
from vilasr_jax.errors import ConfigError
from vilasr_jax.models import attention_backends, preset
from vilasr_jax.models.attention_backends import attention_backend, register_backend, require_backend

PACKAGE = Path(vilasr_jax.__file__).parent


def test_an_unknown_backend_is_refused_with_the_list():
    with pytest.raises(ConfigError, match="'flash' does not exist; choose one of xla, splash"):
        preset("tiny", attention="flash")


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
def test_a_backend_of_other_devices_is_refused_with_the_list(platform):
    message = f"'splash' does not run on {platform} devices; choose one of xla, splash_interpret"
    with pytest.raises(ConfigError, match=message):
        require_backend("splash", platform)
    assert require_backend("splash", "tpu").opaque_kernel
    assert require_backend("xla", platform, context_parallel=True, packed_segments=True).name == "xla"


def test_a_missing_capability_is_refused_by_its_name(monkeypatch):
    monkeypatch.setattr(attention_backends, "_BACKENDS", dict(attention_backends._BACKENDS))
    register_backend(dataclasses.replace(attention_backend("xla"), name="plain", context_parallel=False))
    assert require_backend("plain", "gpu").name == "plain"
    with pytest.raises(ConfigError, match="on gpu devices with context_parallel; choose one of xla"):
        require_backend("plain", "gpu", context_parallel=True)


def test_no_code_compares_a_backends_name():
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        for name in ("xla", "splash"):
            assert f'= "{name}"' not in text.replace(f'attention: str = "{name}"', "").replace(
                f'backend: str = "{name}"', ""
            ).replace(f'name="{name}"', ""), path
