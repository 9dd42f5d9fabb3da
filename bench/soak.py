"""Whether the server loses anything over many requests: `python bench/soak.py [--requests 100000] [--at-once 16] [--rounds 10] [--seed 7]`.

Serves the programs before a paced engine and asks for them in a mixture by chance: plain and streamed, text, pictures, recordings, mistakes, and
clients that leave in the middle. After a round to get warm, and after each of ROUNDS more, it waits until nothing is left to do and prints a line: MB
held (and resident, and with its decoders), open files, tasks, and generations that still run. Ends with 1 where memory has grown by 2 % or
more from the first lines to the last, or a file, a task or a generation is left.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import sys
import time
from collections import Counter
from statistics import median
from typing import Any

import aiohttp
import uvloop
from processes import HERE, free_port, paced_engine, running

MEDIA = HERE.parent / "tests" / "media"
MOST_GROWTH = 1.02
TOKENS = 8
PATIENCE = 30.0
SETTLES = 10.0
"""Seconds after which what was kept open for another request is closed."""

COUNTED = "/soak"
AT_EACH_END = 3
"""Lines whose median is the memory at the beginning, and at the end: a single one is off by some per cent, as the allocator has it."""


def picture(name: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": f"data:;base64,{base64.b64encode((MEDIA / name).read_bytes()).decode()}"}}


def talk(model: str, *content: dict[str, Any], **fields: Any) -> dict[str, Any]:
    parts = [*content, {"type": "text", "text": "What is this?"}]
    return {"model": model, "messages": [{"role": "user", "content": parts}]} | fields


SOUND = base64.b64encode((MEDIA / "314.mp3").read_bytes()).decode()
RED, BLUE = picture("red-circle.png"), picture("blue-square.jpg")
HEARD = {"type": "input_audio", "input_audio": {"data": SOUND, "format": "mp3"}}
CHAT = "/v1/chat/completions"
MIXTURE: list[tuple[int, str, dict[str, Any]]] = [
    (20, CHAT, talk("gemma-3n", stream=True)),
    (10, CHAT, talk("gemma-3n")),
    (4, CHAT, talk("gemma-3n", n=3, stream=True, stop=["zzz"])),
    (4, CHAT, talk("gemma-3n", response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}})),
    (6, "/v1/completions", {"model": "gemma-3n", "prompt": ["a", "b"]}),
    (6, "/v1/responses", {"model": "gemma-3n", "input": "Hello", "stream": True}),
    (6, CHAT, talk("gemma-3n", RED, stream=True)),
    (3, CHAT, talk("gemma-3n:vision", BLUE, reasoning_effort="high")),
    (3, CHAT, talk("gemma-3n:compare", RED, BLUE)),
    (3, CHAT, talk("gemma-3n:audio", HEARD, stream=True)),
    (2, CHAT, talk("gemma-3n:minutes", HEARD)),
    (2, CHAT, talk("gemma-3n", picture("cut-off.png"))),
    (2, CHAT, talk("nobody")),
    (2, CHAT, {"messages": 5}),
    (2, "/v1/audio/transcriptions", {}),
]
"""How often, where, and what; a transcription is a form with a file."""
LEAVES = 0.03
"""Share of the requests whose client leaves in the middle."""


async def ask(session: aiohttp.ClientSession, url: str, chance: random.Random, seen: Counter[int]) -> None:
    _, path, body = chance.choices(MIXTURE, [weight for weight, _, _ in MIXTURE])[0]
    if body:
        options: dict[str, Any] = {"json": body}
    else:
        form = aiohttp.FormData({"model": "gemma-3n"})
        form.add_field("file", (MEDIA / "20s.mp3").read_bytes(), filename="a.mp3")
        options = {"data": form}
    async with session.post(url + path, **options) as response:
        if chance.random() < LEAVES:
            await response.content.read(1)
            response.close()
        else:
            await response.read()
        seen[response.status] += 1


async def counted(session: aiohttp.ClientSession, url: str, engine: str) -> dict[str, Any]:
    """What the server holds, once it has nothing to do."""
    end = time.monotonic() + PATIENCE
    while True:
        await asyncio.sleep(SETTLES)
        async with session.get(url + COUNTED) as response:
            held: dict[str, Any] = await response.json()
        async with session.get(engine + "/stats") as response:
            held["generations"] = (await response.json(content_type=None))["open"]
        if not held["generations"] or time.monotonic() > end:
            return held


async def soak(url: str, engine: str, requests: int, rounds: int, at_once: int, seed: int) -> list[dict[str, Any]]:
    """`requests` in rounds, after one to get warm; what the server held after each."""
    chance, seen, lines = random.Random(seed), Counter[int](), []
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=at_once, keepalive_timeout=SETTLES / 4)) as session:
        for finished in range(rounds + 1):
            began, left = time.monotonic(), requests // rounds

            async def some() -> None:
                nonlocal left
                while left > 0:
                    left -= 1
                    await ask(session, url, chance, seen)

            await asyncio.gather(*(some() for _ in range(at_once)))
            seconds = time.monotonic() - began
            done = {"requests": finished * (requests // rounds), "a_second": round(requests / rounds / seconds)}
            held = await counted(session, url, engine) | done
            lines.append(held | {"statuses": dict(sorted(seen.items()))})
            print(json.dumps(lines[-1]), flush=True)
    return lines


def lost(lines: list[dict[str, Any]]) -> list[str]:
    """What the server has lost between the first line and the last; in so many words."""
    first, last = lines[0], lines[-1]
    wrong = [f"{name} left: {last[name] - first[name]}" for name in ("files", "tasks") if last[name] > first[name]]
    wrong += [f"generations left: {last['generations']}"] if last["generations"] else []
    count = min(AT_EACH_END, len(lines) // 2)
    before, after = (median(line["mb"] for line in some) for some in (lines[:count], lines[-count:]))
    grown = after / before
    wrong += [f"memory grown by {grown - 1:.1%}"] if grown >= MOST_GROWTH else []
    return wrong + [f"status {status}: {count}" for status, count in last["statuses"].items() if status >= 500]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=100_000)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=7)
    given = parser.parse_args()
    port = free_port()
    url, environ = f"http://127.0.0.1:{port}", {"PYTHONPATH": str(HERE.parent)}
    with paced_engine(TOKENS, 0, incremental=True) as engine:
        command = [sys.executable, "-P", str(HERE / "soak_server.py"), str(port), f"http://127.0.0.1:{engine}"]
        with running(command, f"{url}/health", environ):
            wrong = lost(uvloop.run(soak(url, f"http://127.0.0.1:{engine}", given.requests, given.rounds, given.at_once, given.seed)))
    print(*(wrong or ["nothing is lost"]), sep="\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
