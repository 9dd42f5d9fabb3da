"""Whether a long answer costs more per token than a short one: `python bench/length.py [--rounds 1]`

Streams of 100 and of 4,000 tokens in turn, as many tokens in all, before paced engines whose text is cumulative or incremental. Prints one JSON line
each, and what a token of the long answer costs as a multiple of the short one's, where each request's own cost is spread over its tokens. Ends
with 1 where a stream failed, or a token of a long answer costs more than 1.2 × a short one's.
"""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from dataclasses import asdict
from statistics import median

import uvloop
from processes import gemma3n_serve, paced_engine
from stream_load import Result, load

SHORT, LONG = 100, 4000
STREAMS = 4
MOST = 1.2


def ratio(incremental: bool, rounds: int, rate: float) -> tuple[float, int]:
    """The long answers' cost of a token over the short ones', the median of `rounds`; and how many streams failed."""
    ratios, failed = [], 0
    with ExitStack() as stack:
        relays = []
        for tokens in (SHORT, LONG):
            engine = stack.enter_context(paced_engine(tokens, rate, incremental=incremental))
            relays.append((tokens, *stack.enter_context(gemma3n_serve(engine))))
            uvloop.run(load(relays[-1][1], 1, 1))
        for _ in range(rounds):
            told: dict[int, Result] = {}
            for tokens, port, process in relays:
                told[tokens] = uvloop.run(load(port, STREAMS, STREAMS * LONG // tokens, pid=process.pid, seconds=300))
                print(json.dumps({"tokens_each": tokens, "incremental": incremental} | asdict(told[tokens])), flush=True)
            failed += sum(result.failed for result in told.values())
            ratios.append((told[LONG].cpu_us_per_token or 0) / (told[SHORT].cpu_us_per_token or 1))
    return median(ratios), failed


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rate", type=float, default=250, help="tokens a second of each stream")
    given = parser.parse_args()
    bad = False
    for incremental in (False, True):
        long, failed = ratio(incremental, given.rounds, given.rate)
        print(json.dumps({"incremental": incremental, "long_over_short": round(long, 2), "failed": failed}), flush=True)
        bad = bad or failed > 0 or long > MOST
    sys.exit(bad)
