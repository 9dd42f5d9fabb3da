"""What runs say on its way to their client: as a whole at the end, or piece by piece from where the program runs, with no task in between."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from typing import Any, Protocol

from starlette.types import Send

from gemma3n_sgl.bridge import wait
from gemma3n_sgl.errors import Gemma3nError
from gemma3n_sgl.events import Delta, Done, Event, joined
from gemma3n_sgl.openai.writing import bug, on_one_line
from gemma3n_sgl.relay import Straight
from gemma3n_sgl.serving.connection import Line
from gemma3n_sgl.serving.metrics import Gaps
from gemma3n_sgl.serving.watching import Seen

log = logging.getLogger("gemma3n")

EVENT_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


class Writer(Protocol):
    """Makes OpenAI's objects of what runs say. What a stream has no words for is b""."""

    def whole(self, runs: list[list[Event]]) -> dict[str, Any] | str:
        """The answer from all events of each run; a text where it is not JSON."""

    def begin(self, count: int) -> bytes:
        """The server-sent events before those of `count` runs."""

    def piece(self, index: int, event: Event) -> bytes:
        """Those of one event of a run."""

    def around(self, index: int) -> tuple[bytes, bytes] | None:
        """What stands before and after the JSON of each piece of a run's answer, None where that is not always the same."""

    def end(self) -> bytes:
        """Those after the last."""

    def failed(self, error: Gemma3nError) -> bytes:
        """Those that end the stream instead, where it is broken off."""

    def field(self, name: str) -> str:
        """What a field of the chat request, to which the client's amounts, is called in the client's own."""


class Outlet(ABC):
    """Where the `count` runs of a request tell what they say. Seen are its beginning, and the times between the pieces of one that comes alone."""

    def __init__(self, writer: Writer, count: int, sight: Seen) -> None:
        self._writer, self._count, self._sight = writer, count, sight
        self._gaps = sight.gaps if count == 1 else Gaps()

    @abstractmethod
    def tell(self, index: int, event: Event) -> None:
        """Called where the program of this run stands, in its greenlet."""

    @abstractmethod
    def straight(self, index: int) -> Straight | None:
        """What takes pieces of this run's answer, where that need not wait."""

    @abstractmethod
    async def done(self, index: int, done: Done) -> None:
        """This run is over."""

    def _sees(self, event: Event) -> None:
        if not self._gaps.began:
            self._gaps.begin()
            self._sight.begins()
        elif type(event) is Delta:
            self._gaps.end()


class Whole(Outlet):
    """All of it at once."""

    def __init__(self, writer: Writer, count: int, sight: Seen) -> None:
        super().__init__(writer, count, sight)
        self._said: list[list[Event]] = [[] for _ in range(count)]

    def tell(self, index: int, event: Event) -> None:
        self._sees(event)
        self._said[index].append(event)

    def straight(self, index: int) -> Straight:
        def take(text: str) -> bool:
            self.tell(index, Delta(text))
            return True

        return take

    async def done(self, index: int, done: Done) -> None:
        self.tell(index, done)

    @property
    def answer(self) -> dict[str, Any] | str:
        return self._writer.whole(self._said)


class Stream(Outlet):
    """Server-sent events. The program itself waits for a client that reads slowly, and what others say meanwhile goes as one."""

    def __init__(self, writer: Writer, count: int, sight: Seen, send: Send, send_body: Send, line: Line | None = None) -> None:
        """`send` takes the head, `send_body` all else, and `line`, where there is one, what need not wait."""
        super().__init__(writer, count, sight)
        self._send, self._send_body, self._line = send, send_body, line
        self._piled: list[tuple[int, Event]] = []  # an empty deque is ten times as large, and few ever pile up
        self._unsent = b""
        self._busy = False
        self.begun = False
        """Whether its head is out, or on its way: it has no other status then."""
        self._headed = False

    def tell(self, index: int, event: Event) -> None:
        if self._line is not None and self._line.is_free():
            self._sees(event)
            if piece := self._writer.piece(index, event):
                self._line.write(piece)
        elif self._busy:
            self._pile(index, event)
        else:
            wait(self._say(index, event))

    def straight(self, index: int) -> Straight | None:
        return None if self._line is None else _Straight(self._line, self._gaps, self._writer, index).take

    async def done(self, index: int, done: Done) -> None:
        if self._busy:
            self._pile(index, done)
        else:
            await self._say(index, done)

    async def end(self) -> None:
        await self._ends(self._writer.end())

    async def fail(self, error: Exception) -> None:
        """An error ends what has begun."""
        if not isinstance(error, Gemma3nError):
            log.error("a stream broke off", exc_info=error)
            error = bug()
        self._sight.fails(error)
        if not self._headed:  # whoever sent it was broken off
            await self._head()
        rest = b"".join([self._unsent, *(self._writer.piece(index, event) for index, event in self._piled)])
        await self._ends(rest + self._writer.failed(error))

    async def _say(self, index: int, event: Event) -> None:
        self._busy = True
        self._opens(False)
        try:
            self._sees(event)
            self._pile(index, event)  # behind what is left of one that was broken off here
            if not self.begun:
                self._unsent = self._writer.begin(self._count)
            if first := not self._headed:
                await self._head()
            while self._piled or self._unsent or first:
                piled, self._piled = self._piled, []
                self._unsent += b"".join([self._writer.piece(*each) for each in piled])
                if self._unsent or first:  # the head goes with the first of the body, be that empty
                    await self._send_body({"type": "http.response.body", "body": self._unsent, "more_body": True})
                    self._unsent, first = b"", False
        finally:
            self._busy = False
            self._opens(self._headed and not self._piled and not self._unsent)

    async def _head(self) -> None:
        self.begun = True
        await self._send({"type": "http.response.start", "status": 200, "headers": EVENT_STREAM})
        self._headed = True

    def _opens(self, is_open: bool) -> None:
        if self._line is not None:
            self._line.open = is_open

    def _pile(self, index: int, event: Event) -> None:
        if self._piled and self._piled[-1][0] == index and (both := joined(self._piled[-1][1], event)):
            self._piled[-1] = index, both
        else:
            self._piled.append((index, event))

    async def _ends(self, body: bytes) -> None:
        self._opens(False)
        await self._send_body({"type": "http.response.body", "body": body, "more_body": False})


class _Straight:
    """The way of one run's answer to its client, of as few steps as there can be: it is gone for each token."""

    __slots__ = ("_after", "_before", "_gaps", "_index", "_line", "_writer")

    def __init__(self, line: Line, gaps: Gaps, writer: Writer, index: int) -> None:
        self._line, self._gaps, self._writer, self._index = line, gaps, writer, index
        self._before, self._after = writer.around(index) or (b"", b"")

    def take(self, text: str) -> bool:
        if not self._line.is_free():
            return False
        self._gaps.end()
        if self._before:
            self._line.write(self._before, on_one_line(text), self._after)
        elif piece := self._writer.piece(self._index, Delta(text)):
            self._line.write(piece)
        return True
