"""Clips of one length at a time, for an engine that dies of two at once.

SGLang 0.5.23 encodes the clips of all requests that it happens to prefill together in one batch, puts the results into one tensor, and the
scheduler dies where they differ in length (srt/models/gemma3n_mm.py:353). So requests with clips of one length are let in together, and
others wait until those have their first token.
"""

from __future__ import annotations

import asyncio
from collections import deque

LINGERS = 0.5
"""Seconds for which an engine may still work on a request whose client has left."""


class Lengths:
    """A gate that requests enter with the length of their clips, and leave when these are encoded. First come, first served."""

    def __init__(self) -> None:
        self._length = 0
        self._inside = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    async def enter(self, length: int) -> None:
        """Wait until clips of this length may go in."""
        if not self._waiting and self._inside and self._length == length:
            self._inside += 1
            return
        if not self._inside and not self._waiting:
            self._length, self._inside = length, 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append((length, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave()
            raise

    def leave(self) -> None:
        """A request's clips are encoded, or it has ended."""
        self._inside -= 1
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and (not self._inside or self._waiting[0][0] == self._length):
            length, turn = self._waiting.popleft()
            if not turn.done():
                self._length = length
                self._inside += 1
                turn.set_result(None)
