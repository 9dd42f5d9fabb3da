"""What every request passes: an id for it, and an address that is plain."""

from __future__ import annotations

import logging
import re
import secrets
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gemma3n_sgl.serving.closing import Closing
from gemma3n_sgl.serving.headers import header
from gemma3n_sgl.serving.watching import seen

log = logging.getLogger("gemma3n")

STRAIGHT = "gemma3n.send"
"""Where a request's scope holds the way to its client past all that looks at the head of an answer alone."""

_GIVEN_ID = re.compile(r"[\x21-\x7e]{1,128}")
_SLASHES = re.compile("/{2,}")


class Gate:
    """Around everything: `x-request-id` (the client's own where it gave one) and `openai-processing-ms` on every answer, an address however it
    is written with slashes, an answer for every bug, and connections that end when the server does."""

    def __init__(self, app: ASGIApp, closing: Closing) -> None:
        self._app, self._closing = app, closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        given = header(scope, b"x-request-id") or ""
        request_id = given if _GIVEN_ID.fullmatch(given) else f"req_{secrets.token_hex(16)}"
        sight = seen()
        sight.id = request_id

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                sight.status = message["status"]
                took = b"%d" % round(1000 * (time.perf_counter() - began))
                headers = [(b"x-request-id", request_id.encode()), (b"openai-processing-ms", took)]
                if self._closing.begun or message["status"] == 408:
                    headers.append((b"connection", b"close"))
                message = {**message, "headers": [*message.get("headers", ()), *headers]}
            await send(message)

        path = _SLASHES.sub("/", scope["path"]).rstrip("/") or "/"
        try:
            await self._app({**scope, "path": path, STRAIGHT: send}, receive, send_with_id)
        except Exception:  # answered already; raised on, uvicorn would cut a connection that the client goes on to use
            log.exception("request %s met a bug", request_id)
