"""Installing the engine: an environment of its own, made in steps, told as they go, and whole or not there at all."""

from __future__ import annotations

import errno
import fcntl
import os
import platform
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gemma3n_sgl.engine.choice import Device
from gemma3n_sgl.engine.launch import plain, python
from gemma3n_sgl.engine.logs import last_lines, shown
from gemma3n_sgl.engine.packages import CPU_TORCH_INDEX, SPACE_GB, Step, fingerprint, steps
from gemma3n_sgl.engine.progress import Progress
from gemma3n_sgl.engine.records import running
from gemma3n_sgl.engine.spawning import spawn
from gemma3n_sgl.errors import EngineUnavailable, SettingsError

DEFAULT_VENV = Path(".venv-engine")
PYTHONS = ("3.11.", "3.12.")
_STAMP = "gemma3n-engine.txt"
_LOG = "install.log"
_WATCH_EVERY = 0.25


def is_installed(device: Device, venv: Path = DEFAULT_VENV) -> bool:
    """Whether this very engine was installed there, to the end."""
    return _stamp(venv) == fingerprint(device) and python(venv).exists()


def install(
    device: Device,
    venv: Path = DEFAULT_VENV,
    *,
    index_url: str | None = None,
    torch_index: str | None = None,
    progress: Progress | None = None,
) -> bool:
    """Install the engine where it is not, or not wholly, or another one; whether there was anything to do.

    SettingsError for what must be mended first (Python, space, somebody else's folder), EngineUnavailable where a step fails.
    """
    progress = progress or Progress()
    if is_installed(device, venv):
        return False
    version = platform.python_version()
    if not version.startswith(PYTHONS):
        raise SettingsError(f"The engine needs Python 3.11 or 3.12; this is {version}. Set this project up with one of those.")
    with _alone_in(venv, progress):
        if is_installed(device, venv):
            return False
        _clear(venv)
        check_space(device, venv)
        for step in steps(device, venv, index_url, torch_index):
            _take(step, venv, progress)
        _write_stamp(venv, fingerprint(device))
    return True


def check_space(device: Device, venv: Path) -> None:
    """SettingsError where the disk has no room for the engine."""
    free = shutil.disk_usage(venv).free / 1e9
    if free < SPACE_GB[device]:
        raise SettingsError(
            f"The engine takes about {SPACE_GB[device]} GB, and the disk of {venv} has {free:.1f} GB free. "
            "Make room, or choose another place with --venv."
        )


@contextmanager
def _alone_in(venv: Path, progress: Progress) -> Iterator[None]:
    """The folder, made if need be, to ourselves: a second installation waits for the first."""
    try:
        venv.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(venv, os.O_RDONLY)
    except OSError as error:
        raise SettingsError(f"The engine can't be installed in {venv}: {error.strerror}. Choose another place with --venv.") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            with progress.step("Waiting for another installation that is at work there"):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _clear(venv: Path) -> None:
    """Empty the folder of what an unfinished installation, or another version, left; never of anything else."""
    if _stamp(venv) is None and any(venv.iterdir()):
        raise SettingsError(f"{venv} holds something that is no engine of ours, which stays untouched. Choose another place with --venv.")
    if engines := running(venv):
        raise SettingsError(f"{venv} must be installed anew, and an engine runs from it, on port {engines[0].port}: gemma3n engine stop")
    _write_stamp(venv, "unfinished")
    for path in venv.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != _STAMP:
            path.unlink()


def _take(step: Step, venv: Path, progress: Progress) -> None:
    """Take one step; its output goes to the log, the newest line of it beside the step."""
    path = venv / _LOG
    with path.open("ab") as log, progress.step(step.title) as note:
        process = spawn(step.command, env=plain(os.environ), log=log)
        try:
            while process.poll() is None:
                time.sleep(_WATCH_EVERY)
                note("".join(last_lines(path, 1)).strip())
        finally:
            process.terminate()
            process.wait()
        if process.returncode:
            raise EngineUnavailable(_failure(step, path, venv))


def _failure(step: Step, log: Path, venv: Path) -> str:
    words = "\n".join(last_lines(log, 40))
    if os.strerror(errno.ENOSPC) in words:
        return (
            f"The disk of {venv} became full while the engine was installed. Make room, or choose another place with --venv; "
            f"on the CPU, --torch-index {CPU_TORCH_INDEX} takes 3 GB less."
        )
    if "ensurepip" in words:
        return "This Python can't make environments. On Debian and Ubuntu: apt install python3-venv; then try again."
    return f"{step.title} failed. Try again; --index-url and --torch-index name other package indexes.\n{shown(log)}"


def _stamp(venv: Path) -> str | None:
    """What the folder was stamped with; None where it never was."""
    try:
        return (venv / _STAMP).read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        return None


def _write_stamp(venv: Path, value: str) -> None:
    (venv / _STAMP).write_text(value + "\n")
