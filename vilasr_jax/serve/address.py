"""Where a server listens, and the names that it answers to. Without JAX, so that flags are checked first."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from vilasr_jax.errors import ConfigError


def check_listening(host: str, port: int, token: str) -> None:
    """Raises ConfigError for an address beyond this machine without a token, and for no port."""
    if not is_loopback(host) and not token:
        raise ConfigError(
            f"--host={host} can be reached from other machines; give --token=SECRET, which clients send as "
            "their API key, or leave --host out"
        )
    if not 0 <= port < 65536:
        raise ConfigError(f"--port={port}: choose one from 1 to 65535")


def is_loopback(host: str) -> bool:
    """Whether an address can only be reached from this machine."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_names(host: str, allow_hosts: Sequence[str] = ()) -> tuple[str, ...]:
    """The names that a server at `host` answers to, so that no foreign page may reach in; "*": any."""
    if not is_loopback(host) and not allow_hosts:
        return ("*",)
    return ("localhost", "127.0.0.1", "::1", host, *allow_hosts)
