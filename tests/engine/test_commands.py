"""`gemma3n engine …`, with a fake engine."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

from gemma3n_sgl.engine.asking import free_port, serves
from gemma3n_sgl.engine.commands import app

pytestmark = pytest.mark.slow

MakeVenv = Callable[..., Path]
Remains = Callable[[], list[psutil.Process]]

RUN = [sys.executable, "-c", "from gemma3n_sgl.engine.commands import app; app()"]


def engine(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*RUN, *args], capture_output=True, text=True, timeout=60)


def test_start_leaves_an_engine_that_status_shows_and_stop_ends(make_venv: MakeVenv, remains: Remains) -> None:
    venv, port = str(make_venv()), free_port()
    started = engine("start", "--device", "cpu", "--venv", venv, "--port", str(port))
    assert started.returncode == 0, started.stderr
    url = f"http://127.0.0.1:{port}"
    assert url in started.stderr
    assert serves(url) == "fake"

    shown = engine("status", "--venv", venv)
    assert shown.returncode == 0
    assert url in shown.stdout
    assert "ready" in shown.stdout
    (item,) = json.loads(engine("status", "--venv", venv, "--json").stdout)
    assert item["url"] == url
    assert item["model"] == "gemma-3n-demo"
    assert item["ready"] is True

    assert "has ended" in engine("stop", "--venv", venv).stderr
    assert serves(url) is None
    assert engine("status", "--venv", venv).returncode == 1
    assert remains() == []


def test_stop_ends_the_one_on_a_port_alone(make_venv: MakeVenv) -> None:
    venv, ports = str(make_venv()), (free_port(), free_port())
    for port in ports:
        engine("start", "--device", "cpu", "--venv", venv, "--port", str(port))
    engine("stop", "--venv", venv, "--port", str(ports[0]))
    assert [serves(f"http://127.0.0.1:{port}") for port in ports] == [None, "fake"]


def test_foreground_stays_until_sigterm_and_stop_lets_it_be(make_venv: MakeVenv, remains: Remains) -> None:
    venv, port = str(make_venv()), free_port()
    command = [*RUN, "start", "--device", "cpu", "--venv", venv, "--port", str(port), "--foreground"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        while "is served at" not in process.stderr.readline():
            assert process.poll() is None
        assert "ends with it" in engine("stop", "--venv", venv).stderr
        assert serves(f"http://127.0.0.1:{port}") == "fake"
        process.terminate()
    assert process.returncode == 128 + 15
    assert remains() == []


def test_stop_without_an_engine_is_no_error(tmp_path: Path) -> None:
    done = engine("stop", "--venv", str(tmp_path / "nowhere"))
    assert done.returncode == 0
    assert "No engine runs" in done.stderr
    assert not (tmp_path / "nowhere").exists()


def test_help_says_where_a_smaller_torch_is() -> None:
    shown = " ".join(CliRunner().invoke(app, ["install", "--help"]).output.split())
    assert "download.pytorch.org/whl/cpu" in shown
    assert "CUDA build" in shown
