"""What an engine consists of, and the commands that install it, as data."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

from gemma3n_sgl.engine.choice import SGLANG_VERSION, Device
from gemma3n_sgl.engine.launch import CPU_MENDS, python

REQUIREMENTS = CPU_MENDS / "requirements.txt"
SPACE_GB = {"cpu": 4, "gpu": 15}
"""Free space an installation takes at least, in GB, without a model's weights. Measured on the CPU: 2.8 GB stay and 1 more passes through; 5.5
stay where torch is the CUDA build. On a GPU, CUDA's libraries are most of it."""

CPU_TORCH_INDEX = "https://download.pytorch.org/whl/cpu"


@dataclass(frozen=True)
class Step:
    title: str
    command: list[str]


def steps(device: Device, venv: Path, index_url: str | None = None, torch_index: str | None = None) -> list[Step]:
    """What is run, one after the other.

    `index_url` is the package index, `torch_index` another one for torch alone: PyPI has torch as its CUDA build, which runs on a CPU too
    but is 3 GB larger than the one at `CPU_TORCH_INDEX`.
    """
    pip = [str(python(venv)), "-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar", "off"]
    index = ["--index-url", index_url] if index_url else []
    of_torch = ["--index-url", torch_index] if torch_index else index
    make = Step("Making a Python environment", [sys.executable, "-m", "venv", str(venv.absolute())])
    if device == "gpu":
        others = ["--extra-index-url", torch_index] if torch_index else []
        sglang = f"sglang=={SGLANG_VERSION}"
        return [make, Step(f"Installing SGLang {SGLANG_VERSION} with its CUDA kernels", [*pip, sglang, *index, *others])]
    pins = REQUIREMENTS.read_text().splitlines()
    torch = next(line for line in pins if line.startswith("torch=="))
    return [
        make,
        Step(f"Installing {torch.replace('==', ' ')}", [*pip, "--no-deps", torch, *of_torch]),
        Step(f"Installing SGLang {SGLANG_VERSION} for the CPU", [*pip, "--no-deps", "--requirement", str(REQUIREMENTS), *index]),
        Step("Completing torch with what its build needs", [*pip, torch, *of_torch]),
    ]


def fingerprint(device: Device) -> str:
    """Of all that decides what is installed: the device, the Python, the packages."""
    packages = REQUIREMENTS.read_text() if device == "cpu" else SGLANG_VERSION
    text = f"{device} {sys.version_info[0]}.{sys.version_info[1]}\n{packages}"
    return hashlib.sha256(text.encode()).hexdigest()
