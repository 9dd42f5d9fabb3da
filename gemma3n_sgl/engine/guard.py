"""Runs a command and leaves nothing of it behind: `python -I guard.py PARENT COMMAND…` (a script; standard library alone).

The command and all that descends from it are ended when it ends itself, when the guard gets SIGTERM, SIGINT or SIGHUP, and when process
PARENT has gone in whatever way, SIGKILL included (0: nobody is watched). If the guard itself is killed, the kernel ends the command.
Exit code: the command's own, 128 + signal where a signal ended it. The command gets a TMPDIR of its own, removed with it.

An engine is killed rather than asked to stop: it holds nothing worth saving, takes 4 to 8 s to stop when asked, and its workers follow it
at once (SGLang 0.5.23).
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

END = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
WATCH_EVERY = 0.5
FOLLOW = 0.5
"""Seconds descendants get to end after the command, before they are killed: what cleans up after the others is among them."""

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_libc = ctypes.CDLL(None)


def run(parent: int, command: list[str]) -> int:
    """Run the command to its end, and return its exit code."""
    signals = {*END, signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1)  # orphans of the command become ours

    def become_command() -> None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)

    with tempfile.TemporaryDirectory(prefix="gemma3n-", ignore_cleanup_errors=True) as folder:
        forgotten: set[Path] = set()
        child = subprocess.Popen(command, env={**os.environ, "TMPDIR": folder}, preexec_fn=become_command)
        while child.poll() is None:
            heard = signal.sigtimedwait(signals, WATCH_EVERY)
            if (heard and heard.si_signo in END) or (parent and os.getppid() != parent):
                forgotten = _shared_memory()
                child.kill()
                child.wait()
        end_descendants()
        for path in forgotten:
            path.unlink(missing_ok=True)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def end_descendants() -> None:
    """Wait for all that is left of the command; kill what is there after `FOLLOW` seconds, and what comes to light by that."""
    deadline = time.monotonic() + FOLLOW
    while True:
        try:
            ended, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if not ended:
            if time.monotonic() > deadline:
                for pid in _children():
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)


def _children() -> list[int]:
    return [pid for pid, (_, parent, *_) in _processes() if int(parent) == os.getpid()]


def _shared_memory() -> set[Path]:
    """Files in /dev/shm that this session's processes hold open: SGLang leaves its own behind (sglang/srt/managers/load_snapshot.py:303)."""
    held = set()
    for pid, (_, _, _, session, *_) in _processes():
        if int(session) == os.getsid(0):
            for link in Path(f"/proc/{pid}/fd").glob("*"):
                with suppress(OSError):  # closed meanwhile
                    held.add(link.readlink())
    return {path for path in held if path.parent == Path("/dev/shm")}


def _processes() -> Iterator[tuple[int, list[str]]]:
    """All processes, each with the fields behind its name in /proc/PID/stat, see proc(5): state, parent, group, session, …"""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # ended meanwhile
            yield int(folder.name), (folder / "stat").read_text().rpartition(")")[2].split()


if __name__ == "__main__":
    sys.exit(run(int(sys.argv[1]), sys.argv[2:]))
