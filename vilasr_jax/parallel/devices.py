"""The devices of this machine, and the peak rates of known kinds."""

import importlib.util
import os
import subprocess
import sys
from collections.abc import Mapping

import jax

from vilasr_jax.errors import ConfigError
from vilasr_jax.parallel.compile_cache import use_compile_cache
from vilasr_jax.slices import has_chips

# bfloat16 FLOP per second of one JAX device, by `device_kind`; the vendors' figures.
_PEAK_FLOPS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "NVIDIA A100-SXM4-80GB": 312e12,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}


_CUDA = ("jax_cuda12_plugin", "jax_cuda13_plugin")  # packages, of which one drives NVIDIA GPUs


def has_tpu() -> bool:
    """Whether this machine has TPU chips and the library that drives them."""
    return has_chips() and importlib.util.find_spec("libtpu") is not None


def check_devices(environ: Mapping[str, str] = os.environ) -> None:
    """Opens the devices, after `join` where the job has several processes, with a compilation cache.

    Raises:
      ConfigError: JAX_PLATFORMS (or the machine) names a kind of device that is not there, or XLA_FLAGS
        names a flag that XLA does not know.
    """
    _check_xla_flags(environ)
    platforms = environ.get("JAX_PLATFORMS", "")
    names = platforms.split(",")
    reason = ""
    if "tpu" in names and not has_tpu():  # JAX's search could last minutes
        reason = "there is no TPU chip here, or libtpu is not installed"
    elif "cuda" in names and not any(map(importlib.util.find_spec, _CUDA)):
        reason = "jax[cuda13], which drives NVIDIA GPUs, is not installed"
    else:
        try:
            jax.devices()
        except Exception as error:  # RuntimeError and AssertionError at least
            reason = " ".join(str(error).split()) or type(error).__name__
    if reason:
        cure = "unset JAX_PLATFORMS to use what there is" if platforms else "JAX_PLATFORMS=cpu does without"
        where = f"JAX_PLATFORMS={platforms}" if platforms else "JAX"
        raise ConfigError(f"{where} finds no device ({reason}); {cure}")
    use_compile_cache(environ)


def _check_xla_flags(environ: Mapping[str, str]) -> None:
    """XLA aborts the process at an unknown flag, so another process reads the flags first."""
    if not environ.get("XLA_FLAGS"):
        return
    words = [sys.executable, "-c", "from jaxlib import xla_client; xla_client.CompileOptions()"]
    printed = subprocess.run(words, env=dict(environ), capture_output=True, text=True).stderr
    for line in printed.splitlines():
        _, found, names = line.partition("Unknown flag in XLA_FLAGS:")
        if found:
            raise ConfigError(f"XLA_FLAGS: this version of XLA has no flag {names.strip()}; leave it out")


def peak_flops() -> float | None:
    """bfloat16 FLOP per second of all devices of the run; None where their kind is not known."""
    each = _PEAK_FLOPS.get(jax.devices()[0].device_kind)
    return None if each is None else each * jax.device_count()
