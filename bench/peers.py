"""Ours beside its peers, in one run: `python bench/peers.py [--streams 1,32,128,512,2000] [--only gemma3n,sglang-router] [--write]`

sglang-router, SGLang's own frontend behind Starlette, Hayhooks, LiteLLM's proxy and a bare pass-through, each before a paced engine of its own,
with 1 to 2,000 streams at once. Prints one JSON line each. With --write, the table and the plot in docs/performance.md are made anew from them,
with the machine and the date. Peers are installed into environments of their own under build/peers. Takes some ten minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import time
from dataclasses import asdict

import uvloop
from plot import plot
from processes import HERE, paced_engine
from relays import RELAYS
from stream_load import Result, load

DOCS = HERE.parent / "docs"
BEGIN, END = "<!-- peers: written by bench/peers.py -->\n", "<!-- /peers -->\n"
HEAD = ("streams", "", "failed", "CPU a token", "first token p50 / p99", "between tokens p50 / p99", "resident", "a stream")

Results = dict[int, dict[str, Result]]


def pace(streams: int) -> tuple[int, float]:
    """Tokens of each stream, and tokens a second: 2,000 streams come as slowly as people read."""
    return (30, 10) if streams > 1000 else (128, 50)


def measure(name: str, streams: int) -> Result:
    relay, incremental = RELAYS[name]
    tokens, rate = pace(streams)
    with paced_engine(tokens, rate, incremental=incremental) as engine, relay(engine) as (port, process):
        uvloop.run(load(port, 1, 1))
        return uvloop.run(load(port, streams, max(streams, 4), pid=process.pid))


def table(results: Results) -> str:
    lines = ["| " + " | ".join(HEAD) + " |", "|" + " --- |" * len(HEAD)]
    for streams, each in results.items():
        for name, told in each.items():
            first, between = f"{told.ttft_p50_ms:.0f} / {told.ttft_p99_ms:.0f} ms", f"{told.itl_p50_ms:.0f} / {told.itl_p99_ms:.0f} ms"
            held = f"{told.kb_a_stream} kB" if streams >= 128 else ""
            cells = [f"{streams:,}", name, f"{told.failed:,}", f"{told.cpu_us_per_token:.0f} µs", first, between, f"{told.rss_mb} MB", held]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def machine() -> str:
    return f"{os.cpu_count()} cores, {platform.system()}, Python {platform.python_version()}, {time.strftime('%d %B %Y', time.gmtime())}"


def write(results: Results) -> None:
    """Put the table between its marks in docs/performance.md, and the plot beside it."""
    page = DOCS / "performance.md"
    before, _, rest = page.read_text().partition(BEGIN)
    after = rest.partition(END)[2]
    page.write_text(f"{before}{BEGIN}On {machine()}:\n\n{table(results)}\n\n![CPU a relayed token](performance.svg)\n{END}{after}")
    names = list(RELAYS)
    costs = {name: [(streams, each[name].cpu_us_per_token or 0) for streams, each in results.items() if name in each] for name in names}
    (DOCS / "performance.svg").write_text(plot("CPU a relayed token, µs, by streams at once", costs))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--streams", default="1,32,128,512,2000")
    parser.add_argument("--only", default="", help="how the names of those begin that are measured; all, if it is not given")
    parser.add_argument("--write", action="store_true")
    given = parser.parse_args()
    results: Results = {}
    for streams in map(int, given.streams.split(",")):
        for name in RELAYS:
            if not name.startswith(tuple(given.only.split(","))):
                continue
            told = results.setdefault(streams, {})[name] = measure(name, streams)
            print(json.dumps({"relay": name} | asdict(told)), flush=True)
    if given.write:
        write(results)
