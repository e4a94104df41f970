"""What the known accelerators can do at most."""

import jax

# bfloat16 FLOP a second of one JAX device, by `device_kind`; the vendors' figures.
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


def peak_flops() -> float | None:
    """Of all the devices of the run together; None where their kind is not known."""
    each = _PEAK_FLOPS.get(jax.devices()[0].device_kind)
    return None if each is None else each * jax.device_count()
