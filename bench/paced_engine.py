"""A paced stand-in for an SGLang engine, to measure what stands in front of it: a yardstick, not a model. It never reads the prompt.

    python bench/paced_engine.py --tokens 128 --rate 50 [--port PORT] [--incremental]

Every stream gives TOKENS words at RATE tokens a second (0: as fast as it can), with cumulative text unless --incremental, each event in a packet of
its own, as from SGLang 0.5.23. Serves /generate, what else our endpoint asks for, and /v1/chat/completions for relays that only pass bytes on. Prints
its port once it listens; /stats tells streams open now and at most, streams cut by the client, requests and connections.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from typing import Any

import httptools
import uvloop

INFO = {"model_path": "paced", "served_model_name": "paced", "is_generation": True, "preferred_sampling_params": None}
CHUNK = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "paced"}
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
DONE = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


def frame(value: dict[str, Any]) -> bytes:
    """One server-sent event in one HTTP chunk."""
    data = b"data: " + json.dumps(value).encode() + b"\n\n"
    return b"%x\r\n%b\r\n" % (len(data), data)


def native(words: list[str], incremental: bool) -> list[bytes]:
    """The events of one generation in SGLang's own form."""
    events = []
    for i in range(1, len(words) + 1):
        first = i - 1 if incremental else 0
        finish = {"type": "length", "length": i} if i == len(words) else None
        meta = {"id": "x", "finish_reason": finish, "prompt_tokens": 12, "completion_tokens": i, "cached_tokens": 0, "weight_version": "default"}
        events.append(frame({"text": "".join(words[first:i]), "output_ids": [1] * (i - first), "meta_info": meta}))
    return events


def openai(words: list[str]) -> list[bytes]:
    """The same generation as chunks of a chat completion."""
    said = [frame(CHUNK | {"choices": [{"index": 0, "delta": {"content": word}, "finish_reason": None}]}) for word in words]
    return [*said, frame(CHUNK | {"choices": [{"index": 0, "delta": {}, "finish_reason": "length"}]})]


class Engine:
    """What all connections share: the frames to send, made once, and the counts."""

    def __init__(self, tokens: int, rate: float, incremental: bool) -> None:
        words = [f"tok{i % 97} " for i in range(tokens)]
        self.rate = rate
        self.frames = {b"/generate": native(words, incremental), b"/v1/chat/completions": openai(words)}
        self.stats = {"open": 0, "peak_open": 0, "cut": 0, "requests": 0, "connections": 0}


class Connection(asyncio.Protocol):
    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.task: asyncio.Task[None] | None = None
        self.url = b""

    def connection_made(self, transport: Any) -> None:
        self.transport, self.parser = transport, httptools.HttpRequestParser(self)
        self.engine.stats["connections"] += 1

    def data_received(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self.transport.close()  # a relay that tries HTTP/2 first

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_message_complete(self) -> None:
        if frames := self.engine.frames.get(self.url):
            self.engine.stats["requests"] += 1
            self.task = asyncio.ensure_future(self.stream(frames))
        else:
            body = json.dumps(self.engine.stats if self.url == b"/stats" else INFO).encode()
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

    def connection_lost(self, error: Exception | None) -> None:
        if self.task and not self.task.done():
            self.task.cancel()
            self.engine.stats["cut"] += 1

    async def stream(self, frames: list[bytes]) -> None:
        stats, rate, loop = self.engine.stats, self.engine.rate, asyncio.get_running_loop()
        stats["open"] += 1
        stats["peak_open"] = max(stats["peak_open"], stats["open"])
        try:
            self.transport.write(STREAM)
            start = loop.time()
            for i, data in enumerate(frames, 1):
                await asyncio.sleep(max(start + i / rate - loop.time(), 0) if rate else 0)
                self.transport.write(data)
            self.transport.write(DONE)
        finally:
            stats["open"] -= 1


async def serve(engine: Engine, port: int) -> None:
    server = await asyncio.get_running_loop().create_server(lambda: Connection(engine), "127.0.0.1", port, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--incremental", action="store_true")
    given = parser.parse_args()
    uvloop.run(serve(Engine(given.tokens, given.rate, given.incremental), given.port))
