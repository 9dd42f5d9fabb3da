"""What it costs to relay tokens: `make bench`, or

    python bench/relay.py [--streams 128] [--rounds 2] [--tokens 128] [--rate 50] [--peers VENV] [--limit 60]

Starts a paced engine and `gemma3n serve` before it on free loopback ports, opens STREAMS chat streams ROUNDS times over, with cumulative
and with incremental text, then does the same with a bare pass-through (and with sglang-router, where VENV has one). Prints one JSON line
each and a table. Ends with 1 when a stream of ours failed or a token cost more CPU than LIMIT µs.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from subprocess import Popen

import uvloop
from processes import HERE, free_port, gemma3n_serve, paced_engine, running
from stream_load import Result, load

COLUMNS = ("failed", "cpu_us_per_token", "ttft_p50_ms", "ttft_p99_ms", "itl_p50_ms", "itl_p99_ms", "rss_mb")


@contextmanager
def pass_through(engine: int) -> Iterator[tuple[int, Popen[bytes]]]:
    port = free_port()
    command = [sys.executable, str(HERE / "pass_through.py"), str(port), str(engine)]
    with running(command, f"http://127.0.0.1:{port}/health") as process:
        yield port, process


@contextmanager
def router(python: Path, engine: int) -> Iterator[tuple[int, Popen[bytes]]]:
    """sglang-router, a pass-through in Rust."""
    port = free_port()
    flags = {
        "host": "127.0.0.1",
        "port": port,
        "worker-urls": f"http://127.0.0.1:{engine}",
        "prometheus-port": free_port(),
        "log-level": "error",
    }
    command = [str(python), "-m", "sglang_router.launch_router", *(str(word) for name, value in flags.items() for word in (f"--{name}", value))]
    with running(command, f"http://127.0.0.1:{port}/readiness") as process:
        yield port, process


def measure(given: argparse.Namespace) -> dict[str, Result]:
    """Every relay in turn, each before an engine of its own and warm."""
    relays = {
        "gemma3n, cumulative": (gemma3n_serve, False),
        "gemma3n, incremental": (gemma3n_serve, True),
        "bare pass-through": (pass_through, True),
    }
    if given.peers:
        relays["sglang-router"] = (lambda engine: router(given.peers / "bin" / "python", engine), True)
    results = {}
    for name, (relay, incremental) in relays.items():
        with paced_engine(given.tokens, given.rate, incremental=incremental) as engine, relay(engine) as (port, process):
            uvloop.run(load(port, 1, 1))
            results[name] = uvloop.run(load(port, given.streams, given.streams * given.rounds, pid=process.pid))
            print(json.dumps({"relay": name} | asdict(results[name])), flush=True)
    return results


def table(results: dict[str, Result]) -> str:
    bare = results["bare pass-through"].cpu_us_per_token or math.nan
    lines = [f"{'':22}" + "".join(f"{name:>18}" for name in (*COLUMNS, "× bare"))]
    for name, result in results.items():
        values = [getattr(result, column) for column in COLUMNS] + [round((result.cpu_us_per_token or math.nan) / bare, 2)]
        lines.append(f"{name:22}" + "".join(f"{value:>18}" for value in values))
    return "\n".join(lines)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--streams", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--rate", type=float, default=50, help="tokens a second of each stream")
    parser.add_argument("--peers", type=Path, help="an environment with sglang-router 0.3.2")
    parser.add_argument("--limit", type=float, default=60, help="CPU µs a token may cost")
    given = parser.parse_args()
    results = measure(given)
    print(table(results))
    ours = [result for name, result in results.items() if name.startswith("gemma3n")]
    sys.exit(any(result.failed or (result.cpu_us_per_token or math.inf) > given.limit for result in ours))
