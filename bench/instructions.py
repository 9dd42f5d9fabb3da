"""How many instructions a whole answer takes: `python bench/instructions.py [--requests 320]`, some minutes. It needs valgrind (apt-get install it).

Seconds move with whatever else a machine does; instructions hardly do, so a change of a hundredth can be seen. The kernel's are not counted.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import uvloop
from processes import free_port, paced_engine, running
from whole import measure

AT_ONCE = 8

SLOWLY = {"PYTHONHASHSEED": "0", "UV_USE_IO_URING": "0", "GEMMA3N_MAX_BLOCK": "600"}
"""Valgrind takes some fifty times as long, and knows no io_uring."""


def counted(folder: Path, requests: int) -> float:
    """Instructions of our server in user space, for each of so many requests."""
    port, counts = free_port(), folder / "counts"
    command = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={counts}", sys.executable, str(Path(sys.executable).with_name("gemma3n"))]
    with paced_engine(tokens=4, rate=0) as engine:
        environ = SLOWLY | {"GEMMA3N_RUNTIME_URL": f"http://127.0.0.1:{engine}"}
        with running([*command, "serve", "--port", str(port)], f"http://127.0.0.1:{port}/health", environ, quiet=True, seconds=600) as process:
            uvloop.run(measure(port, requests // 4, AT_ONCE))
            subprocess.run(["callgrind_control", "--zero", str(process.pid)], check=True, capture_output=True)
            uvloop.run(measure(port, requests, AT_ONCE))
            subprocess.run(["callgrind_control", "--dump", str(process.pid)], check=True, capture_output=True)
        found = re.search(r"^(?:summary|totals): (\d+)", Path(f"{counts}.1").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) / (requests // AT_ONCE * AT_ONCE + 20)  # `measure` asks 20 times before it begins


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--requests", type=int, default=320)
    given = parser.parse_args()
    if shutil.which("callgrind_control") is None:
        sys.exit("valgrind is not installed: apt-get install valgrind")
    with tempfile.TemporaryDirectory() as room:
        print(f"{counted(Path(room), given.requests) / 1e6:.2f} million instructions a whole answer")
