"""An error told in place of an answer, where no route has been reached yet."""

from __future__ import annotations

from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from gemma3n_sgl.errors import Gemma3nError
from gemma3n_sgl.openai.writing import error_headers, error_object
from gemma3n_sgl.serving.watching import seen


async def refuse(error: Gemma3nError, scope: Scope, receive: Receive, send: Send, **headers: str) -> None:
    """Answer with `error`; `headers` are further ones of it."""
    seen().fails(error)
    await JSONResponse(error_object(error), error.status, error_headers(error) | headers)(scope, receive, send)
