"""One HTTP exchange and the client at its other end: bodies within a limit, and an end to all work when the client leaves."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gemma3n_sgl.errors import TooLarge
from gemma3n_sgl.serving.inflating import inflated

Work = Callable[[Scope, Receive, Send], Awaitable[None]]


async def read_body(request: Request, limit: int) -> bytes:
    """The body, inflated, of at most `limit` bytes; a larger one raises TooLarge, before it is read where its length is declared."""
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    coming = inflated(_within(limit, request.stream()), request.headers.get("content-encoding", ""))
    body = b"".join([chunk async for chunk in _within(limit, coming)])
    return body.removeprefix(codecs.BOM_UTF8)


async def _within(limit: int, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        yield chunk


class Exchange(Response):
    """A response whose whole making, from the first engine call to the last byte, ends when its client leaves."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.ensure_future(self._work(scope, receive, send))
        gone = asyncio.ensure_future(_gone(receive))
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                with suppress(ClientDisconnect, OSError):
                    work.result()
        finally:
            for task in (work, gone):
                task.cancel()
            await asyncio.wait({work, gone})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


def _too_large(limit: int) -> TooLarge:
    return TooLarge(f"The request body is larger than the {limit // 2**20} MB taken here. Send smaller pictures and sound.")
