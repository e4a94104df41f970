"""Middleware: which host names the application answers to, and how many requests it accepts at once."""

from __future__ import annotations

import json
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from vilasr_jax.serve.limits import ApiError

MOST_REQUESTS = 512  # concurrent requests, including those for the page's files


class Gate:
    """Refuses a request for another host (a page elsewhere must not reach in), and too many at once.

    Args:
      app: the application.
      hosts: host names it may be reached under ("*": any); a port after one does not matter.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str]):
        self.app, self.hosts = app, {_name(host) for host in hosts}
        self.running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or hands it on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        host = _name(Headers(scope=scope).get("host", ""))
        if "*" not in self.hosts and host not in self.hosts:
            name = host[:80]
            message = f"this server does not answer to the host {name!r}; start it with --allow-host={name}"
            await _refusal(ApiError(400, message, code="unknown_host"))(scope, receive, send)
            return
        if self.running >= MOST_REQUESTS:
            refused = ApiError(503, "too many requests at once; try again soon", code="too_many_requests")
            await _refusal(refused)(scope, receive, send)
            return
        self.running += 1
        try:
            await self.app(scope, receive, send)
        finally:
            self.running -= 1


def _name(host: str) -> str:
    """A host without its port and brackets, in small letters: of a Host header, or as a person writes it."""
    host = host.rpartition("//")[2].rstrip("/").lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host if host.count(":") > 1 else host.partition(":")[0]  # IPv6, too


def _refusal(error: ApiError) -> Response:
    headers = {"Retry-After": "2"} if error.status == 503 else None
    return Response(json.dumps(error.body()), error.status, headers, "application/json")
