"""What our server costs before anybody asks it: `python bench/idle.py [--starts 3]`.

Starts `gemma3n serve` before a paced engine. Prints one JSON line of medians: seconds until /livez and until /health answer with 200, MB resident
after 2 s without work, and in fresh processes the seconds to import gemma3n_sgl, of `gemma3n --help`, and of `gemma3n run` until it has sent its
engine a first byte. Ends with 1 from 3 s or above 150 MB.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from processes import gemma3n_serve, paced_engine, wait_for
from stream_load import resident_mb

MOST_SECONDS = 3
MOST_MB = 150
GEMMA3N = str(Path(sys.executable).with_name("gemma3n"))
IMPORT = "import time; start = time.perf_counter(); import gemma3n_sgl; print(time.perf_counter() - start)"


def one_start(engine: int) -> tuple[float, float, int]:
    """Seconds until /livez and until /health answer, and MB when idle."""
    start = time.perf_counter()
    with gemma3n_serve(engine, ready="/livez") as (port, process):
        alive = time.perf_counter() - start
        wait_for(f"http://127.0.0.1:{port}/health", process)
        healthy = time.perf_counter() - start
        time.sleep(2)
        return alive, healthy, resident_mb(process.pid)


def import_seconds() -> float:
    return float(subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, check=True, text=True).stdout)


def help_seconds() -> float:
    start = time.perf_counter()
    subprocess.run([GEMMA3N, "--help"], capture_output=True, check=True)
    return time.perf_counter() - start


def first_byte_seconds() -> float:
    """Of a prompt at the command line, until it asks the engine anything."""
    with socket.create_server(("127.0.0.1", 0)) as engine:
        engine.settimeout(MOST_SECONDS * 10)
        url = f"http://127.0.0.1:{engine.getsockname()[1]}"
        start = time.perf_counter()
        words = [GEMMA3N, "run", "chat", "Hello!", "--runtime-url", url]
        with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            with engine.accept()[0] as asked:
                asked.recv(1)
                seconds = time.perf_counter() - start
            process.kill()
        return seconds


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--starts", type=int, default=3)
    starts = parser.parse_args().starts
    with paced_engine(tokens=1, rate=0) as engine:
        alive, healthy, resident = (median(values) for values in zip(*(one_start(engine) for _ in range(starts)), strict=True))
    told = {"livez_s": alive, "health_s": healthy, "idle_rss_mb": resident}
    for name, seconds in {"import_s": import_seconds, "help_s": help_seconds, "run_first_byte_s": first_byte_seconds}.items():
        told[name] = median(seconds() for _ in range(starts))
    print(json.dumps({name: round(value, 2) for name, value in told.items()}))
    sys.exit(healthy >= MOST_SECONDS or resident > MOST_MB)
