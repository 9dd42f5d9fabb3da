"""Whose file is read next: each client has a few fetched and decoded at once, so that one's slow files are waited for by that one alone."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from typing import TypeVar
from weakref import WeakValueDictionary

from gemma3n_sgl.bridge import in_thread

T = TypeVar("T")

DECODED = max(2, os.cpu_count() or 2)
"""Files of one client that are decoded at once; of all together four times as many."""

FETCHED = 16
"""Files of one client that are fetched at once. Each may keep a thread that looks up a name, which nobody can end."""


class Turns:
    """The turns of all clients, on one event loop. `who` is a client, by its key or its address."""

    def __init__(self) -> None:
        self._all = asyncio.Semaphore(4 * DECODED)
        self._decoding: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._fetching: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    async def decoded(self, who: str, decode: Callable[[], T]) -> T:
        """What `decode()` returns, called in a thread. It can't be cancelled: its place is free when it has ended, also where nobody waits for it."""
        with ExitStack() as turn:
            for places in (self._decoding.setdefault(who, asyncio.Semaphore(DECODED)), self._all):
                await places.acquire()
                turn.callback(places.release)
            work = in_thread(decode)
            held = turn.pop_all()
            work.add_done_callback(lambda _: held.close())
        return await asyncio.shield(work)

    async def fetched(self, who: str, fetch: Callable[[], Awaitable[T]]) -> T:
        """What `fetch()` comes to."""
        async with self._fetching.setdefault(who, asyncio.Semaphore(FETCHED)):
            return await fetch()
