"""The end of the server as its requests see it: first nothing new, then an end for what is still open."""

from __future__ import annotations

import asyncio
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

from gemma3n_sgl.errors import ShuttingDown

_SAID = "The server is shutting down, and this answer was not done in time. Try again."


class Closing:
    """`begun`: `/health` says 503, and connections end with the answer they carry. `over`: what is open ends with an error that says so."""

    def __init__(self) -> None:
        self.begun = self.over = False
        self._open: set[asyncio.Task[Any]] = set()

    def begin(self) -> None:
        self.begun = True

    def end(self) -> None:
        """End all answers under way: each that can still be told something is told so, where it waits for its run."""
        self.begun = self.over = True
        for work in self._open:
            work.cancel()

    def watching(self, work: asyncio.Task[Any]) -> AbstractContextManager[None]:
        """Have `work` ended, if it is still within this at the end."""
        return _Within(self, work, tells=False)

    def waiting(self) -> AbstractContextManager[None]:
        """What the current task waits for within, before its answer is made, ends with ShuttingDown at the end."""
        return _Within(self, asyncio.current_task(), tells=True)

    def telling(self) -> AbstractContextManager[None]:
        """Makes ShuttingDown of a cancellation that the end has brought about."""
        return _Within(self, None, tells=True)

    def enter(self, work: asyncio.Task[Any]) -> None:
        if self.over:
            raise ShuttingDown(_SAID)
        self._open.add(work)

    def leave(self, work: asyncio.Task[Any]) -> None:
        self._open.discard(work)


class _Within:
    """`work` is open within, where there is one. A class, since a request enters nine, and a generator takes four times as long."""

    __slots__ = ("_closing", "_tells", "_work")

    def __init__(self, closing: Closing, work: asyncio.Task[Any] | None, *, tells: bool) -> None:
        self._closing, self._work, self._tells = closing, work, tells

    def __enter__(self) -> None:
        if self._work is not None:
            self._closing.enter(self._work)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._work is not None:
            self._closing.leave(self._work)
        if self._tells and self._closing.over and isinstance(error, asyncio.CancelledError) and (task := asyncio.current_task()) is not None:
            task.uncancel()
            raise ShuttingDown(_SAID) from None
