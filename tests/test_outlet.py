"""On its way to a client nothing is lost, doubled or out of order, however the client reads and whoever speaks at once."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable
from typing import Any

import pytest

from gemma3n_sgl.bridge import spawn, wait
from gemma3n_sgl.errors import EngineError
from gemma3n_sgl.events import Delta, Done, Event, Step, Usage
from gemma3n_sgl.openai.writing import Completion
from gemma3n_sgl.serving.connection import Line
from gemma3n_sgl.serving.outlet import Stream
from gemma3n_sgl.serving.watching import Seen


class Reader:
    """A client that reads when it likes: `pauses` says before each write for how long the way is shut."""

    def __init__(self, pauses: Callable[[], float]) -> None:
        self._pauses = pauses
        self.got = b""
        self.heads = 0
        self.ended = False

    async def send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.heads += 1
            return
        if (pause := self._pauses()) > 0:
            await asyncio.sleep(pause)
        assert self.heads == 1 and not self.ended
        self.got += message["body"]
        self.ended = not message["more_body"]

    @property
    def chunks(self) -> list[Any]:
        lines = self.got.decode().split("\n\n")
        assert lines[-2:] == ["data: [DONE]", ""]
        return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]

    def said(self, index: int, name: str = "content") -> str:
        choices = [choice for chunk in self.chunks for choice in chunk.get("choices", []) if choice["index"] == index]
        return "".join(choice["delta"].get(name) or "" for choice in choices)


class Shut(Reader):
    """One that takes no such message until it is `opened`."""

    def __init__(self, waits: Callable[[Any], bool]) -> None:
        super().__init__(lambda: 0)
        self._waits = waits
        self.opened = asyncio.Event()

    async def send(self, message: Any) -> None:
        if self._waits(message):
            await self.opened.wait()
        await super().send(message)


class Transport:
    """What is below the same client, for what is written past `send`: each piece an HTTP chunk of its own."""

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.pieces = 0

    def write(self, data: bytes) -> None:
        size, _, rest = data.partition(b"\r\n")
        assert len(rest) == int(size, 16) + 2 and rest.endswith(b"\r\n")
        assert self._reader.heads == 1 and not self._reader.ended
        self._reader.got += rest[:-2]
        self.pieces += 1


def stream_to(reader: Reader, count: int = 1, line: Line | None = None) -> Stream:
    return Stream(Completion("gemma-3n"), count, Seen(), reader.send, reader.send, line)


async def run_of(stream: Stream, index: int, events: list[Event], rest: Callable[[], float]) -> None:
    """A program that says these, the straight way where that is open, and rests before each as it likes."""
    straight = stream.straight(index)

    def program() -> None:
        for event in events:
            if (seconds := rest()) > 0:
                wait(asyncio.sleep(seconds))
            if not (straight and isinstance(event, Delta) and straight(event.text)):
                stream.tell(index, event)

    await spawn(program)
    await stream.done(index, Done("", "stop", Usage()))


@pytest.mark.parametrize("seed", range(30))
async def test_whatever_several_say_at_once_to_a_slow_reader_arrives_once_and_in_order(seed: int):
    chance = random.Random(seed)

    def naps() -> float:
        return chance.choice([0, 0, 0.0005, 0.002])

    reader = Reader(naps)
    stream = stream_to(reader, 3)
    words = [[f"{index}.{i} " for i in range(chance.randrange(1, 40))] for index in range(3)]
    await asyncio.gather(*(run_of(stream, index, [Step("aside", "x"), *map(Delta, said)], naps) for index, said in enumerate(words)))
    await stream.end()
    assert [reader.said(index) for index in range(3)] == ["".join(said) for said in words]
    assert [reader.said(index, "reasoning_content") for index in range(3)] == ["aside: x\n\n"] * 3
    assert sorted(choice["index"] for chunk in reader.chunks for choice in chunk["choices"] if choice["finish_reason"]) == [0, 1, 2]
    assert reader.ended and reader.heads == 1


@pytest.mark.parametrize("seed", range(30))
async def test_what_goes_the_straight_way_is_in_order_with_what_has_to_wait(seed: int):
    chance = random.Random(seed)
    reader = Reader(lambda: chance.choice([0, 0.0005]))
    transport = Transport(reader)
    line = Line(transport)  # type: ignore[arg-type]
    stream = stream_to(reader, 2, line)

    def naps() -> float:
        line.slow = chance.random() < 0.3
        return chance.choice([0, 0, 0.0005])

    words = [[f"{index}.{i}\u2028 " for i in range(40)] for index in range(2)]
    await asyncio.gather(*(run_of(stream, index, list(map(Delta, said)), naps) for index, said in enumerate(words)))
    await stream.end()
    assert [reader.said(index) for index in range(2)] == ["".join(said) for said in words]
    assert 0 < transport.pieces < 80 and reader.ended and reader.heads == 1
    assert not line.is_free(), "nothing can follow the end"


async def test_what_is_said_while_a_reader_does_not_read_comes_as_one_piece():
    reader = Shut(lambda message: message["type"] == "http.response.body")
    stream = stream_to(reader)
    first = asyncio.create_task(spawn(stream.tell, 0, Delta("a")))
    await asyncio.sleep(0)
    for letter in "bcdef":
        await spawn(stream.tell, 0, Delta(letter))
    reader.opened.set()
    await first
    await stream.done(0, Done("", "stop", Usage()))
    await stream.end()
    assert [chunk["choices"][0]["delta"].get("content") for chunk in reader.chunks] == ["", "a", "bcdef", None]


async def test_who_speaks_on_after_another_was_broken_off_keeps_their_own_order():
    reader = Shut(lambda message: b"a1" in message.get("body", b""))
    line = Line(Transport(reader))  # type: ignore[arg-type]
    stream = stream_to(reader, 2, line)
    straight = stream.straight(1)
    held = asyncio.create_task(spawn(stream.tell, 0, Delta("a1 ")))
    await asyncio.sleep(0)
    await spawn(stream.tell, 1, Delta("b1 "))
    held.cancel()
    await asyncio.wait({held})
    reader.opened.set()
    assert straight is not None and not straight("b2 "), "what was said before is still to be sent"
    await spawn(stream.tell, 1, Delta("b2 "))
    assert straight("b3 ")
    for index in range(2):
        await stream.done(index, Done("", "stop", Usage()))
    await stream.end()
    assert (reader.said(0), reader.said(1)) == ("a1 ", "b1 b2 b3 ")


async def test_an_error_is_told_in_the_stream_where_its_head_was_on_its_way():
    """Whoever sent it is cancelled with it: a client that reads an earlier answer slowly keeps it waiting."""
    reader = Shut(lambda message: True)
    stream = stream_to(reader)
    held = asyncio.create_task(spawn(stream.tell, 0, Delta("one ")))
    await asyncio.sleep(0)
    held.cancel()
    await asyncio.wait({held})
    assert stream.begun, "it has no other status any more"
    reader.opened.set()
    await stream.fail(EngineError("It broke."))
    assert reader.said(0) == "one " and reader.chunks[-1]["error"]["message"] == "It broke."
    assert reader.heads == 1 and reader.ended


async def test_a_head_that_was_broken_off_goes_before_what_another_says():
    reader = Shut(lambda message: True)
    stream = stream_to(reader, 2)
    held = asyncio.create_task(spawn(stream.tell, 0, Delta("one ")))
    await asyncio.sleep(0)
    held.cancel()
    await asyncio.wait({held})
    reader.opened.set()
    await spawn(stream.tell, 1, Delta("two "))
    await stream.end()
    assert (reader.heads, reader.said(0), reader.said(1)) == (1, "one ", "two ")


async def test_an_error_comes_after_all_that_was_said_before_it_also_where_its_run_was_cut_off_in_the_middle_of_a_piece():
    reader = Shut(lambda message: b"two" in message.get("body", b""))
    stream = stream_to(reader, 2)
    await spawn(stream.tell, 0, Delta("one "))
    held = asyncio.create_task(spawn(stream.tell, 0, Delta("two ")))
    await asyncio.sleep(0)
    await spawn(stream.tell, 1, Delta("three "))
    held.cancel()
    await asyncio.wait({held})
    reader.opened.set()
    await stream.fail(EngineError("It broke."))
    assert (reader.said(0), reader.said(1)) == ("one two ", "three ")
    assert reader.chunks[-1]["error"]["message"] == "It broke." and reader.ended
