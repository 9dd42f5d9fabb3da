"""What is installed for which device, and from which index."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from gemma3n_sgl.engine.packages import REQUIREMENTS, fingerprint, steps

VENV = Path("/srv/.venv-engine")


def test_every_package_of_the_cpu_engine_has_one_version() -> None:
    lines = [line for line in REQUIREMENTS.read_text().splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9a-z.]*", line) for line in lines)
    assert {"sglang==0.5.23", "torch==2.13.0"} <= set(lines)


def test_the_cpu_gets_sglang_without_its_cuda_kernels() -> None:
    make, torch, sglang, complete = steps("cpu", VENV)
    assert make.command == [sys.executable, "-m", "venv", "/srv/.venv-engine"]
    assert {"--no-deps", "torch==2.13.0"} <= set(torch.command)
    assert {"--no-deps", str(REQUIREMENTS)} <= set(sglang.command)
    assert "--no-deps" not in complete.command
    assert not any("index" in word for step in (torch, sglang, complete) for word in step.command)


def test_the_gpu_gets_sglang_as_it_is() -> None:
    _, sglang = steps("gpu", VENV)
    assert sglang.command[1:4] == ["-m", "pip", "install"]
    assert sglang.command[-1] == "sglang==0.5.23"
    assert "--no-deps" not in sglang.command


def index(command: list[str]) -> str | None:
    return command[command.index("--index-url") + 1] if "--index-url" in command else None


def test_torch_may_have_an_index_of_its_own() -> None:
    cpu = "https://download.pytorch.org/whl/cpu"
    assert [index(step.command) for step in steps("cpu", VENV, torch_index=cpu)] == [None, cpu, None, cpu]
    assert [index(step.command) for step in steps("cpu", VENV, "https://mirror", cpu)] == [None, cpu, "https://mirror", cpu]
    assert [index(step.command) for step in steps("cpu", VENV, "https://mirror")] == [None, *["https://mirror"] * 3]
    assert "--extra-index-url" in steps("gpu", VENV, torch_index=cpu)[1].command


def test_another_device_is_another_installation() -> None:
    assert fingerprint("cpu") != fingerprint("gpu")
