"""One HTTP exchange and the client at its other end: bodies within a limit and a time, and an end to all work when the client leaves."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gemma3n_sgl.errors import RequestTimeout, TooLarge
from gemma3n_sgl.serving.closing import Closing
from gemma3n_sgl.serving.doors import hold
from gemma3n_sgl.serving.inflating import inflated

Work = Callable[[Scope, Receive, Send], Awaitable[None]]

SLOWEST = 50_000
"""Bytes of a body that may take a second."""


async def read_body(request: Request, limit: int, timeout: float) -> bytes:
    """The body, inflated, of at most `limit` bytes; a larger one raises TooLarge, before it is read where its length is declared.

    Raises ServerFull where the bodies of all requests together hold too much, and RequestTimeout for one that takes longer than `timeout`
    seconds and a second more for each SLOWEST bytes of it.
    """
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    coming = inflated(_within(limit, in_time(request, timeout)), request.headers.get("content-encoding", ""))
    pieces = []
    async for piece in _within(limit, coming):
        hold(request.scope, len(piece))
        pieces.append(piece)
    return b"".join(pieces).removeprefix(codecs.BOM_UTF8)


async def in_time(request: Request, timeout: float) -> AsyncIterator[bytes]:
    """The pieces of a body; RequestTimeout where they come too slowly."""
    end = asyncio.get_running_loop().time() + timeout
    pieces = request.stream()
    try:
        while True:
            async with asyncio.timeout_at(end):
                piece = await anext(pieces, None)
            if piece is None:
                return
            end += len(piece) / SLOWEST
            yield piece
    except TimeoutError:
        raise too_slow(timeout) from None


def too_slow(timeout: float) -> RequestTimeout:
    return RequestTimeout(f"The request's body did not come within {timeout:g} s and a second for each 50 kB (GEMMA3N_BODY_TIMEOUT). Send it faster.")


async def _within(limit: int, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    size = 0
    async for chunk in chunks:
        size += len(chunk)
        if size > limit:
            raise _too_large(limit)
        yield chunk


class Exchange(Response):
    """A response whose whole making, from the first engine call to the last byte, ends when its client leaves, and when the server does."""

    def __init__(self, work: Work, closing: Closing) -> None:
        self._work, self._closing = work, closing
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        work = asyncio.ensure_future(self._work(scope, receive, send))
        gone = asyncio.ensure_future(_gone(receive))
        self._closing.watch(work)
        try:
            await asyncio.wait({work, gone}, return_when=asyncio.FIRST_COMPLETED)
            if work.cancelled() and self._closing.over:
                await gone  # nothing can be told to one who does not read: the connection is cut next
            elif work.done():
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
    return TooLarge(
        f"The request body is larger than the {limit // 2**20} MB taken here (GEMMA3N_MAX_BODY_MB). Send smaller pictures and sound."
    )
