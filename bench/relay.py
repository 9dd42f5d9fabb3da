"""What it costs to relay tokens: `make bench`, or

    python bench/relay.py [--streams 128] [--rounds 2] [--tokens 128] [--rate 50] [--limit 60] [--ratio 1.5]

Starts a paced engine and `gemma3n serve` before it on free loopback ports, opens STREAMS chat streams ROUNDS times over, with cumulative
and with incremental text, then does the same with a bare pass-through. Prints one JSON line each and a table. Ends with 1 when a stream of ours
failed, or a token cost more CPU than LIMIT µs or RATIO times the pass-through's. `make bench-check` asks for the ratio alone, as it hardly depends
on the machine. bench/peers.py sets others beside it.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from dataclasses import asdict

import uvloop
from processes import paced_engine
from relays import RELAYS
from stream_load import Result, load

BARE = "bare pass-through"
MEASURED = ("gemma3n, cumulative", "gemma3n, incremental", BARE)
COLUMNS = ("failed", "cpu_us_per_token", "ttft_p50_ms", "ttft_p99_ms", "itl_p50_ms", "itl_p99_ms", "rss_mb")


def measure(given: argparse.Namespace) -> dict[str, Result]:
    """Every relay in turn, each before an engine of its own and warm."""
    results = {}
    for name in MEASURED:
        relay, incremental = RELAYS[name]
        with paced_engine(given.tokens, given.rate, incremental=incremental) as engine, relay(engine) as (port, process):
            uvloop.run(load(port, 1, 1))
            results[name] = uvloop.run(load(port, given.streams, given.streams * given.rounds, pid=process.pid))
            print(json.dumps({"relay": name} | asdict(results[name])), flush=True)
    return results


def cost(result: Result) -> float:
    return result.cpu_us_per_token or math.inf


def table(results: dict[str, Result]) -> str:
    lines = [f"{'':22}" + "".join(f"{name:>18}" for name in (*COLUMNS, "× bare"))]
    for name, result in results.items():
        values = [getattr(result, column) for column in COLUMNS] + [round(cost(result) / cost(results[BARE]), 2)]
        lines.append(f"{name:22}" + "".join(f"{value:>18}" for value in values))
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--streams", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rate", type=float, default=50, help="tokens a second of each stream")
    parser.add_argument("--limit", type=float, default=60, help="CPU µs a token may cost")
    parser.add_argument("--ratio", type=float, default=1.5, help="how many times the pass-through's CPU a token may cost")
    given = parser.parse_args()
    results = measure(given)
    print(table(results))
    ours = [result for name, result in results.items() if name != BARE]
    most = min(given.limit, given.ratio * cost(results[BARE]))
    sys.exit(any(result.failed or cost(result) > most for result in ours))
