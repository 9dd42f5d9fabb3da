"""Nothing is left running: the guard ends a command with all its descendants, whatever happens to whom."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from gemma3n_sgl.engine.spawning import spawn

pytestmark = pytest.mark.slow

Remains = Callable[[], list[psutil.Process]]

FAMILY = """
import subprocess, sys, time
sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
subprocess.Popen(sleep)
subprocess.Popen(sleep, start_new_session=True)
print("up", flush=True)
time.sleep(600)
"""
"""A command with two children, one of which left its session."""

PARENT = """
import os, sys, time
from gemma3n_sgl.engine.spawning import spawn
with open(sys.argv[1], "wb") as log:
    guard = spawn([sys.executable, "-c", sys.argv[2]], env=dict(os.environ), log=log)
time.sleep(600)
"""


def wait_for(log: Path, text: str) -> None:
    deadline = time.monotonic() + 20
    while not (log.exists() and text in log.read_text()):
        assert time.monotonic() < deadline, log.read_text() if log.exists() else "no log"
        time.sleep(0.02)


def guarded(code: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as file:
        return spawn([sys.executable, "-c", code], env=dict(os.environ), log=file)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_guard_ends_the_whole_family(number: signal.Signals, tmp_path: Path, remains: Remains) -> None:
    guard = guarded(FAMILY, tmp_path / "log")
    wait_for(tmp_path / "log", "up")
    guard.send_signal(number)
    assert guard.wait(10) == 128 + signal.SIGKILL
    assert remains() == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_whatever_ends_the_parent_ends_the_whole_family(number: signal.Signals, tmp_path: Path, remains: Remains) -> None:
    log = tmp_path / "log"
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(log), FAMILY])
    wait_for(log, "up")
    parent.send_signal(number)
    parent.wait(10)
    assert remains() == []


def test_a_killed_guard_takes_the_command_with_it(tmp_path: Path) -> None:
    guard = guarded("import time; print('up', flush=True); time.sleep(600)", tmp_path / "log")
    wait_for(tmp_path / "log", "up")
    (command,) = psutil.Process(guard.pid).children()
    guard.kill()
    guard.wait(10)
    psutil.wait_procs([command], timeout=5)
    assert not command.is_running()


@pytest.mark.parametrize(("code", "expected"), [("import sys; sys.exit(3)", 3), ("pass", 0), ("import os; os.kill(os.getpid(), 9)", 137)])
def test_the_guard_ends_as_the_command_did(code: str, expected: int, tmp_path: Path) -> None:
    assert guarded(code, tmp_path / "log").wait(10) == expected


def test_children_a_command_leaves_behind_end_with_it(tmp_path: Path, remains: Remains) -> None:
    leaves = FAMILY.replace("time.sleep(600)\n", "")
    assert guarded(leaves, tmp_path / "log").wait(10) == 0
    assert remains() == []


def test_temporary_files_of_a_command_go_with_it(tmp_path: Path) -> None:
    code = "import tempfile; print(tempfile.mkstemp()[1], flush=True)"
    guard = guarded(code, tmp_path / "log")
    guard.wait(10)
    left = Path((tmp_path / "log").read_text().strip())
    assert left.is_relative_to(tmp_path)
    assert not left.parent.exists()


def test_shared_memory_a_command_forgets_goes_with_it(tmp_path: Path) -> None:
    code = "import tempfile, time; file = tempfile.NamedTemporaryFile(dir='/dev/shm', delete=False); print(file.name, flush=True); time.sleep(600)"
    guard = guarded(code, tmp_path / "log")
    wait_for(tmp_path / "log", "\n")
    left = Path((tmp_path / "log").read_text().strip())
    assert left.exists()
    guard.terminate()
    guard.wait(10)
    assert not left.exists()


def test_an_unattended_command_outlives_who_started_it(tmp_path: Path) -> None:
    log = tmp_path / "log"
    starting = PARENT.replace("log=log)", "log=log, attended=False); print(guard.pid, flush=True)").replace("time.sleep(600)", "")
    done = subprocess.run([sys.executable, "-c", starting, str(log), FAMILY], capture_output=True, text=True, check=True)
    wait_for(log, "up")
    guard = psutil.Process(int(done.stdout))
    time.sleep(1)  # twice as long as a guard takes to notice that it is alone
    assert guard.is_running()
    guard.terminate()
    guard.wait(10)
