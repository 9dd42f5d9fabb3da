"""Each stand-in for the CPU is still needed, and does what it is for. A failure of the first kind means: upstream has it now, drop ours."""

from __future__ import annotations

import ast
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from real_engine import VENV

from gemma3n_sgl.engine import Progress, choose, install
from gemma3n_sgl.engine.launch import CPU_MENDS, environment, python

pytestmark = pytest.mark.engine

CASES = {
    "torch.distributed.rendezvous": "reachable at",
    "torchvision.extension": "operator torchvision::nms does not exist",
    "torchaudio._extension.utils": "Could not load this library",
    "sglang.srt.configs.update_config": "unsupported operand type(s) for %: 'list' and 'int'",
    "sglang.srt.layers.attention.torch_native_backend": "an output of 3 dimensions",
    "sglang.srt.sampling.sampling_batch_info": "a seed is heeded under a flag alone",
    "sglang.srt.layers.sampler": "has no attribute 'murmur_hash32_cpu'",
    "sglang.srt.models.gemma3n_mm": "Sizes of tensors must match",
    "sglang.srt.constrained.xgrammar_backend": "an end within a string",
    "sgl_kernel": "import of sgl_kernel halted",
}
"""Stand-in → what goes wrong without it."""

CUDA_HAS_IT = ("torchvision.extension", "torchaudio._extension.utils")


def tried(how: str) -> dict[str, Any]:
    install("cpu", VENV, progress=Progress())
    script = Path(__file__).parent / "mending.py"
    env = environment(choose("cpu"), os.environ)
    done = subprocess.run([python(VENV), script, how], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def mended() -> dict[str, Any]:
    return tried("with")


@pytest.fixture(scope="module")
def bare() -> dict[str, Any]:
    return tried("without")


@pytest.mark.parametrize("name", CASES)
def test_a_stand_in_is_still_needed(name: str, bare: dict[str, Any]) -> None:
    if bare["cuda"] and name in CUDA_HAS_IT:
        pytest.skip("this torch is the CUDA build, beside which the extension loads")
    assert CASES[name] in bare["results"][name]


@pytest.mark.parametrize("name", CASES)
def test_a_stand_in_does_what_it_is_for(name: str, mended: dict[str, Any]) -> None:
    assert mended["results"][name] == ""


def test_no_stand_in_is_forgotten_here(mended: dict[str, Any]) -> None:
    assert {*mended["mends"], "sgl_kernel"} == set(CASES)


def test_the_kernels_stood_in_for_are_those_that_upstream_imports_where_we_say() -> None:
    stub = ast.parse((CPU_MENDS / "sgl_kernel" / "__init__.py").read_text())
    (table,) = [node.value for node in stub.body if isinstance(node, ast.Assign) and isinstance(node.value, ast.Dict)]
    packages = next((VENV / "lib").glob("python3.*")) / "site-packages"
    for name, place in ast.literal_eval(table).items():
        file, _, line = place.partition(":")
        tree = ast.parse((packages / file).read_text())
        imports = [
            node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module == "sgl_kernel" and node.lineno == int(line)
        ]
        assert name in {alias.name for node in imports for alias in node.names}, place
