"""Attention backends and what each of them can do.

Code reads the capabilities of a backend and never compares its name; a new kernel is one more entry here.
Nothing in this module loads JAX.
"""

from __future__ import annotations

import dataclasses

from vilasr_jax.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class AttentionBackend:
    """One implementation of attention, described by its capabilities.

    Attributes:
      name: value of `config.model.attention`.
      platforms: `jax.Device.platform`s that it runs on; None: all.
      packed_segments: whether segment ids separate the conversations of a packed row.
      context_parallel: whether a device may hold a part of a row's tokens.
      masks: the masks that it implements, of "causal" and "full".
      banded_windows: whether short windows are computed block by block; the others compute full rows and
        mask them, and are given the windows' ids.
      opaque_kernel: whether XLA sees one opaque call that it can't partition: each device then runs it on its
        own rows and heads (`jax.shard_map`), and projections write the heads in the order that it reads.
      interpret: whether kernels run step by step in Python, for tests without the hardware.
      head_dim_multiple: head widths are padded with zeros to a multiple of this.
      token_multiple: a device's tokens are padded to a multiple of this in context parallelism.
      cache_block: cache slots that a row of new tokens reads at once.
      decode_block: cache slots that single tokens read at once; None: the full cache in one product.
    """

    name: str
    platforms: tuple[str, ...] | None
    packed_segments: bool
    context_parallel: bool
    masks: tuple[str, ...]
    banded_windows: bool
    opaque_kernel: bool
    interpret: bool
    head_dim_multiple: int
    token_multiple: int
    cache_block: int
    decode_block: int | None

    def runs_on(self, platform: str) -> bool:
        """Whether devices of `platform` ("cpu", "gpu", "tpu") run it."""
        return self.platforms is None or platform in self.platforms


_XLA = AttentionBackend(
    name="xla",
    platforms=None,
    packed_segments=True,
    context_parallel=True,
    masks=("causal", "full"),
    banded_windows=True,
    opaque_kernel=False,
    interpret=False,
    head_dim_multiple=1,
    token_multiple=1,
    cache_block=128,
    decode_block=256,
)
_SPLASH = dataclasses.replace(
    _XLA,
    name="splash",
    platforms=("tpu",),
    banded_windows=False,
    opaque_kernel=True,
    head_dim_multiple=128,
    token_multiple=128,
    cache_block=2048,  # a turn of the loop costs a TPU as much as reading 1,000 slots
    decode_block=None,
)
_BACKENDS: dict[str, AttentionBackend] = {}


def register_backend(backend: AttentionBackend) -> AttentionBackend:
    """Adds a backend; one of the same name is replaced."""
    _BACKENDS[backend.name] = backend
    return backend


_SPLASH_INTERPRET = dataclasses.replace(_SPLASH, name="splash_interpret", platforms=None, interpret=True)
for _backend in (_XLA, _SPLASH, _SPLASH_INTERPRET):
    register_backend(_backend)


def attention_backend(name: str) -> AttentionBackend:
    """The backend called `name`.

    Raises:
      ConfigError: there is none; the message lists those that exist.
    """
    if name not in _BACKENDS:
        raise ConfigError(f"attention backend {name!r} does not exist; choose one of {', '.join(_BACKENDS)}")
    return _BACKENDS[name]


def require_backend(
    name: str, platform: str, *, context_parallel: bool = False, packed_segments: bool = False
) -> AttentionBackend:
    """The backend called `name`, which must run on `platform` with these capabilities.

    Args:
      name: value of `config.model.attention`.
      platform: of the devices, `jax.Device.platform`.
      context_parallel, packed_segments: capabilities that the job needs.

    Raises:
      ConfigError: it does not exist, or can't do that here; the message lists the backends that can.
    """
    needs = {"context_parallel": context_parallel, "packed_segments": packed_segments}
    needed = [capability for capability, needs_it in needs.items() if needs_it]

    def able(backend: AttentionBackend) -> bool:
        return backend.runs_on(platform) and all(getattr(backend, capability) for capability in needed)

    backend = attention_backend(name)
    if not able(backend):
        what = " with ".join([f"on {platform} devices", *[" and ".join(needed)] * bool(needed)])
        choices = ", ".join(other.name for other in _BACKENDS.values() if able(other))
        raise ConfigError(f"attention backend {name!r} does not run {what}; choose one of {choices}")
    return backend
