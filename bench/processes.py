"""Processes to be measured: started, waited for, ended. All listen on loopback only."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path

HERE = Path(__file__).parent


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        return listener.getsockname()[1]


def answers(url: str) -> bool:
    """Whether a GET of `url` is answered with 200 now."""
    with suppress(OSError), urllib.request.urlopen(url, timeout=2) as response:
        return response.status == 200
    return False


def wait_for(url: str, process: subprocess.Popen[bytes], seconds: float = 60) -> None:
    """Until `url` answers; RuntimeError when the process ends before, or the time is up."""
    end = time.monotonic() + seconds
    while not answers(url):
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"{process.args!r} does not answer at {url}")
        time.sleep(0.01)


@contextmanager
def running(
    command: Sequence[str], ready: str, environ: dict[str, str] | None = None, *, quiet: bool = False, seconds: float = 60
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that answers at `ready` within `seconds`, until the block ends. What it writes is dropped, but for errors; these too if `quiet`."""
    stderr = subprocess.DEVNULL if quiet else None
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr, env=os.environ | (environ or {}))
    try:
        wait_for(ready, process, seconds)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def paced_engine(tokens: int, rate: float, *, incremental: bool = False) -> Iterator[int]:
    """The port of a paced engine."""
    port = free_port()
    command = [sys.executable, str(HERE / "paced_engine.py"), "--port", str(port), "--tokens", str(tokens), "--rate", str(rate)]
    with running(command + ["--incremental"] * incremental, f"http://127.0.0.1:{port}/stats"):
        yield port


@contextmanager
def gemma3n_serve(engine: int, ready: str = "/health") -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """The port and the process of `gemma3n serve` before the engine at a port, from when it answers at `ready`."""
    port = free_port()
    command = [str(Path(sys.executable).with_name("gemma3n")), "serve", "--port", str(port)]
    environ = {"GEMMA3N_RUNTIME_URL": f"http://127.0.0.1:{engine}", "GEMMA3N_MAX_RUNS": "4096", "GEMMA3N_MAX_RUNS_PER_KEY": "4096"}
    with running(command, f"http://127.0.0.1:{port}{ready}", environ, quiet=True) as process:  # its log is written, as it costs something
        yield port, process
