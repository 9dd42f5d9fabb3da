"""What our server costs before anybody asks it: `python bench/idle.py [--starts 3]`.

Starts `gemma3n serve` before a paced engine. Prints one JSON line of medians: seconds until /livez and until /health answer with 200, MB resident
after 2 s without work, and seconds to import gemma3n_sgl in a fresh interpreter. Ends with 1 from 3 s or above 150 MB.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from statistics import median

from processes import gemma3n_serve, paced_engine, wait_for
from stream_load import resident_mb

MOST_SECONDS = 3
MOST_MB = 150
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


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--starts", type=int, default=3)
    starts = parser.parse_args().starts
    with paced_engine(tokens=1, rate=0) as engine:
        alive, healthy, resident = (median(values) for values in zip(*(one_start(engine) for _ in range(starts)), strict=True))
    imported = median(import_seconds() for _ in range(starts))
    print(json.dumps({"livez_s": round(alive, 2), "health_s": round(healthy, 2), "idle_rss_mb": resident, "import_s": round(imported, 2)}))
    sys.exit(healthy >= MOST_SECONDS or resident > MOST_MB)
