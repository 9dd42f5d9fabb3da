"""HTTP/1.1 to an engine, and nothing else of it: connections kept for the next request, bodies handed on as they come.

It stands in the path of every token: a general client in its place made one a fifth dearer (docs/performance.md).
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections import deque
from collections.abc import Callable
from urllib.parse import unquote, urlsplit
from weakref import WeakKeyDictionary

import httptools

from gemma3n_sgl.bridge import background, on_background

IDLE = 4
"""Seconds a connection waits for its next request. The engine closes it after 5, and a request sent at that moment would be lost."""
_READ_AHEAD = 2**20
"""Bytes of a body that nobody has taken, from which on no more are read."""
_MOST_HEAD = 2**18


class ConnectionFailed(Exception):
    """There is nobody at the other end."""


class BrokenOff(Exception):
    """The other end went away, or does not speak HTTP, before an answer was whole."""


class Connection(asyncio.Protocol):
    """One request at a time, and its answer: `ask`, then `read` until there is no more, then back to its `Pool`."""

    # What each token touches lies in few places: with hundreds of streams the processor's cache holds little of each.
    __slots__ = (
        "_bounded",
        "_head",
        "_kept",
        "_lost",
        "_parser",
        "_paused",
        "_pieces",
        "_transport",
        "_waiter",
        "_waiting",
        "_whole",
        "content_type",
        "idle_since",
        "loop",
        "status",
        "taker",
    )

    def __init__(self) -> None:
        self.status = 0
        self.content_type = ""
        self.idle_since = 0.0
        self.loop = asyncio.get_running_loop()
        self.taker: Callable[[bytes], bool] | None = None
        """Given what comes of a body, instead of whoever reads. Whether that is all, so that nobody who waits for news has to wake."""
        self._transport: asyncio.Transport
        self._parser: httptools.HttpResponseParser | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._pieces: list[bytes] = []
        self._waiting = self._head = 0  # bytes nobody has taken; bytes of a head that is not whole
        self._whole = self._lost = self._paused = self._kept = self._bounded = False

    async def ask(self, head: bytes, body: bytes) -> None:
        """Send a request; there is a `status` then. Raises BrokenOff."""
        self.status, self.content_type, self._head = 0, "", 0
        self._whole = self._kept = self._bounded = False
        self._parser = httptools.HttpResponseParser(self)
        self._transport.writelines([head, body])
        while not self.status:
            if self._lost:
                raise BrokenOff
            await self.news()

    async def read(self) -> bytes:
        """What has come of the body since, b"" at its end. Raises BrokenOff."""
        while (data := self.taken()) is None:
            await self.news()
        return data

    def taken(self) -> bytes | None:
        """`read` for whoever waits for news by themselves: None where nothing has come."""
        if not self._pieces:
            if self._whole:
                return b""
            if self._lost:
                raise BrokenOff
            return None
        data = self._collected()
        if self._paused and not self._lost:
            self._paused = False
            self._transport.resume_reading()
        return data

    def _collected(self) -> bytes:
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces.clear()
        self._waiting = 0
        return data

    @property
    def is_free(self) -> bool:
        """Whether another request may be sent: an answer was read to its end, and both sides go on."""
        return self._whole and self._kept and not self._pieces and not self._lost

    def close(self) -> None:
        """End it at once, from any thread."""
        if not self._lost and not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self._transport.abort)

    def _end(self) -> None:
        self._kept = False
        self._transport.abort()

    async def news(self) -> None:
        """Wait until something has come, or the other end is gone."""
        self._waiter = self.loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What the transport says

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        if self._parser is None:
            self._end()  # nobody has asked
            return
        if not self.status:
            self._head += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._end()
        if not self.status and self._head > _MOST_HEAD:
            self._end()
        if self.taker is None or self._whole or (self._pieces and not self.taker(self._collected())):
            self._wake()

    def connection_lost(self, error: Exception | None) -> None:
        self._lost, self._parser = True, None
        self._whole |= error is None and self.status > 0 and not self._bounded  # a body without a length ends so
        self._wake()

    # What the parser says

    def on_message_begin(self) -> None:
        if self._whole:
            self._end()  # a second answer in one piece with the first

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name == b"content-type":
            self.content_type = value.decode("latin-1").partition(";")[0].strip().lower()
        self._bounded |= name in (b"content-length", b"transfer-encoding")

    def on_headers_complete(self) -> None:
        if self._parser is not None and (status := self._parser.get_status_code()) >= 200:  # below are answers before the answer
            self.status = status

    def on_body(self, data: bytes) -> None:
        if self._whole:
            return
        self._pieces.append(data)
        self._waiting += len(data)
        if self._waiting > _READ_AHEAD and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def on_message_complete(self) -> None:
        if self.status and self._parser is not None:
            self._whole, self._kept = True, self._parser.should_keep_alive()
            self._parser = None  # which knows us, too


class _Free(deque[Connection]):
    """Connections that wait for a request, the one that has waited longest first. `watched`: somebody looks after them."""

    watched = False


class Pool:
    """The connections to one engine, each event loop with its own. `headers` go with every request."""

    def __init__(self, url: str, headers: dict[str, str], connect_timeout: float) -> None:
        """Raises ValueError where `url` is no address."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{parts.scheme}://{parts.hostname} is no address of a server")
        self._host, self._path = parts.hostname, parts.path
        self._tls = parts.scheme == "https"
        self._port = parts.port or (443 if self._tls else 80)
        self._timeout = connect_timeout
        if parts.username is not None:
            known = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            headers = {"Authorization": f"Basic {b64encode(known.encode()).decode()}"} | headers
        self._common = _lines({"Host": parts.netloc.rpartition("@")[2], "User-Agent": "gemma3n-sgl", "Accept": "*/*"} | headers)
        self._free: WeakKeyDictionary[asyncio.AbstractEventLoop, _Free] = WeakKeyDictionary()

    async def asked(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Connection:
        """A connection on which the answer to this request has begun. Raises ConnectionFailed or BrokenOff."""
        head = f"{method} {self._path}{path} HTTP/1.1\r\n".encode() + self._common + _lines(headers or {})
        if body is not None:
            head += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
        connection = self._kept() or await self._made()
        try:
            await connection.ask(head + b"\r\n", body or b"")
        except BaseException:
            connection.close()
            raise
        return connection

    def give_back(self, connection: Connection) -> None:
        """Keep it for the next request, for which the last bytes of this answer may still be awaited. From any thread."""
        free = self._free.get(connection.loop)
        if free is None or connection.loop.is_closed():
            connection.close()
            return
        connection.idle_since = connection.loop.time()
        free.append(connection)
        if not free.watched:
            free.watched = True
            connection.loop.call_soon_threadsafe(self._tidy, free)

    async def aclose(self) -> None:
        """Close the connections of the running loop that wait for a request."""
        for connection in self._free.pop(asyncio.get_running_loop(), ()):
            connection.close()
        await asyncio.sleep(0)

    def _kept(self) -> Connection | None:
        loop = asyncio.get_running_loop()
        if (free := self._free.get(loop)) is None:
            self._free[loop] = _Free()
            if on_background():
                background().at_exit(self.aclose)
            return None
        while free:
            connection = free.pop()
            if connection.is_free and loop.time() - connection.idle_since < IDLE:
                return connection
            connection.close()
        return None

    async def _made(self) -> Connection:
        try:
            async with asyncio.timeout(self._timeout):
                made = await asyncio.get_running_loop().create_connection(Connection, self._host, self._port, ssl=self._tls or None)
        except (OSError, UnicodeError):  # no such name, nobody there, a certificate that is none, too late
            raise ConnectionFailed from None
        return made[1]

    def _tidy(self, free: _Free) -> None:
        """Close those that have waited too long, and look again after a while."""
        loop = asyncio.get_running_loop()
        while free and loop.time() - free[0].idle_since >= IDLE:
            free.popleft().close()
        if free:
            loop.call_later(IDLE / 4, self._tidy, free)
        else:
            free.watched = False


def _lines(headers: dict[str, str]) -> bytes:
    """Header lines, each on one line whatever its value holds."""
    return "".join([f"{name}: {''.join(value.splitlines())}\r\n" for name, value in headers.items()]).encode()
