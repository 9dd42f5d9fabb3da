"""By which names a server may be called that asks for no key and serves this machine alone.

A page on the web whose name has been made to mean 127.0.0.1 (DNS rebinding) is of the same origin as this server, in the eyes of a browser,
and could read all it says; but the browser still tells the name.
"""

from __future__ import annotations

import ipaddress
from functools import lru_cache

from starlette.types import ASGIApp, Receive, Scope, Send

from gemma3n_sgl.errors import Forbidden
from gemma3n_sgl.serving.headers import header
from gemma3n_sgl.serving.refusing import refuse


def is_loopback(host: str) -> bool:
    """Whether what is served at this address reaches this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Hosts:
    """Around the application: 403 for a `Host` that is neither localhost, nor an address, nor one of `names`."""

    def __init__(self, app: ASGIApp, names: tuple[str, ...]) -> None:
        self._app = app
        self._names = {name.lower() for name in names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._known(header(scope, b"host") or ""):
            await self._app(scope, receive, send)
            return
        error = Forbidden("This server is not called by that name. Call it localhost; whoever runs it allows other names with GEMMA3N_HOSTS.")
        await refuse(error, scope, receive, send)

    def _known(self, host: str) -> bool:
        """No browser leaves the name out."""
        name = host.rpartition("]")[0].lstrip("[") if host.startswith("[") else host.partition(":")[0]
        name = name.lower().rstrip(".")
        if not name or name == "localhost" or name.endswith(".localhost") or name in self._names:
            return True
        return _is_address(name)


@lru_cache(maxsize=64)
def _is_address(name: str) -> bool:
    """Asked by every request, most often of the same name."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
