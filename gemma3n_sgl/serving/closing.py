"""The end of the server as its requests see it: first nothing new, then an end for what is still open."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
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

    @contextmanager
    def watching(self, work: asyncio.Task[Any]) -> Iterator[None]:
        """Have `work` ended, if it is still within this at the end."""
        if self.over:
            raise ShuttingDown(_SAID)
        self._open.add(work)
        try:
            yield
        finally:
            self._open.discard(work)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """What the current task waits for within, before its answer is made, ends with ShuttingDown at the end."""
        task = asyncio.current_task()
        assert task is not None
        with self.telling(), self.watching(task):
            yield

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Makes ShuttingDown of a cancellation that the end has brought about."""
        try:
            yield
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if not self.over or task is None:
                raise
            task.uncancel()
            raise ShuttingDown(_SAID) from None
