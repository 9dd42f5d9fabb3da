"""Which pages in a browser may call: CORS, and the refusal that keeps strangers' pages off a server that asks for no key."""

from __future__ import annotations

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from gemma3n_sgl.errors import Forbidden
from gemma3n_sgl.serving.headers import header
from gemma3n_sgl.serving.refusing import refuse

LOCAL = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d+)?|(app|tauri|vscode-webview|vscode-file)://.*"
"""What `local` stands for: pages that this machine serves, and programs on it that are made of pages."""

EXPOSED = ("x-request-id", "x-should-retry", "retry-after", "openai-processing-ms")
"""Headers of ours that a page's script may read; OpenAI's client for browsers does."""


class Origins:
    """Around the application: CORS for `origins` (`local`, origins, or `*`), preflights answered here, without a key and without credentials.

    A browser sends what a page asks for even where the page may not read the answer. Unless `guarded`, by a key that a stranger's page
    does not know, such a request is refused before anything is generated.
    """

    def __init__(self, app: ASGIApp, origins: tuple[str, ...], *, guarded: bool) -> None:
        self._app, self._guarded = app, guarded
        self._cors = CORSMiddleware(
            app,
            allow_origins=[origin for origin in origins if origin != "local"],
            allow_origin_regex=LOCAL if "local" in origins else None,
            allow_methods=("GET", "HEAD", "POST"),
            allow_headers=("*",),
            allow_private_network=True,
            expose_headers=EXPOSED,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        origin = header(scope, b"origin") if scope["type"] == "http" else None
        if origin is None and scope.get("method") == "POST":
            await self._app(scope, receive, send)  # no page asks, and no cache keeps the answer for one
            return
        if origin is not None and not self._guarded and not self._cors.is_allowed_origin(origin):
            error = Forbidden(f"Pages of {origin} may not call this server. Whoever runs it allows them with GEMMA3N_CORS_ORIGINS.")
            await refuse(error, scope, receive, send)
            return
        await self._cors(scope, receive, send)
