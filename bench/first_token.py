"""How much later a first token comes through our server than from its engine: `python bench/first_token.py [--streams 32] [--requests 640]`

Streams of 64 tokens at 50 a second, so many going on at once, each client beginning its next where its last has ended and the first ones spread
over such a stream's time: a server in use, where `peers.py` lets all come at one moment. Asked are the paced engine itself, our server and a bare
pass-through before it, in turn. Prints one JSON line each: milliseconds to the first token, p50 and p99, and what they are over the engine's.
Ends with 1 where a stream failed, or ours are over the limits: `--p50 3 --p99 10`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from contextlib import nullcontext

import uvloop
from processes import gemma3n_serve, paced_engine
from relays import pass_through
from stream_load import Seen, at, one, request

TOKENS, RATE = 64, 50


async def client(begin: float, asked: bytes, port: int, requests: int, seen: Seen) -> None:
    await asyncio.sleep(begin)
    for _ in range(requests):
        await one(port, asked, seen)


async def used(port: int, streams: int, requests: int) -> Seen:
    """What clients of a server in use see."""
    asked, seen, chance = request(port, "/v1/chat/completions", "gemma-3n", "none"), Seen(), random.Random(1)
    await one(port, asked, Seen())
    begins = [chance.uniform(0, TOKENS / RATE) for _ in range(streams)]
    await asyncio.gather(*(client(begin, asked, port, requests // streams, seen) for begin in begins))
    return seen


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--requests", type=int, default=640)
    parser.add_argument("--p50", type=float, default=3, help="ms over the engine's own")
    parser.add_argument("--p99", type=float, default=10, help="ms over the engine's own")
    given = parser.parse_args()
    wrong, own = False, (0.0, 0.0)
    with paced_engine(TOKENS, RATE) as engine:
        asked = {"engine": nullcontext((engine, None)), "gemma3n": gemma3n_serve(engine), "bare pass-through": pass_through(engine)}
        for name, before in asked.items():
            with before as (port, _):
                seen = uvloop.run(used(port, given.streams, given.requests))
            p50, p99 = at(seen.first, 0.5), at(seen.first, 0.99)
            own = (p50, p99) if name == "engine" else own
            over = {"over_p50_ms": round(p50 - own[0], 2), "over_p99_ms": round(p99 - own[1], 2)}
            print(json.dumps({"asked": name, "streams": len(seen.first), "failed": seen.failed, "p50_ms": p50, "p99_ms": p99} | over), flush=True)
            wrong |= bool(seen.failed) or (name == "gemma3n" and (over["over_p50_ms"] > given.p50 or over["over_p99_ms"] > given.p99))
    sys.exit(wrong)
