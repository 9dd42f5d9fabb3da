"""The server's last minute: nothing new, an end for what is under way, and no trace of it in the log."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

import uvicorn

from gemma3n_sgl.serving.closing import Closing
from gemma3n_sgl.serving.connection import BACKLOG
from gemma3n_sgl.settings import Settings

FAREWELL = 2.0
"""Seconds in which an answer that has been ended may still be told so; then its connection is cut."""


class Server(uvicorn.Server):
    """Uvicorn's, told by SIGTERM or SIGINT to end: after `shutdown_delay` it takes no connections, after `shutdown_timeout` it ends the
    answers still under way; told a second time, at once. SIGINT is raised again at the end; SIGTERM is an end like any other, with status 0.
    """

    def __init__(self, config: uvicorn.Config, closing: Closing, settings: Settings) -> None:
        super().__init__(config)
        self._closing, self._settings = closing, settings
        self._forced = asyncio.Event()
        config.timeout_graceful_shutdown = int(settings.shutdown_timeout + 2 * FAREWELL) + 1

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.force_exit = True
            self._forced.set()  # uvicorn wakes its loop for a signal
        self.should_exit = True
        if sig == signal.SIGINT and not self._captured_signals:
            self._captured_signals.append(sig)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self._closing.begin()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._settings.shutdown_delay):
                await self._forced.wait()
        ending = loop.call_later(self._settings.shutdown_timeout, self._end)
        adopting = loop.create_task(self._adopt([client for door in sockets or () for client in _before(door)]))
        await super().shutdown(sockets)
        await adopting
        ending.cancel()
        if self.force_exit:
            self._end()
            await self._gone(FAREWELL / 4)
            self._cut()
            await self._gone(FAREWELL / 4)
            await self.lifespan.shutdown()

    async def _adopt(self, clients: list[socket.socket]) -> None:
        protocol: Any = self.config.http_protocol_class
        make = partial(protocol, config=self.config, server_state=self.server_state, app_state=self.lifespan.state)
        for client in clients:
            with suppress(OSError):  # it has left already
                _, connection = await asyncio.get_running_loop().connect_accepted_socket(make, client)
                connection.shutdown()

    def _end(self) -> None:
        self._closing.end()
        asyncio.get_running_loop().call_later(FAREWELL, self._cut)

    def _cut(self) -> None:
        for connection in list(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()

    async def _gone(self, seconds: float) -> None:
        if tasks := list(self.server_state.tasks):
            await asyncio.wait(tasks, timeout=seconds)


def _before(door: socket.socket) -> Iterator[socket.socket]:
    """Clients whose connections the system has made and nobody has taken: as the door closes they would be cut off."""
    with suppress(OSError):  # there are none, or no more can be taken
        door.setblocking(False)
        for _ in range(BACKLOG):
            client = door.accept()[0]
            client.setblocking(False)
            yield client
