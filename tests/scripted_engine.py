"""A scripted stand-in for an SGLang engine: real HTTP on a loopback port, no model. Its answers and its faults are what a test tells it.

    engine.script = {"circle": Reply("A red circle."), "": Reply("Hello!")}      # by what the prompt holds, the first that fits
    engine.script = lambda prompt: Reply(prompt.upper(), delay=0.05)             # or by a function
    engine.script = Reply("Once upon a time", fault=Die(after=2))                # or always the same

What it sends has the form of SGLang 0.5.23's answers, cumulative unless `incremental`. That a client left is noticed at once for a stream,
after 3.5 s for a plain request, as by that engine.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import threading
from collections.abc import Coroutine, Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Any

import pytest
from scripted_replies import Die, Drip, Fault, Flood, Hang, Reply, Reset, Say, Script, events_of, in_turn, prompts_of, reply_to

__all__ = ["Die", "Drip", "Flood", "Hang", "Reply", "Reset", "Say", "ScriptedEngine", "scripted"]

PLAIN_REQUEST_NOTICED_AFTER = 3.5
MODEL_INFO = {
    "model_path": "/models/gemma-3n-E4B-it",
    "served_model_name": "gemma-3n-e4b",
    "preferred_sampling_params": None,
    "is_generation": True,
    "has_image_understanding": True,
    "has_audio_understanding": True,
}
EVENT_STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"


class ScriptedEngine:
    """Runs in a thread between `start` and `stop`. `requests` holds every body sent to /generate, `paths` every path asked for, `heads` the headers;
    `open` and `cut` count the generations going on and those whose client left; `loading` makes it answer 503, and `at_pages` is the fault that
    happens where it is asked for a page whose path holds `faulty`."""

    def __init__(self, script: Script | None = None, *, incremental: bool = False, port: int = 0) -> None:
        self.script: Script = script or Reply()
        self.incremental = incremental
        self.info: dict[str, Any] = dict(MODEL_INFO)
        self.loading = False
        self.at_pages: Fault | None = None
        self.faulty = ""
        self.requests: list[dict[str, Any]] = []
        self.paths: list[str] = []
        self.heads: list[str] = []
        self.open = self.cut = self.connections = 0
        self._port = port
        self._loop = asyncio.new_event_loop()
        self._server: asyncio.Server | None = None
        self._refuses = True
        self._clients: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scripted-engine", daemon=True)

    def forget(self) -> None:
        """Be as after `start`, for the next test."""
        self.script = Reply()
        self.info = dict(MODEL_INFO)
        self.requests.clear()
        self.paths.clear()
        self.heads.clear()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> ScriptedEngine:
        self._thread.start()
        self.accept()
        return self

    def stop(self) -> None:
        self.refuse()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def accept(self) -> None:
        """Listen, on the same port as before."""
        self._do(self._listen())

    def refuse(self) -> None:
        """Stop listening and drop every connection, as when the engine's process is killed."""
        self._do(self._drop())

    def _do(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(5)

    async def _listen(self) -> None:
        self._refuses = False
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self._port, limit=2**26)
        self._port = self._server.sockets[0].getsockname()[1]

    async def _drop(self) -> None:
        self._refuses = True
        if self._server:
            for listening in self._server.sockets:
                self._loop.remove_reader(listening.fileno())
            await asyncio.sleep(0)  # what was taken from it just now is a connection only then, and would never be closed
            self._server.close()
        for task in self._clients:
            task.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    # HTTP

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:  # taken from the listening socket just before it closed
            writer.close()
            return
        self.connections += 1
        task = self._loop.create_task(self._converse(reader, writer))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)
        task.add_done_callback(lambda _: writer.close())  # also of one that is cancelled before its first step

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                length = re.search(r"(?i)content-length: *(\d+)", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                self.paths.append(path := head.split()[1])
                self.heads.append(head)
                if path == "/generate" and not self.loading:
                    await self._until_left(json.loads(body), reader, writer)
                elif self.at_pages is not None and self.faulty in path:
                    await _happens(self.at_pages, writer)
                else:
                    writer.write(_whole(*self._page(path)))
                await writer.drain()

    def _page(self, path: str) -> tuple[int, str, bytes]:
        if self.loading and path in ("/generate", "/health"):
            return 503, "text/plain", b""
        if path in ("/model_info", "/get_model_info"):
            return 200, "application/json", json.dumps(self.info).encode()
        if path in ("/server_info", "/get_server_info"):
            return 200, "application/json", json.dumps({**dict(self.info), "version": "0.5.23", "context_length": 32768}).encode()
        if path == "/flush_cache":
            return 200, "text/plain", b"Cache flushed.\nPlease check backend logs for more details.\n"
        if path in ("/health", "/abort_request"):
            return 200, "text/plain", b""
        return 404, "application/json", b'{"detail":"Not Found"}'

    async def _until_left(self, body: dict[str, Any], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Generate until it is done or the client is gone."""
        self.requests.append(body)
        self.open += 1
        work = asyncio.ensure_future(self._generate(body, writer))
        left = asyncio.ensure_future(reader.read(1))
        try:
            await asyncio.wait({work, left}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                self.cut += 1
                await asyncio.sleep(0 if body.get("stream") else PLAIN_REQUEST_NOTICED_AFTER)
                raise ConnectionResetError
            work.result()
        finally:
            self.open -= 1
            for task in (work, left):
                task.cancel()
            await asyncio.gather(work, left, return_exceptions=True)

    async def _generate(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        prompts, several = prompts_of(body)
        stream = bool(body.get("stream"))
        replies = [reply_to(self.script, prompt) for prompt in prompts]
        fault = replies[0].fault
        runs = [events_of(body, *each, incremental=self.incremental and stream) for each in zip(prompts, replies, strict=True)]
        if fault is not None and fault.after is None:
            await _happens(fault, writer)
        elif stream:
            writer.write(EVENT_STREAM)
            async for event in in_turn(runs):
                writer.write(_chunk(b"data: " + json.dumps(event).encode() + b"\n\n"))
            if fault is not None:
                await asyncio.sleep(replies[0].delay)
                await _happens(fault, writer)
            writer.write(_chunk(b"data: [DONE]\n\n") + END_OF_CHUNKS)
        else:
            answers = [[event async for event in run] for run in runs]
            if fault is not None:
                await _happens(replace(fault, after=None), writer)
            else:
                last = [said[-1] for said in answers]
                writer.write(_whole(200, "application/json", json.dumps(last if several else last[0]).encode()))


async def _happens(fault: Fault, writer: asyncio.StreamWriter) -> None:
    """What is sent when `fault` happens; all but Say never come back."""
    begun = fault.after is not None
    if isinstance(fault, Hang):
        await asyncio.Event().wait()
    if isinstance(fault, Drip):
        writer.write(_chunk(b"data: ") if begun else b"HTTP/1.1 200 OK\r\nx-slow: ")
        while True:
            writer.write(_chunk(b".") if begun else b".")
            await asyncio.sleep(0.02)
    if isinstance(fault, Flood):
        writer.write((b"" if begun else EVENT_STREAM) + _chunk(fault.head))
        while True:
            writer.write(_chunk(fault.data))
            await writer.drain()
    if isinstance(fault, Reset):
        linger = struct.pack("ii", 1, 0)  # close() then resets
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()
    if not isinstance(fault, Say):
        raise ConnectionResetError
    writer.write(_chunk(fault.data) if begun else _whole(fault.status, fault.content_type, fault.data))


def _whole(status: int, content_type: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status} -\r\ncontent-type: {content_type}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data) if data else b""


END_OF_CHUNKS = b"0\r\n\r\n"
"""Not a chunk of nothing: what comes behind it is no part of the answer, and spoils the connection for the next request."""


@pytest.fixture
def scripted() -> Iterator[ScriptedEngine]:
    """An engine that says what the test tells it to."""
    engine = ScriptedEngine().start()
    yield engine
    engine.stop()
