"""Who may run something now, who waits and who is told to come again, before a byte of the request's body is looked at.

Places go to those who use the fewest: a neighbour with a thousand requests waits behind its own, and not before yours.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from dataclasses import dataclass

from gemma3n_sgl.errors import InvalidValue, Overloaded, ServerFull
from gemma3n_sgl.settings import Settings

BEGIN_TOGETHER = 4
"""Requests that begin in one turn of the event loop. Each takes half a millisecond before its first call, in which no token is relayed."""


class Pace:
    """Between two turns in which requests begin, tokens that have come are relayed: a rush holds up nobody who is being answered."""

    def __init__(self) -> None:
        self._begun = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    async def begin(self) -> None:
        """Wait until it is one's turn; first come, first served."""
        loop = asyncio.get_running_loop()
        if not self._begun:
            loop.call_soon(self._next, loop)
        if self._begun < BEGIN_TOGETHER and not self._waiting:
            self._begun += 1
            return
        turn = loop.create_future()
        self._waiting.append(turn)
        await turn

    def _next(self, loop: asyncio.AbstractEventLoop) -> None:
        self._begun = 0
        while self._waiting and self._begun < BEGIN_TOGETHER:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                self._begun += 1
        if self._begun:
            loop.call_soon(self._next, loop)


@dataclass(eq=False)
class _Waiter:
    who: str
    runs: int
    admitted: asyncio.Future[None]


class Admission:
    """At most `max_runs` at once, `max_runs_per_key` of each key (waiting ones included), `max_queue` requests waiting for `queue_timeout` s."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.running = 0
        self.refused: Counter[str] = Counter()
        self._by_key: Counter[str] = Counter()
        self._waiting: dict[str, deque[_Waiter]] = {}
        self.waiting = 0
        self._held = 0

    def admit(self, who: str, runs: int = 1) -> asyncio.Future[None] | None:
        """A place for `runs`: None where it is free now, else what is done once it is. Raises what the client is told of a refusal."""
        self._judge(who, runs)
        if not self.waiting and self.running + runs <= self._settings.max_runs:
            self._take(who, runs)
            return None
        if self.waiting >= self._settings.max_queue:
            self._make_room(who)
        waiter = _Waiter(who, runs, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(who, deque()).append(waiter)
        self.waiting += 1
        return waiter.admitted

    async def admitted(self, who: str, runs: int, admitted: asyncio.Future[None]) -> None:
        """Wait for what `admit` gave; raises ServerFull where nothing becomes free in time. Being cancelled gives the place back."""
        try:
            async with asyncio.timeout(self._settings.queue_timeout):
                await asyncio.shield(admitted)
        except BaseException as error:
            self._give_up(who, runs, admitted)
            if isinstance(error, TimeoutError):
                raise self._full("queue_timeout", f"Nothing became free within {self._settings.queue_timeout:g} s") from None
            raise

    def leave(self, who: str, runs: int = 1) -> None:
        """Give a place back; those who wait come in."""
        self.running -= runs
        self._by_key[who] -= runs
        if not self._by_key[who]:
            del self._by_key[who]
        self._admit_waiting()

    def hold(self, size: int) -> None:
        """So many bytes more of a body are in memory (fewer: < 0). Raises ServerFull where those of all requests would be too many."""
        most = self._settings.max_bodies_mb
        if size > 0 and self._held + size > most * 2**20:
            raise self._full("max_bodies_mb", f"The bodies of all requests would hold more than {most} MB")
        self._held += size

    def _judge(self, who: str, runs: int) -> None:
        most, each = self._settings.max_runs, self._settings.max_runs_per_key
        if runs > min(most, each):
            name = "GEMMA3N_MAX_RUNS" if most < each else "GEMMA3N_MAX_RUNS_PER_KEY"
            raise InvalidValue(f"The request asks for {runs} runs at once, and at most {min(most, each)} are made here ({name}).", param="n")
        under_way = self._by_key[who] + sum(waiter.runs for waiter in self._waiting.get(who, ()))
        if under_way + runs > each:
            self.refused["max_runs_per_key"] += 1
            raise Overloaded(f"You have {under_way} runs under way, of {each} at once (GEMMA3N_MAX_RUNS_PER_KEY). Let some end first.")

    def _take(self, who: str, runs: int) -> None:
        self.running += runs
        self._by_key[who] += runs

    def _admit_waiting(self) -> None:
        while self._waiting:
            who = min(self._waiting, key=lambda who: self._by_key[who])  # of equals, the one who was let in longest ago: it stands first
            waiter = self._waiting[who][0]
            if self.running + waiter.runs > self._settings.max_runs:
                return  # what needs several places would never get them if others went by
            self._take(who, waiter.runs)
            self._forget(waiter)
            if who in self._waiting:
                self._waiting[who] = self._waiting.pop(who)
            waiter.admitted.set_result(None)

    def _make_room(self, who: str) -> None:
        """Send the last one away of those who have the most waiting, unless that is who asks."""
        longest = max(self._waiting, key=lambda other: len(self._waiting[other]), default=who)
        full = self._full("max_queue", f"{self.waiting} requests are waiting already")
        if len(self._waiting.get(longest, ())) <= len(self._waiting.get(who, ())) + 1:
            raise full
        waiter = self._waiting[longest][-1]
        self._forget(waiter)
        waiter.admitted.set_exception(full)

    def _give_up(self, who: str, runs: int, admitted: asyncio.Future[None]) -> None:
        if not admitted.done():
            self._forget(next(waiter for waiter in self._waiting[who] if waiter.admitted is admitted))
            admitted.cancel()
            self._admit_waiting()
        elif admitted.exception() is None:
            self.leave(who, runs)

    def _forget(self, waiter: _Waiter) -> None:
        line = self._waiting[waiter.who]
        line.remove(waiter)
        self.waiting -= 1
        if not line:
            del self._waiting[waiter.who]

    def _full(self, setting: str, why: str) -> ServerFull:
        self.refused[setting] += 1
        return ServerFull(f"The server has as much to do as it takes. {why} (GEMMA3N_{setting.upper()}). Try again later.")
