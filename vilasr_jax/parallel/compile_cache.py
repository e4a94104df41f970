"""JAX's persistent compilation cache on several hosts: every host saves the programs of its own devices.

JAX lets process 0 alone write to the cache, as all processes compile the same programs for all devices. But
sampling compiles programs for the devices of one host, and their cache keys name these devices: without this
module a restart would compile them again on every host but the first.
"""

from __future__ import annotations

import time
from typing import Any

from absl import logging
from jax._src import compilation_cache, compiler, config, distributed

_NAME = "_compile_and_write_cache"  # JAX has no public way; `launch/versions.lock` pins its version


def save_local_programs() -> None:
    """From now on this process saves compiled programs that run on its own devices only."""
    original = getattr(compiler, _NAME, None)
    if original is None:
        logging.warning("this version of JAX saves compiled programs of the first host only")
    elif not hasattr(original, "saves_local_programs"):
        setattr(compiler, _NAME, _saving(original))


def _saving(original: Any) -> Any:
    def compile_and_save(
        backend: Any,
        computation: Any,
        devices: Any,
        options: Any,
        host_callbacks: Any,
        module_name: str,
        cache_key: str,
    ) -> Any:
        began = time.monotonic()
        executable = original(backend, computation, devices, options, host_callbacks, module_name, cache_key)
        seconds = time.monotonic() - began
        local = distributed.global_state.process_id != 0 and devices.is_fully_addressable
        if local and not host_callbacks and seconds >= config.persistent_cache_min_compile_time_secs.value:
            try:
                compilation_cache.put_executable_and_time(
                    cache_key, module_name, executable, backend, int(seconds)
                )
            except Exception as error:  # the run needs no cache
                logging.warning("%s was compiled, but not saved: %s", module_name, error)
        return executable

    compile_and_save.saves_local_programs = True  # type: ignore[attr-defined]
    return compile_and_save
