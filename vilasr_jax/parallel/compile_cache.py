"""JAX's persistent compilation cache: a folder of the user's by default, and programs of every host.

On several hosts JAX lets process 0 alone write to the cache, as all processes compile the same programs for
all devices. But sampling compiles programs for the devices of one host, and their cache keys name these
devices: without `save_local_programs` a restart would compile them again on every host but the first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from absl import logging
from jax._src import compilation_cache, compiler, config, distributed

_NAME = "_compile_and_write_cache"  # JAX has no public way; `launch/versions.lock` pins its version


def use_compile_cache(environ: Mapping[str, str] = os.environ) -> Path | None:
    """From now on this process saves compiled programs in a folder of the user's, and reads them there.

    The folder is $XDG_CACHE_HOME/vilasr_jax/compiled, by default ~/.cache/vilasr_jax/compiled. JAX's settings
    come first: JAX_COMPILATION_CACHE_DIR names another folder, JAX_ENABLE_COMPILATION_CACHE=0 turns it off.
    Without them a process of several saves nothing: those of one job must find the same programs.

    Returns:
      The folder; None where nothing was set up, or where it can't be written.
    """
    chosen = config.compilation_cache_dir.value or not config.enable_compilation_cache.value
    if chosen or jax.distributed.is_initialized():
        return None
    try:
        home = Path(environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
        folder = home / "vilasr_jax" / "compiled"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, RuntimeError):  # it can't be written, or there is no home
        return None
    if not os.access(folder, os.W_OK | os.X_OK):
        return None
    jax.config.update("jax_compilation_cache_dir", str(folder))
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    return folder


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
