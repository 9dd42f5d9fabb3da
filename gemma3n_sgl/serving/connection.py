"""One client's connection: the deadlines and sizes that uvicorn leaves open, all of them noticed without a cost for each token."""

from __future__ import annotations

import asyncio
import logging
import socket
from functools import partial
from typing import Any, cast

import httptools
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from gemma3n_sgl.serving.doors import address_of
from gemma3n_sgl.settings import Settings

LINE = "gemma3n.line"
"""Where a request's scope holds the `Line` to its client."""

KEEP_ALIVE = 65
"""Seconds an idle connection is kept: longer than clients keep theirs, so that none writes into a closing one."""

FIRST_WORD = 0.5
"""Seconds in which a client that came as the server ended may still ask."""

MOST_HEAD = 64 * 1024
"""Bytes of a request's first line and headers."""

SEND_BUFFER = 64 * 1024
"""Bytes the system keeps for a reader, twice as many in Linux: left to itself it keeps megabytes, in which a whole answer goes unread."""

BACKLOG = 2048
"""Connections that may wait to be taken; the system may allow fewer (net.core.somaxconn)."""

_FRAMING = (b"content-length", b"transfer-encoding")
_TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"

log = logging.getLogger("gemma3n")


def config_of(app: ASGIApp, settings: Settings, **others: Any) -> uvicorn.Config:
    """How the application is served, here and in tests."""
    http: Any = partial(Connection, settings=settings)
    return uvicorn.Config(
        app, http=http, ws="none", log_level="warning", access_log=False, backlog=BACKLOG, timeout_keep_alive=KEEP_ALIVE, **others
    )


class Line:
    """The way of a streamed body's pieces past `send`, where that would not wait: no coroutine for each token."""

    __slots__ = ("_left", "_transport", "gone", "open", "slow")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._left: asyncio.Future[None] | None = None
        self.open = False
        """Whether the head is out, and nothing on its way by `send`."""
        self.slow = False
        """Whether the client reads too slowly."""
        self.gone = False
        """Whether the client has left."""

    def left(self) -> asyncio.Future[None]:
        """Done once the client has left."""
        self._left = asyncio.get_running_loop().create_future()
        if self.gone:
            self._left.set_result(None)
        return self._left

    def leave(self) -> None:
        """The client has left."""
        self.gone = True
        if self._left is not None and not self._left.done():
            self._left.set_result(None)

    def is_free(self) -> bool:
        """Whether a piece can be written now."""
        return self.open and not self.slow and not self.gone

    def write(self, piece: bytes, then: bytes = b"", last: bytes = b"") -> None:
        self._transport.write(b"%x\r\n%b%b%b\r\n" % (len(piece) + len(then) + len(last), piece, then, last))


class _Together:
    """The transport of an answer whose head waits for the first of its body: one packet and one system call instead of two."""

    __slots__ = ("_cycle", "_head", "_transport")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self._cycle, self._transport, self._head = cycle, cycle.transport, b""

    def write(self, data: bytes) -> None:
        if self._head:
            self._cycle.transport = self._transport
            self._transport.write(self._head + data)
        elif self._cycle.response_started:
            self._head = data
        else:
            self._transport.write(data)  # "100 Continue"

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def close(self) -> None:
        self._transport.close()


class Connection(HttpToolsProtocol):
    """Uvicorn's, which waits for ever for a request's head, reads it however long it is, and waits for ever for a client that does not read.

    A client that stops reading fills the transport's buffer, which says so; after `send_timeout` the connection is cut, and with it goes
    the run that wrote into it.
    """

    # beside uvicorn's own: an object of 30 attributes and more takes five times the memory of a smaller one
    __slots__ = ("_framing", "_head_size", "_in_head", "_late", "_lines", "_settings", "_stuck")

    def __init__(self, *args: Any, settings: Settings, **others: Any) -> None:
        super().__init__(*args, **others)
        self._settings = settings
        self._late: asyncio.TimerHandle | None = None
        self._in_head = True
        self._head_size = 0
        self._framing = b""
        """The headers that say how a body is read, of a request that asks for another protocol, until the parser is told them anew."""
        self._stuck: asyncio.TimerHandle | None = None
        self._lines: list[Line] = []

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        super().connection_made(transport)
        self._expect()

    def connection_lost(self, exc: Exception | None) -> None:
        self._has_come()
        self.resume_writing()
        self._unset_keepalive_if_required()  # uvicorn forgets it where the connection was reset
        super().connection_lost(exc)
        for line in self._lines:
            line.leave()

    def data_received(self, data: bytes) -> None:
        if self._in_head:
            self._head_size += len(data)
        self._unset_keepalive_if_required()
        try:
            rest: bytes | memoryview = data
            while rest:
                try:
                    self.parser.feed_data(rest)
                    break
                except httptools.HttpParserUpgrade as met:  # the parser takes all behind this head for another protocol's
                    rest = memoryview(rest)[met.args[0] :]
                    if self._framing:
                        self.parser.feed_data(b"POST / HTTP/1.1\r\n%b\r\n" % self._framing)
        except httptools.HttpParserError:
            log.info("what %s sent is no HTTP request, or a broken one", address_of(self.client))
            self.send_400_response("Invalid HTTP request received.")
        if self._in_head and self._head_size > MOST_HEAD and not self.transport.is_closing():
            self.transport.write(_TOO_LONG)
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._expect()

    def on_headers_complete(self) -> None:
        self._in_head, self._head_size = False, 0
        self._has_come()
        if self._framing:  # the head was ours, by which the parser goes on to the body
            self._framing = b""
            return
        super().on_headers_complete()
        if self.parser.should_upgrade():  # it is answered as if it had asked for no other protocol
            self._framing = b"".join([b"%b: %b\r\n" % header for header in self.headers if header[0] in _FRAMING])
        if self.scope["method"] == "POST":  # for HEAD no body is written
            self.cycle.transport = cast(asyncio.Transport, _Together(self.cycle))
        line = cast(dict[str, Any], self.scope)[LINE] = Line(self.transport)
        line.slow = self.flow.write_paused
        self._lines.append(line)

    def on_response_complete(self) -> None:
        del self._lines[0]  # answers come in the order of requests
        super().on_response_complete()
        if self.cycle.more_body:
            self._expect()  # the rest of a body that was answered before it was whole

    def on_message_complete(self) -> None:
        if self._framing:
            return  # its body is yet to come
        super().on_message_complete()
        self._has_come()

    def pause_writing(self) -> None:
        super().pause_writing()
        for line in self._lines:
            line.slow = True
        self._stuck = self.loop.call_later(self._settings.send_timeout, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        for line in self._lines:
            line.slow = False
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self.transport.abort()  # an answer that nobody has read; close() would keep it until somebody does
        super().timeout_keep_alive_handler()

    def shutdown(self) -> None:
        """The server ends. A client that has just come is heard: its first request may be on its way, and would be lost without a word."""
        if self.cycle is None:
            self.loop.call_later(FIRST_WORD, self._close_unless_asked)
        else:
            super().shutdown()

    def _close_unless_asked(self) -> None:
        if self.cycle is None and not self.transport.is_closing():
            self.transport.close()

    def _expect(self) -> None:
        """Wait for the rest of a head, or of a body that nobody reads, no longer than its time."""
        self._has_come()
        self._late = self.loop.call_later(self._settings.header_timeout, self.transport.abort)

    def _has_come(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
