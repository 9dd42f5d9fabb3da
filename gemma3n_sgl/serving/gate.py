"""What every request passes: an id for it, an address that is plain, and the key it must show."""

from __future__ import annotations

import hmac
import logging
import re
import time
import uuid

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gemma3n_sgl.errors import Unauthorized
from gemma3n_sgl.openai.writing import error_object

OPEN_PATHS = ("/health", "/livez")
"""Asked by machines that hold no key."""

log = logging.getLogger("gemma3n")

_GIVEN_ID = re.compile(r"[\x21-\x7e]{1,128}")
_SLASHES = re.compile("/{2,}")


class Gate:
    """Around everything: `x-request-id` (the client's own where it gave one) and `openai-processing-ms` on every answer, an address however it
    is written with slashes, and an answer for every bug."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        given = Headers(scope=scope).get("x-request-id", "")
        request_id = given if _GIVEN_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                headers["openai-processing-ms"] = str(round(1000 * (time.perf_counter() - began)))
            await send(message)

        path = _SLASHES.sub("/", scope["path"]).rstrip("/") or "/"
        try:
            await self._app({**scope, "path": path}, receive, send_with_id)
        except Exception:  # answered already; raised on, uvicorn would cut a connection that the client goes on to use
            log.exception("request %s met a bug", request_id)


class Keys:
    """Around what is for those who hold a key: 401 to all others."""

    def __init__(self, app: ASGIApp, keys: tuple[str, ...]) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS or self._known(Headers(scope=scope).get("authorization", "")):
            await self._app(scope, receive, send)
            return
        error = Unauthorized("Show one of this server's keys: `Authorization: Bearer KEY`.")
        await JSONResponse(error_object(error), error.status, {"www-authenticate": "Bearer"})(scope, receive, send)

    def _known(self, authorization: str) -> bool:
        """Compared in constant time, with every key, so that the time tells nothing."""
        scheme, _, key = authorization.partition(" ")
        matches = [hmac.compare_digest(key.strip().encode(), known) for known in self._keys]
        return scheme.lower() == "bearer" and any(matches)
