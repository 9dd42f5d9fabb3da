"""An environment with a fake engine in it, which stands for an installed one."""

from __future__ import annotations

import io
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from rich.console import Console

from gemma3n_sgl.engine import Progress
from gemma3n_sgl.engine.installing import _write_stamp
from gemma3n_sgl.engine.packages import fingerprint
from gemma3n_sgl.engine.records import running, stop

FAKE = Path(__file__).parent / "fake_engine.py"

MakeVenv = Callable[..., Path]


@pytest.fixture
def make_venv(tmp_path: Path) -> Iterator[MakeVenv]:
    """`make_venv(play)`: a folder that counts as an installed engine, whose Python plays `serve`, `answer`, `short`, `die`, `hang` or `killed`."""
    venv = tmp_path / "venv"

    def make(play: str = "serve") -> Path:
        (venv / "bin").mkdir(parents=True)
        python = venv / "bin" / "python"
        python.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {shlex.quote(str(FAKE))} {play} "$@"\n')
        python.chmod(0o755)
        _write_stamp(venv, fingerprint("cpu"))
        return venv

    yield make
    for record in running(venv):
        stop(venv, record)


@pytest.fixture
def told() -> io.StringIO:
    """What a person was told."""
    return io.StringIO()


@pytest.fixture
def progress(told: io.StringIO) -> Progress:
    return Progress(Console(file=told, width=200))


def processes_with(text: str) -> list[psutil.Process]:
    """Processes whose environment or command line holds the text, without this one; zombies don't count."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid != os.getpid() and process.status() != psutil.STATUS_ZOMBIE:
                haystack = [*process.cmdline(), *process.environ().values()]
                if any(text in item for item in haystack):
                    found.append(process)
        except psutil.Error:
            continue
    return found


@pytest.fixture
def remains(tmp_path: Path) -> Callable[[], list[psutil.Process]]:
    """What still runs of this test after at most 5 s, once everything should have ended; found by TMPDIR, which all of it inherits."""

    def look() -> list[psutil.Process]:
        deadline = time.monotonic() + 5
        while (found := processes_with(str(tmp_path))) and time.monotonic() < deadline:
            time.sleep(0.05)
        return found

    return look


@pytest.fixture(autouse=True)
def own_tmpdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every process a test starts carries the test's own folder in its environment, whatever becomes of its parents."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
