"""An engine's command line and environment, as data: on loopback, incremental, without our secrets."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gemma3n_sgl.engine.choice import DEMO, Device, choose
from gemma3n_sgl.engine.launch import CPU_MENDS, command, environment

VENV = Path("/srv/app/.venv-engine")


def flag(line: list[str], name: str) -> str:
    return line[line.index(name) + 1]


@pytest.mark.parametrize("device", ["cpu", "gpu"])
def test_every_engine_listens_on_loopback_streams_increments_and_has_a_name(device: Device) -> None:
    line = command(choose(device), 31000, VENV)
    assert line[:3] == ["/srv/app/.venv-engine/bin/python", "-m", "sglang.launch_server"]
    assert flag(line, "--host") == "127.0.0.1"
    assert flag(line, "--port") == "31000"
    assert "--incremental-streaming-output" in line
    assert "/" not in flag(line, "--served-model-name")


def test_a_gpu_runs_the_real_model_as_sglang_would() -> None:
    line = command(choose("gpu"), 30000, VENV)
    assert line[3:] == [
        *("--model-path", "google/gemma-3n-E4B-it", "--served-model-name", "gemma-3n-E4B-it"),
        *("--host", "127.0.0.1", "--port", "30000", "--incremental-streaming-output"),
    ]


def test_a_cpu_runs_the_demo_on_plain_torch_and_sleeps_when_idle() -> None:
    line = command(choose("cpu"), 30000, VENV)
    assert flag(line, "--model-path") == str(DEMO)
    assert flag(line, "--device") == "cpu"
    assert flag(line, "--attention-backend") == "torch_native"
    assert "--sleep-on-idle" in line
    assert json.loads(flag(line, "--preferred-sampling-params")) == {"temperature": 0}


def test_the_mends_are_for_the_cpu_alone() -> None:
    assert environment(choose("cpu"), {})["PYTHONPATH"] == str(CPU_MENDS)
    assert "PYTHONPATH" not in environment(choose("gpu"), {"PYTHONPATH": "/ours"})
    assert environment(choose("cpu"), {})["CUDA_VISIBLE_DEVICES"] == ""
    assert environment(choose("gpu"), {"CUDA_VISIBLE_DEVICES": "1"})["CUDA_VISIBLE_DEVICES"] == "1"


def test_only_the_demo_is_offline() -> None:
    assert environment(choose("cpu"), {})["HF_HUB_OFFLINE"] == "1"
    assert "HF_HUB_OFFLINE" not in environment(choose("gpu"), {})
    assert "HF_HUB_OFFLINE" not in environment(choose("cpu", "google/gemma-3n-E2B-it"), {})


SECRETS = dict.fromkeys(
    ("GEMMA3N_API_KEYS", "GEMMA3N_RUNTIME_API_KEY", "OPENAI_API_KEY", "AWS_SECRET_ACCESS_KEY", "GITHUB_TOKEN", "DB_PASSWORD", "HF_TOKEN"),
    "secret",
)


def test_secrets_stay_behind_but_a_model_on_the_hub_may_need_its_login() -> None:
    kept = {"PATH": "/bin", "HF_HOME": "/models", "TOKENIZERS_PARALLELISM": "true"}
    assert "secret" not in environment(choose("cpu"), SECRETS | kept).values()
    gpu = environment(choose("gpu"), SECRETS | kept)
    assert [name for name, value in gpu.items() if value == "secret"] == ["HF_TOKEN"]
    assert gpu.items() >= kept.items()


def test_a_proxy_is_never_asked_for_loopback() -> None:
    env = environment(choose("gpu"), {"HTTP_PROXY": "http://proxy:3128", "NO_PROXY": "intranet"})
    assert env["HTTP_PROXY"] == "http://proxy:3128"
    assert env["NO_PROXY"] == env["no_proxy"] == "intranet,127.0.0.1,localhost"


def test_threads_are_the_operators_choice() -> None:
    assert environment(choose("cpu"), {})["OMP_NUM_THREADS"] == "1"
    assert environment(choose("cpu"), {"OMP_NUM_THREADS": "8"})["OMP_NUM_THREADS"] == "8"
