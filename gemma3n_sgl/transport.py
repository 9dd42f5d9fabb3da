"""The asynchronous client to an SGLang engine: pooled connections, deadlines, streams, and the engine's errors told as our own.

Every generation is a stream, also where nobody watches it: an engine drops a stream 0.3 s after its socket closes, a plain request
only after 3.5 s (SGLang 0.5.23). Nothing is ever retried: after the first token it can't be, before it the caller knows better.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol
from weakref import WeakKeyDictionary

from pydantic_core import to_json

from gemma3n_sgl.connections import BrokenOff, Connection, ConnectionFailed, Pool
from gemma3n_sgl.errors import EngineError, EngineTimeout, EngineUnavailable
from gemma3n_sgl.generated import whole
from gemma3n_sgl.lengths import LINGERS, Lengths
from gemma3n_sgl.refusals import BROKEN_OFF, NONSENSE, check_finish, parsed, refusal

UNREACHABLE = "The engine can't be reached; it may still be loading. Try again in a few seconds."
_EVENT = b"data: "
_DONE = b"data: [DONE]"
_LINE_END = b"\n"
"""An event is one line and an empty one. To look for both at once takes bytes.split four times as long."""
_LONGEST = 2**26
"""Bytes of an answer, or of one event of a stream, from which on it is none: whatever grows so long does not end."""


@dataclass(frozen=True)
class Deadlines:
    """Seconds allowed for reaching the engine, for its first token, and between two tokens."""

    connect: float = 5
    first_token: float = 120
    token: float = 30


class Generation(Protocol):
    """One generation: `open` it, take events with `next` (or `take_at_once`) until there are none, `release` it after a good end, and `close` it
    whatever came."""

    async def open(self) -> None: ...

    def take_at_once(self, taker: Callable[[list[bytes]], bool]) -> None: ...

    async def next(self) -> list[bytes]: ...

    def release(self) -> None: ...

    def close(self) -> None: ...


class EngineClient:
    """Talks to one engine, from any number of event loops (each has a pool of connections of its own).

    `carried` gives headers for a generation, asked where it is begun: those by which its trace goes on in the engine.
    """

    def __init__(self, url: str, api_key: str = "", deadlines: Deadlines | None = None) -> None:
        self.url = url.rstrip("/")
        self.deadlines = deadlines or Deadlines()
        self.carried: Callable[[], dict[str, str]] = dict
        self._headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._lengths: WeakKeyDictionary[asyncio.AbstractEventLoop, Lengths] = WeakKeyDictionary()

    @cached_property
    def pool(self) -> Pool:
        """Its connections."""
        return Pool(self.url, self._headers, self.deadlines.connect)

    @property
    def standing(self) -> dict[str, Any]:
        """What is to be told of engines, where there are several."""
        return {}

    def lengths(self) -> Lengths:
        """The gate for clips, of the running loop."""
        return self._lengths.setdefault(asyncio.get_running_loop(), Lengths())

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        await self.pool.aclose()

    async def get(self, path: str, *, timeout: float) -> Any:
        """The JSON of a GET, within `timeout` seconds."""
        return await self._call("GET", path, None, timeout)

    async def post(self, path: str, body: Any) -> Any:
        """The JSON of a POST (None where the engine answers with plain text or nothing), within the time for a first token."""
        return await self._call("POST", path, body, self.deadlines.first_token)

    async def _call(self, method: str, path: str, body: Any, timeout: float) -> Any:
        try:
            async with asyncio.timeout(timeout):
                answer = await self.pool.asked(method, path, None if body is None else to_json(body))
                try:
                    data = await _whole(answer)
                except BaseException:
                    answer.close()
                    raise
                self.pool.give_back(answer)
        except ConnectionFailed:
            raise EngineUnavailable(UNREACHABLE) from None
        except TimeoutError:
            raise EngineTimeout(f"The engine did not answer within {timeout:g} s. Try again later.") from None
        except BrokenOff:
            raise EngineError(BROKEN_OFF) from None
        if answer.status != 200:
            raise refusal(answer.status, data)
        return parsed(data, (dict, list)) if answer.content_type == "application/json" else None

    async def prefill(self, body: dict[str, Any]) -> list[dict[str, Any]]:
        """The event of each prompt of a `/generate` that generates nothing: the engine has then read it, and says how long and how likely it is."""
        asked = body.get("text", body.get("input_ids"))
        stream = self.stream(body)
        read: dict[str, dict[str, Any]] = {}
        try:
            await stream.open()
            while events := await stream.next():
                read |= {str(event.get("index", 0)): event for event in map(whole, events)}
            stream.release()
        finally:
            stream.close()
        try:
            answers = [read[str(i)] for i in range(len(asked) if isinstance(asked, list) else 1)]
            for answer in answers:
                check_finish(answer["meta_info"])
        except (KeyError, AttributeError):
            raise EngineError(NONSENSE) from None
        return answers

    def stream(self, body: dict[str, Any]) -> Generation:
        """A generation, not begun yet."""
        return EngineStream(self, body)


class EngineStream:
    """The events of one generation. Leaving it, however that comes about, closes its socket at once, which ends the generation."""

    __slots__ = (
        "_answer",
        "_body",
        "_carried",
        "_client",
        "_error",
        "_gate",
        "_has_spoken",
        "_left",
        "_limit",
        "_loop",
        "_rest",
        "_taker",
        "_timed_out",
        "_timer",
        "_waiting_since",
        "done",
    )

    def __init__(self, client: EngineClient, body: dict[str, Any]) -> None:
        self._client = client
        self._body = body | {"stream": True}
        self._carried = client.carried()
        self._answer: Connection | None = None
        self._rest = b""
        self._has_spoken = False
        self._taker: Callable[[list[bytes]], bool] | None = None
        self._left: list[bytes] = []
        self._error: Exception | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_since: float | None = None
        self._limit = client.deadlines.first_token
        self._timed_out = False
        self._gate: Lengths | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.done = False

    async def open(self) -> None:
        """Send the request; raises what the engine says against it."""
        self._loop = loop = asyncio.get_running_loop()
        if clip := _clip(self._body.get("audio_data")):
            gate = self._client.lengths()
            await gate.enter(len(clip))
            self._gate = gate
        self._waiting_since = loop.time()
        try:
            async with asyncio.timeout(self._limit):
                self._answer = answer = await self._client.pool.asked("POST", "/generate", to_json(self._body), self._carried)
                if answer.status != 200:
                    raise refusal(answer.status, await _whole(answer))
        except ConnectionFailed:
            raise EngineUnavailable(UNREACHABLE) from None
        except TimeoutError:
            raise self._too_late() from None
        except BrokenOff:
            raise EngineError(BROKEN_OFF) from None
        self._watch(loop)

    def take_at_once(self, taker: Callable[[list[bytes]], bool]) -> None:
        """From now on, offer events to `taker` where they arrive: who waits by `next` wakes for those alone that it does not take."""
        assert self._answer is not None
        self._taker = taker

    async def next(self) -> list[bytes]:
        """All events that have arrived since, at least one; none at all once the generation has ended."""
        assert self._answer is not None and self._loop is not None
        if self._waiting_since is None:
            self._waiting_since = self._loop.time()
        while not (events := self._arrived()) and not self.done:
            self._answer.taker = self._take if self._taker else None
            await self._answer.news()
        self._answer.taker = None
        if events:
            self._waiting_since = None  # bytes that make no event are silence; who has an event may take its time with it
            self._speaks()
        return events

    def release(self) -> None:
        """Keep the connection for others, after a generation that ended well."""
        if self._answer is not None and self.done:
            answer, self._answer = self._answer, None
            answer.taker = None
            self._client.pool.give_back(answer)

    def close(self) -> None:
        if self._timer:
            self._timer.cancel()
        if self._gate is not None:
            gate, self._gate = self._gate, None
            if self._loop is not None and not self._loop.is_closed():  # called from SGLang's own threads, too
                self._loop.call_soon_threadsafe(self._loop.call_later, LINGERS, gate.leave)
        if self._answer is not None:
            self._answer.taker = None
            self._answer.close()

    def _take(self, data: bytes) -> bool:
        """What has come of the body, and whether it needs nobody to wake."""
        assert self._answer is not None and self._taker is not None and self._loop is not None
        try:
            events = self._events(data)
            if not events or self._taker(events):
                if events:
                    self._waiting_since = self._loop.time()
                return not self.done
            self._left = events
        except Exception as error:  # raised where it is waited for: here it would end the connection, and be told as the engine's
            self._error = error
        self._answer.taker = None  # what comes until somebody has woken is for them, and held back where it grows
        return False

    def _arrived(self) -> list[bytes]:
        """The events that have come and nobody has taken. Raises what says that there will be no more."""
        assert self._answer is not None
        if self._left:
            left, self._left = self._left, []
            return left
        if self._error is not None:
            raise self._error
        events: list[bytes] = []
        try:
            while not events and not self.done and (data := self._answer.taken()) is not None:
                if not data:
                    raise EngineError(BROKEN_OFF)
                events = self._events(data)
        except BrokenOff:
            raise (self._too_late() if self._timed_out else EngineError(BROKEN_OFF)) from None
        return events

    def _events(self, data: bytes) -> list[bytes]:
        if not self._rest and data[:6] == _EVENT and data[6:7] == b"{" and data.find(_LINE_END) == len(data) - 2 and data[-1:] == _LINE_END:
            return [data[6:-2]]  # the rule: one event, and all of it
        *lines, self._rest = (self._rest + data).split(_LINE_END)
        if len(self._rest) > _LONGEST:
            raise EngineError(NONSENSE)
        events = []
        for line in lines:
            if line == _DONE:
                self.done = True
                break
            if line.startswith(_EVENT):
                events.append(line[len(_EVENT) :])
        return events

    def _speaks(self) -> None:
        """At its first event its clips are encoded, and from then on it has less time for each."""
        if self._has_spoken:
            return
        self._has_spoken = True
        if self._gate is not None:
            self._gate.leave()
            self._gate = None
        self._limit = self._client.deadlines.token
        if self._timer:
            self._timer.cancel()
        self._watch(asyncio.get_running_loop())

    def _watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """One timer a stream, moved on when it fires: silence is noticed without a cost for each token."""
        left = self._limit if self._waiting_since is None else self._waiting_since + self._limit - loop.time()
        if left > 0:
            self._timer = loop.call_later(left, self._watch, loop)
        else:
            self._timed_out = True
            if self._answer is not None:
                self._answer.close()

    def _too_late(self) -> EngineTimeout:
        return EngineTimeout(f"The engine was silent for {self._limit:g} s. It may be overloaded; try again later.")


def _clip(audio: Any) -> str:
    """The first of a request's clips, which are all of one length; "" where there are none."""
    while isinstance(audio, list) and audio:
        audio = audio[0]
    return audio if isinstance(audio, str) else ""


async def _whole(answer: Connection) -> bytes:
    """The body of an answer that is no stream."""
    body = bytearray()
    while piece := await answer.read():
        body += piece
        if len(body) > _LONGEST:
            raise EngineError(NONSENSE)
    return bytes(body)
