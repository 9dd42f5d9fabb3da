"""Make the demo model anew, from data by rule to the files that ship: `make demo-model`, or `python -m demo_model [FOLDER]`.

It needs espeak-ng (Debian: `apt-get install espeak-ng`) and the fonts of fonts-dejavu, fonts-liberation and fonts-freefont-ttf, and two hours
of two cores that multiply bfloat16 themselves. What it works on stays in FOLDER (build/demo-model, 7 GB), and a stage whose result is there is
not run again.

The model that ships came from these stages, the last of them taken up several times (its card tells); `--further` takes it up once more, in an
hour. What comes out here is better only where `evaluate` and the tests say so, LangChain's agents among them.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "gemma3n_sgl" / "engine" / "demo"

KEEPS_MEMORY = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184:glibc.malloc.top_pad=268435456:glibc.malloc.hugetlb=1"
"""Memory once had is not given back between steps: getting it again took half of the time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="build/demo-model, or with --quick build/demo-model-quick")
    parser.add_argument("--quick", action="store_true", help="a handful of steps of each stage, to see that all of it works; nothing is shipped")
    parser.add_argument("--further", action="store_true", help="the last stage alone, from the model that ships: what the talks have new")
    wanted = parser.parse_args()
    if shutil.which("espeak-ng") is None:
        sys.exit("espeak-ng is not installed: apt-get install espeak-ng fonts-dejavu fonts-liberation fonts-freefont-ttf")
    folder = wanted.folder or ROOT / "build" / ("demo-model-quick" if wanted.quick else "demo-model")
    make(folder.absolute(), quick=wanted.quick, further=wanted.further)


def make(folder: Path, *, quick: bool, further: bool = False) -> None:
    """All stages, those of eyes and ears side by side; `further` takes eyes, ears and what has been learnt to say from the model that ships."""
    data, runs = folder / "data", folder / ("runs-further" if further else "runs")
    runs.mkdir(parents=True, exist_ok=True)
    if not (data / "seen-train.pkl").exists():
        few = ["--pictures", "300", "--clips", "300", "--held-out", "60"] if quick else []
        _finish(_begin("render", str(data), *few))
    if further and not (runs / "senses").exists():
        _finish(_begin("export", str(runs), str(SHIPPED), "--back"))
        (runs / "senses").touch()
    if not (runs / "senses").exists():
        hear = _begin("towers", "hear", *_of(data, runs, 3300, 3250, quick))
        _finish(_begin("towers", "see", *_of(data, runs, 3400, 2250, quick)))
        _finish(_begin("towers", "see", *_of(data, runs, 3000, 2000, quick), "--again", "--rate", "1.5e-3"))
        _finish(hear)
        (runs / "senses").touch()
    if not (runs / "talked").exists():
        how = ["--again", "--rate", "1e-3", "--steps", "4" if quick else "2000"] if further else ["--steps", "4" if quick else "6000"]
        _finish(_begin("speaking", str(data), str(runs), *how))
        (runs / "talked").touch()
    if not quick:
        _finish(_begin("export", str(runs), str(SHIPPED)))
        seal(SHIPPED)


def seal(folder: Path) -> None:
    """Write the checksums of the model's files."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name not in ("README.md", "SHA256SUMS"))
    sums = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (folder / "SHA256SUMS").write_text("".join(sums))


def _of(data: Path, runs: Path, steps: int, until: int, quick: bool) -> list[str]:
    return [str(data), str(runs), "--steps", "4" if quick else str(steps), "--until", "4" if quick else str(until)]


def _begin(module: str, *words: str) -> subprocess.Popen[bytes]:
    path = f"{ROOT / 'tools'}{os.pathsep}{ROOT / 'gemma3n_sgl' / 'engine' / 'cpu'}"
    env = os.environ | {"PYTHONPATH": path, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive", "GLIBC_TUNABLES": KEEPS_MEMORY}
    return subprocess.Popen([sys.executable, "-m", f"demo_model.{module}", *words], env=env)


def _finish(process: subprocess.Popen[bytes]) -> None:
    if process.wait():
        sys.exit("a stage has failed: what it said is above")


if __name__ == "__main__":
    main()
