"""One HTTP exchange and the client at its other end: bodies within a limit and a time, and an end to all work when the client leaves."""

from __future__ import annotations

import asyncio
import codecs
from collections.abc import Awaitable, Callable
from contextlib import suppress

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gemma3n_sgl.errors import RequestTimeout, TooLarge
from gemma3n_sgl.serving.closing import Closing
from gemma3n_sgl.serving.connection import LINE, Line
from gemma3n_sgl.serving.doors import hold
from gemma3n_sgl.serving.headers import header
from gemma3n_sgl.serving.inflating import inflated

Work = Callable[[Scope, Receive, Send], Awaitable[None]]

SLOWEST = 50_000
"""Bytes of a body that may take a second."""


async def read_body(request: Request, limit: int, timeout: float) -> bytes:
    """The body, inflated, of at most `limit` bytes; a larger one raises TooLarge, before it is read where its length is declared.

    Raises ServerFull where the bodies of all requests together hold too much, and RequestTimeout for one that takes longer than `timeout`
    seconds and a second more for each SLOWEST bytes of it.
    """
    declared = header(request.scope, b"content-length") or ""
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    coding = header(request.scope, b"content-encoding") or ""
    chunks = limited(request, limit, timeout, _too_large).stream()
    pieces, size = [], 0
    async for piece in inflated(chunks, coding) if coding else chunks:
        size += len(piece)
        if size > limit:
            raise _too_large(limit)
        hold(request.scope, len(piece))
        pieces.append(piece)
    return b"".join(pieces).removeprefix(codecs.BOM_UTF8)


def limited(request: Request, limit: int, timeout: float, too_large: Callable[[int], TooLarge]) -> Request:
    """The same request, whose body may not grow beyond `limit` bytes, nor take longer than `timeout` s and a second for each SLOWEST bytes."""
    taken = 0
    end = asyncio.get_running_loop().time() + timeout

    async def receive() -> Message:
        nonlocal taken
        try:
            async with asyncio.timeout_at(end + taken / SLOWEST):
                message = await request.receive()
        except TimeoutError:
            raise RequestTimeout(_TOO_SLOW.format(timeout)) from None
        taken += len(message.get("body", b""))
        if taken > limit:
            raise too_large(limit)
        return message

    return Request(request.scope, receive)


_TOO_SLOW = "The request's body did not come within {:g} s and a second for each 50 kB (GEMMA3N_BODY_TIMEOUT). Send it faster."


class Exchange(Response):
    """A response whose whole making, from the first engine call to the last byte, ends when its client leaves, and when the server does."""

    def __init__(self, work: Work, closing: Closing) -> None:
        self._work, self._closing = work, closing
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        task, working = asyncio.current_task(), True
        assert task is not None
        line = scope.get(LINE)
        gone = line.left() if isinstance(line, Line) else asyncio.ensure_future(_gone(receive))

        def leave(gone: asyncio.Future[None]) -> None:
            if working:  # told of it a turn of the loop later: what comes after the answer is not to be cancelled
                task.cancel()

        gone.add_done_callback(leave)
        try:
            with self._closing.watching(task), suppress(ClientDisconnect, OSError):
                await self._work(scope, receive, send)
        except (Exception, asyncio.CancelledError) as error:
            if not gone.done():
                if not (self._closing.over and isinstance(error, asyncio.CancelledError)):
                    raise
                await gone  # nothing can be told to one who does not read: the connection is cut next
            task.uncancel()
        finally:
            working = False
            gone.cancel()


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        continue


def _too_large(limit: int) -> TooLarge:
    return TooLarge(
        f"The request body is larger than the {limit // 2**20} MB taken here (GEMMA3N_MAX_BODY_MB). Send smaller pictures and sound."
    )
