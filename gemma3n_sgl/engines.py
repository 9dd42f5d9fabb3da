"""Several engines as one: a call goes where the beginning of its prompt was read before, past engines that are down or have far more to do.

The beginning is the first turn with its media, which all calls about one conversation share, and the clips of a long recording don't: those
spread. Where it goes is a matter of arithmetic (rendezvous hashing with bounded loads, as in Google's "Consistent Hashing with Bounded
Loads"), so that several servers before the same engines agree on it without a word.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from hashlib import blake2b
from typing import Any
from zlib import crc32

from gemma3n_sgl.errors import EngineError, EngineUnavailable
from gemma3n_sgl.language import AUDIO_TOKEN, IMAGE_TOKEN
from gemma3n_sgl.transport import UNREACHABLE, Deadlines, EngineClient, EngineStream, Generation

AT_EASE = 4
"""Generations that an engine may have without being passed over."""

UNEVEN = 1.25
"""How many times the mean an engine may have before others take its calls."""

PAUSE = 1.0
LONGEST_PAUSE = 30.0
"""Seconds for which an engine that could not be reached is not asked: at first, and at most."""

_TURN_ENDS = "<end_of_turn>"


def client_of(urls: str, api_key: str = "", deadlines: Deadlines | None = None) -> EngineClient:
    """The client for one engine, or for several whose addresses are separated by commas."""
    clients = [EngineClient(url.strip(), api_key, deadlines) for url in urls.split(",")]
    return clients[0] if len(clients) == 1 else Engines(clients)


class Engine:
    """One of several: its client, what it has to do, and whether it is down."""

    def __init__(self, client: EngineClient) -> None:
        self.client = client
        self.under_way: set[_Routed] = set()  # begun and closed by several threads, which a set bears
        self._pause = 0.0
        self._asked_again = 0.0

    @property
    def busy(self) -> int:
        return len(self.under_way)

    @property
    def is_down(self) -> bool:
        return time.monotonic() < self._asked_again

    def fell(self) -> None:
        self._pause = min(max(PAUSE, 2 * self._pause), LONGEST_PAUSE)
        self._asked_again = time.monotonic() + self._pause

    def rose(self) -> None:
        self._pause = self._asked_again = 0.0


class Engines(EngineClient):
    """Talks to several engines of one model as if they were one.

    A call goes on to the next where an engine can't be reached or says that it takes none, and not where it broke off: what killed one might
    kill them all.
    """

    def __init__(self, clients: list[EngineClient]) -> None:
        super().__init__(",".join(client.url for client in clients), deadlines=clients[0].deadlines)
        self.engines = [Engine(client) for client in clients]
        for client in clients:
            client.carried = lambda: self.carried()

    @property
    def up(self) -> int:
        """How many could be reached when they were last asked."""
        return sum(not engine.is_down for engine in self.engines)

    @property
    def standing(self) -> dict[str, Any]:
        return {"engines": {"up": self.up, "of": len(self.engines)}}

    def stream(self, body: dict[str, Any]) -> Generation:
        return _Routed(self, body)

    async def aclose(self) -> None:
        for engine in self.engines:
            await engine.client.aclose()

    async def get(self, path: str, *, timeout: float) -> Any:
        """What the engines say there; all are asked, those that are down too. EngineError where they serve different models."""
        answers = await self._all(lambda client: client.get(path, timeout=timeout))
        names = {answer.get("served_model_name") for answer in answers if isinstance(answer, dict)}
        if len(names) > 1:
            raise EngineError(f"The engines don't serve the same model: {', '.join(sorted(map(str, names)))}. Start them with the same one.")
        return answers[0]

    async def post(self, path: str, body: Any) -> Any:
        """To one of the engines; what has no prompt, such as emptying the cache, to all."""
        if not body:
            return (await self._all(lambda client: client.post(path, body)))[0]
        for engine in self.order(body):
            try:
                return await engine.client.post(path, body)
            except EngineUnavailable:
                engine.fell()
        raise EngineUnavailable(UNREACHABLE)

    def order(self, body: dict[str, Any]) -> list[Engine]:
        """The engines in the order in which a call is offered to them: never to one that is down, unless all are."""
        beginning = _beginning(body)
        up = [engine for engine in self.engines if not engine.is_down] or self.engines
        ranked = sorted(up, key=lambda engine: blake2b(engine.client.url.encode() + beginning, digest_size=8).digest())
        most = max(AT_EASE, UNEVEN * (sum(engine.busy for engine in up) + 1) / len(up))
        return sorted(ranked, key=lambda engine: engine.busy + 1 > most)

    async def _all(self, ask: Any) -> list[Any]:
        """The answers of those that give one. Raises the first one's error where none does."""
        told = await asyncio.gather(*(ask(engine.client) for engine in self.engines), return_exceptions=True)
        for engine, answer in zip(self.engines, told, strict=True):
            if isinstance(answer, EngineUnavailable):
                engine.fell()
            elif not isinstance(answer, BaseException):
                engine.rose()
        answers = [answer for answer in told if not isinstance(answer, BaseException)]
        if not answers:
            raise next(answer for answer in told if isinstance(answer, BaseException))
        return answers


class _Routed:
    """A generation by whichever engine takes it. Once one has, it stays there."""

    def __init__(self, engines: Engines, body: dict[str, Any]) -> None:
        self._engines, self._body = engines, body
        self._engine: Engine | None = None
        self._stream: EngineStream | None = None

    async def open(self) -> None:
        for engine in self._engines.order(self._body):
            self._begin(engine)
            assert self._stream is not None
            try:
                await self._stream.open()
            except EngineUnavailable:
                engine.fell()
                self.close()
            else:
                engine.rose()
                return
        raise EngineUnavailable(UNREACHABLE)

    def take_at_once(self, taker: Callable[[list[bytes]], bool]) -> None:
        assert self._stream is not None
        self._stream.take_at_once(taker)

    async def next(self) -> list[bytes]:
        assert self._stream is not None
        return await self._stream.next()

    def release(self) -> None:
        assert self._stream is not None
        self._stream.release()

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        if self._engine is not None:
            self._engine.under_way.discard(self)
            self._engine = None

    def _begin(self, engine: Engine) -> None:
        self._engine, self._stream = engine, EngineStream(engine.client, self._body)
        engine.under_way.add(self)


def _beginning(body: dict[str, Any]) -> bytes:
    """What tells one conversation from others: the first turn, and the media in it."""
    text = body.get("text", body.get("prompt", ""))
    if isinstance(text, list):
        text = text[0] if text else ""
    first = str(text).partition(_TURN_ENDS)[0]
    pictures, clips = _media(body, "image_data", first.count(IMAGE_TOKEN)), _media(body, "audio_data", first.count(AUDIO_TOKEN))
    return b"\0".join([first.encode("utf-8", "replace"), *pictures, *clips])


def _media(body: dict[str, Any], kind: str, count: int) -> Iterator[bytes]:
    uris = body.get(kind) or []
    if uris and isinstance(uris[0], list):
        uris = uris[0]
    for uri in uris[:count]:
        yield b"%d" % crc32(uri.encode())
