"""An engine that dies is started again, and whoever asks meanwhile is told to come back; one that dies over and over is given up with a word."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from gemma3n_sgl.engine import LocalEngine, Progress, choose, keeping, kept, local
from gemma3n_sgl.engine.asking import serves
from gemma3n_sgl.engine.records import running

pytestmark = pytest.mark.slow

MakeVenv = Callable[..., Path]
Remains = Callable[[], list[psutil.Process]]


@pytest.fixture(autouse=True)
def attentive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeping, "_WATCH_EVERY", 0.05)


def until(true: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not so after {seconds} s"
        time.sleep(0.02)


def kill(venv: Path) -> int:
    """Kill the engine itself, as the kernel does when memory runs out; its pid."""
    (record,) = running(venv)
    (command,) = psutil.Process(record.pid).children()
    command.kill()
    return command.pid


def test_an_engine_that_dies_is_started_again_with_its_log_kept(make_venv: MakeVenv, progress: Progress, told: io.StringIO, remains: Remains) -> None:
    venv = make_venv()
    with kept(LocalEngine(choose("cpu"), venv=venv, port=0, progress=progress), progress, first_pause=0.05) as engine:
        url = engine.url
        for times in (1, 2):
            kill(venv)
            until(lambda: serves(url) is None)
            until(lambda: serves(url) == "fake")
            assert engine.log.read_text().count("line 29") == 1 + times
        assert engine.url == url
    assert re.findall(r"started again in ([\d.]+) s", told.getvalue()) == ["0.05", "0.1"], "a pause that grows"
    assert "most likely because this machine ran out of memory" in told.getvalue()
    assert remains() == []


def test_one_that_has_answered_for_long_is_not_given_up_for_deaths_of_long_ago(
    make_venv: MakeVenv, progress: Progress, told: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeping, "STEADY", 0.0)
    venv = make_venv()
    with kept(LocalEngine(choose("cpu"), venv=venv, port=0, progress=progress), progress, first_pause=0.01) as engine:
        for _ in range(keeping.DEATHS + 1):
            kill(venv)
            until(lambda: serves(engine.url) is None)
            until(lambda: serves(engine.url) == "fake")
    assert "not started again" not in told.getvalue()


@pytest.mark.parametrize("play", ["short", "die"])
def test_one_that_dies_over_and_over_is_given_up_with_a_word(
    play: str, make_venv: MakeVenv, progress: Progress, told: io.StringIO, remains: Remains
) -> None:
    """Whether it dies while it loads or soon after."""
    venv = make_venv("serve")
    with kept(LocalEngine(choose("cpu"), venv=venv, port=0, progress=progress), progress, first_pause=0.01) as engine:
        python = venv / "bin" / "python"
        python.write_text(python.read_text().replace(" serve ", f" {play} "))
        kill(venv)
        until(lambda: "not started again" in told.getvalue(), 20)
        assert told.getvalue().count("The engine has ended by itself.") == keeping.DEATHS
        assert f"It has died {keeping.DEATHS} times in a row" in told.getvalue()
        assert told.getvalue().splitlines()[-1].endswith(f"gemma3n engine start --port {engine.port}")
        assert "Traceback" not in told.getvalue()
    assert remains() == []


def test_leaving_while_it_is_started_again_leaves_nothing(make_venv: MakeVenv, progress: Progress, remains: Remains) -> None:
    venv = make_venv("serve")
    with kept(LocalEngine(choose("cpu"), venv=venv, port=0, progress=progress), progress, first_pause=0.01):
        python = venv / "bin" / "python"
        python.write_text(python.read_text().replace(" serve ", " hang "))
        pid = kill(venv)
        until(lambda: any(record.pid != pid for record in running(venv)))
        began = time.monotonic()
    assert time.monotonic() - began < 3
    assert remains() == []


def test_leaving_just_before_it_is_started_again_leaves_nothing(
    make_venv: MakeVenv, progress: Progress, remains: Remains, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting = threading.Event()
    with kept(LocalEngine(choose("cpu"), venv=make_venv(), port=0, progress=progress), progress, first_pause=0.01) as engine:
        monkeypatch.setattr(local, "check_port", lambda port: starting.set() or time.sleep(0.5))
        kill(engine.log.parent.parent)
        assert starting.wait(5)
    time.sleep(1)
    assert remains() == []


@pytest.fixture
def serving(make_venv: MakeVenv, tmp_path: Path) -> Iterator[tuple[str, Path, subprocess.Popen[str]]]:
    """`gemma3n serve --with-engine`, in front of an engine that answers: its URL, the engine's environment, its process."""
    venv = make_venv("answer")
    venv.rename(tmp_path / ".venv-engine")
    command = [str(Path(sys.executable).with_name("gemma3n")), "serve", "--port", "0", "--with-engine", "--engine-port", "0"]
    process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=dict(os.environ))
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"served at (http://[\d.:]+)/v1", line):
            break
    yield found[1], tmp_path / ".venv-engine", process
    process.send_signal(signal.SIGTERM)
    process.wait(20)


def test_where_machines_read_the_log_a_death_is_a_line_of_it(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEMMA3N_LOG_FORMAT", "json")
    _, venv, process = request.getfixturevalue("serving")
    kill(venv)
    told: list[str] = []
    while not told or ": done in" not in told[-1]:
        told.append(process.stdout.readline())
    lines = [json.loads(line) for line in told[next(i for i, line in enumerate(told) if "has ended by itself" in line) :]]
    assert lines[0]["level"] == "warning" and "started again in" in lines[0]["message"]
    assert {line["level"] for line in lines[1:]} == {"info"}


def test_requests_are_told_to_come_back_while_the_engine_is_away_and_answered_when_it_is_there(serving, remains: Remains) -> None:
    url, venv, process = serving
    asked = {"model": "gemma-3n", "messages": [{"role": "user", "content": "Hi"}]}

    def ask() -> httpx.Response:
        return httpx.post(f"{url}/v1/chat/completions", json=asked, timeout=20)

    assert ask().status_code == 200
    kill(venv)
    answers = []
    until(lambda: answers.append(ask()) or answers[-1].status_code == 200, 20)
    *away, back = answers
    assert {answer.status_code for answer in away} <= {502, 503}, [answer.text for answer in away]
    unavailable = [answer for answer in away if answer.status_code == 503]
    assert unavailable and all(int(answer.headers["retry-after"]) > 0 for answer in unavailable)
    assert back.json()["choices"][0]["message"]["content"] == "Hello there."
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.wait(20)
    assert remains() == []
