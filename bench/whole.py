"""How many whole answers our server gives in a second: `python bench/whole.py [--requests 3000] [--at-once 32]`

Before an engine that answers at once, clients ask for completions that are not streamed, each on one connection that it keeps. Prints one JSON line:
requests a second, and milliseconds of an answer, p50 and p99. Ends with 1 where one failed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time

import uvloop
from processes import gemma3n_serve, paced_engine
from stream_load import at

BODY = json.dumps({"model": "gemma-3n", "messages": [{"role": "user", "content": "hello there"}]}).encode()
ASKED = b"POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(BODY), BODY)


async def client(port: int, requests: int, times: list[float]) -> None:
    """So many requests one after the other; those that are answered as they should be add their seconds to `times`."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(requests):
        start = time.perf_counter()
        writer.write(ASKED)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
        answer = json.loads(await reader.readexactly(length))
        if answer.get("choices"):
            times.append(time.perf_counter() - start)
    writer.close()


async def measure(port: int, requests: int, at_once: int) -> dict[str, float]:
    await client(port, 20, [])
    times: list[float] = []
    start = time.perf_counter()
    await asyncio.gather(*(client(port, requests // at_once, times) for _ in range(at_once)))
    wall = time.perf_counter() - start
    failed = requests // at_once * at_once - len(times)
    return {"requests_s": round(len(times) / wall), "p50_ms": at(times, 0.5), "p99_ms": at(times, 0.99), "failed": failed}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--at-once", type=int, default=32)
    given = parser.parse_args()
    with paced_engine(tokens=4, rate=0) as engine, gemma3n_serve(engine) as (port, _):
        figures = uvloop.run(measure(port, given.requests, given.at_once))
    print(json.dumps(figures))
    sys.exit(figures["failed"] > 0)
