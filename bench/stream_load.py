"""Open many chat streams at once and tell what they saw, and what the server spent on them.

    python bench/stream_load.py PORT --streams 128 --requests 256 [--pid SERVER_PID] [--path PATH] [--model gemma-3n] [--key KEY]

Prints one JSON line. Counts the words of paced_engine.py, which begin with "tok". With --pid, the CPU time and memory of that process and its
children: CPU µs per relayed token is the figure to compare, because it hardly depends on how busy the machine is. Loopback only.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace

import psutil
import uvloop


@dataclass
class Seen:
    """What the clients saw. Times in s."""

    first: list[float] = field(default_factory=list)
    between: list[float] = field(default_factory=list)
    tokens: int = 0
    failed: int = 0


@dataclass(frozen=True)
class Result:
    """One load, told. Times in ms, memory in MB at most; the last three only where the server's process is known."""

    streams: int
    requests: int
    failed: int
    tokens: int
    tokens_s: int
    ttft_p50_ms: float
    ttft_p99_ms: float
    itl_p50_ms: float
    itl_p99_ms: float
    cpu_us_per_token: float | None = None
    rss_mb: int | None = None
    kb_a_stream: int | None = None


def family(pid: int) -> list[psutil.Process]:
    process = psutil.Process(pid)
    return [process, *process.children(recursive=True)]


def cpu_seconds(pid: int) -> float:
    """Of a process and its children: in Linux to the nanosecond, by the clock of each (clock_getcpuclockid(3)); elsewhere in steps of 10 ms."""
    if sys.platform == "linux":
        return sum(time.clock_gettime((~process.pid << 3) | 2) for process in family(pid))
    return sum(times.user + times.system for times in (process.cpu_times() for process in family(pid)))


def memory(pid: int) -> int:
    """Bytes resident."""
    return sum(process.memory_info().rss for process in family(pid))


def resident_mb(pid: int) -> int:
    return round(memory(pid) / 2**20)


def request(port: int, path: str, model: str, key: str) -> bytes:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hello there"}], "stream": True}).encode()
    headers = {"host": f"127.0.0.1:{port}", "content-type": "application/json", "authorization": f"Bearer {key}", "content-length": len(body)}
    head = f"POST {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return head.encode() + b"\r\n" + body


async def one(port: int, asked: bytes, seen: Seen) -> None:
    """One stream, from connecting to its end. Words that arrive together count as one interval."""
    start = previous = time.perf_counter()
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**22)
    writer.write(asked)
    done = whole = begun = False
    while not done and (data := await reader.read(2**18)):
        now = time.perf_counter()
        whole = whole or b"[DONE]" in data or b'"finish_reason":"length"' in data
        done = b"[DONE]" in data or data.endswith(b"0\r\n\r\n")  # Hayhooks says no [DONE]
        if count := data.count(b"tok"):
            (seen.between if begun else seen.first).append(now - previous if begun else now - start)
            seen.tokens += count
            begun, previous = True, now
    writer.close()
    seen.failed += not (whole and begun)


async def load(
    port: int,
    streams: int,
    requests: int,
    *,
    pid: int | None = None,
    path: str = "/v1/chat/completions",
    model: str = "gemma-3n",
    key: str = "none",
    seconds: float = 90,
) -> Result:
    """`requests` streams, `streams` of them at a time. What is not done after `seconds` has failed."""
    seen, gate, asked = Seen(), asyncio.Semaphore(streams), request(port, path, model, key)

    async def gated() -> None:
        async with gate:
            try:
                await one(port, asked, seen)
            except OSError:
                seen.failed += 1

    spent, idle, start = cpu_seconds(pid) if pid else 0, memory(pid) if pid else 0, time.perf_counter()
    watching = asyncio.create_task(most_memory(pid)) if pid else None
    _, late = await asyncio.wait([asyncio.create_task(gated()) for _ in range(requests)], timeout=seconds)
    wall = time.perf_counter() - start
    seen.failed += len(late)
    for task in late:
        task.cancel()
    times = [at(values, share) for values in (seen.first, seen.between) for share in (0.5, 0.99)]
    told = Result(streams, requests, seen.failed, seen.tokens, round(seen.tokens / wall), *times)
    if not pid or not watching:
        return told
    watching.cancel()
    most = max(memory(pid), *await watching)
    cost = round((cpu_seconds(pid) - spent) / max(seen.tokens, 1) * 1e6, 1)
    return replace(told, cpu_us_per_token=cost, rss_mb=round(most / 2**20), kb_a_stream=round((most - idle) / 1000 / streams))


async def most_memory(pid: int) -> list[int]:
    """What the process holds, in bytes, looked at twice a second until this is cancelled."""
    seen = [memory(pid)]
    with suppress(asyncio.CancelledError):
        while True:
            seen.append(memory(pid))
            await asyncio.sleep(0.5)
    return seen


def at(values: list[float], share: float) -> float:
    """The value below which `share` of them lie, in ms."""
    return round(sorted(values)[min(len(values) - 1, int(len(values) * share))] * 1000, 2) if values else float("nan")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("port", type=int)
    parser.add_argument("--streams", type=int, default=128)
    parser.add_argument("--requests", type=int, default=256)
    parser.add_argument("--pid", type=int)
    parser.add_argument("--path", default="/v1/chat/completions")
    parser.add_argument("--model", default="gemma-3n")
    parser.add_argument("--key", default="none")
    given = vars(parser.parse_args())
    print(json.dumps(asdict(uvloop.run(load(given.pop("port"), given.pop("streams"), given.pop("requests"), **given)))))
