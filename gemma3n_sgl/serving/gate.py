"""What every request passes: an id for it, and the key it must show."""

from __future__ import annotations

import hmac
import logging
import re
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


class Gate:
    """Around the whole application: `x-request-id` on every answer (the client's own where it gave one), and 401 without a known key."""

    def __init__(self, app: ASGIApp, api_keys: tuple[str, ...] = ()) -> None:
        self._app = app
        self._keys = [key.encode() for key in api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _GIVEN_ID.fullmatch(given) else f"req_{uuid.uuid4().hex}"

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        if self._keys and scope["path"] not in OPEN_PATHS and not self._known(headers.get("authorization", "")):
            error = Unauthorized("Show one of this server's keys: `Authorization: Bearer KEY`.")
            await JSONResponse(error_object(error), error.status)(scope, receive, send_with_id)
            return
        try:
            await self._app(scope, receive, send_with_id)
        except Exception:  # answered already; raised on, uvicorn would cut a connection that the client goes on to use
            log.exception("request %s met a bug", request_id)

    def _known(self, authorization: str) -> bool:
        """Compared in constant time, with every key, so that the time tells nothing."""
        scheme, _, key = authorization.partition(" ")
        matches = [hmac.compare_digest(key.strip().encode(), known) for known in self._keys]
        return scheme.lower() == "bearer" and any(matches)
