"""Engines that run, as files: `run/PORT.json` in the engine's environment, locked by the engine's guard for as long as that lives.

The lock, not the file, says that an engine is there; so a file left by a crash or a reboot deceives nobody, and a pid is never another's.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from gemma3n_sgl.engine.launch import HOST
from gemma3n_sgl.errors import SettingsError

_PATIENCE = 0.5
_KEEP_LOGS = 24 * 3600.0
_STOP_TIMEOUT = 15.0


@dataclass(frozen=True)
class Record:
    """A running engine: `pid` is its guard's, `attended` whether it ends with the process that started it."""

    port: int
    pid: int
    name: str
    log: str
    attended: bool

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"


@contextmanager
def claimed(venv: Path, port: int) -> Iterator[int]:
    """Claim a port's file: a locked descriptor, for the guard to keep. SettingsError where an engine holds it."""
    _forget_old(venv)
    descriptor = os.open(_file(venv, port), os.O_RDWR | os.O_CREAT)
    try:
        deadline = time.monotonic() + _PATIENCE
        while not _lock(descriptor):
            if time.monotonic() > deadline:
                raise SettingsError(f"An engine started from here already runs, or is loading, on port {port}: gemma3n engine status")
            time.sleep(0.05)  # somebody may just be looking whether it is locked
        os.ftruncate(descriptor, 0)
        yield descriptor
    finally:
        os.close(descriptor)


def write(descriptor: int, record: Record) -> None:
    os.write(descriptor, json.dumps(asdict(record)).encode())


def running(venv: Path) -> list[Record]:
    """The engines that run, by port."""
    found = [_read(path) for path in (venv / "run").glob("*.json")]
    return sorted((record for record in found if record), key=lambda record: record.port)


def stop(venv: Path, record: Record) -> bool:
    """End the engine, if it is still the one that was recorded; whether it is gone afterwards."""
    if _read(_file(venv, record.port)) == record:
        os.kill(record.pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_TIMEOUT
    while _read(_file(venv, record.port)) == record:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _forget_old(venv: Path) -> None:
    """Remove the files, and the logs, of engines that ended more than a day ago."""
    for path in (venv / "run").glob("*.json"):
        with suppress(FileNotFoundError):  # somebody else removes it
            if _read(path) is None and path.stat().st_mtime < time.time() - _KEEP_LOGS:
                path.unlink()
                path.with_suffix(".log").unlink()


def _file(venv: Path, port: int) -> Path:
    folder = venv / "run"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{port}.json"


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(path: Path) -> Record | None:
    """The record in a file that is locked and written; None for any other."""
    try:
        with path.open() as file:
            if _lock(file.fileno()):
                return None
            return Record(**json.load(file))
    except (FileNotFoundError, ValueError):
        return None
