"""Several server processes behind one port: forked from one that has loaded everything, replaced where one dies, ended together.

They take connections from one socket, so that none is lost with a process. SIGTERM and SIGINT go to all of them, each time they come.
"""

from __future__ import annotations

import ctypes
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import ceil
from tempfile import TemporaryDirectory
from types import FrameType

from gemma3n_sgl.settings import Settings

SHARED_METRICS = "PROMETHEUS_MULTIPROC_DIR"
"""prometheus_client's variable for the folder by which processes tell one story; it is read when that is imported."""

_MEMORY = "/dev/shm"
"""Where a page more has room also when uploads have filled the disk: without, it would be a SIGBUS for every process."""

EARLY = 5.0
"""Seconds: a process that lives no longer has not really begun."""

PAUSE = 0.5
LONGEST_PAUSE = 30.0
"""Seconds before such a process is replaced, doubled each time in a row, and at most."""

LOOKS = 0.1
"""Seconds between two looks at whether one has ended."""

_PR_SET_PDEATHSIG = 1

log = logging.getLogger("gemma3n")


def share_of(settings: Settings) -> Settings:
    """What one of several processes may take upon itself of what all may together; a key's runs are counted in each."""
    many = settings.workers
    return settings.model_copy(update={"max_runs": ceil(settings.max_runs / many), "max_queue": ceil(settings.max_queue / many)})


@contextmanager
def shared_metrics(settings: Settings) -> Iterator[None]:
    """A folder for what the processes measure, unless there is one; to be entered before the server is imported."""
    if not os.environ.get(SHARED_METRICS):
        os.environ.pop(SHARED_METRICS, None)  # an empty one would name the current folder
    if settings.workers == 1 or SHARED_METRICS in os.environ:
        yield
        return
    with TemporaryDirectory(prefix="gemma3n-metrics-", dir=_MEMORY if os.access(_MEMORY, os.W_OK) else None) as folder:
        os.environ[SHARED_METRICS] = folder
        try:
            yield
        finally:
            del os.environ[SHARED_METRICS]


class Workers:
    """`count` processes that each do `work()` with the socket `door`; `buried` is told of each that has ended."""

    def __init__(self, count: int, work: Callable[[], None], door: socket.socket, buried: Callable[[int], None] = lambda pid: None) -> None:
        self._count, self._work, self._door, self._buried = count, work, door, buried
        self._alive: dict[int, float] = {}
        self._told: int | None = None
        self._pause = 0.0

    def run(self) -> None:
        """Until all have ended, as SIGTERM or SIGINT tells them to; SIGINT is then raised again."""
        before = {number: signal.signal(number, self._tell_all) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            for _ in range(self._count):
                if self._told is None:
                    self._begin()
            while self._alive:
                for pid, status in self._ended():
                    self._replace(pid, status)
                time.sleep(LOOKS)
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
        if self._told == signal.SIGINT:
            raise KeyboardInterrupt

    def _begin(self) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))  # none is lost between the fork and its entry here
        try:
            if pid := os.fork():
                self._alive[pid] = time.monotonic()
                return
            _live(self._work, parent)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))

    def _ended(self) -> Iterator[tuple[int, int]]:
        """The processes that have ended, and how. Others of ours, such as an engine, are not looked at: somebody waits for those."""
        for pid in list(self._alive):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                yield pid, status

    def _replace(self, pid: int, status: int) -> None:
        began = self._alive.pop(pid)
        self._buried(pid)
        if self._told is not None:
            return
        early = time.monotonic() - began < EARLY
        self._pause = min(max(PAUSE, 2 * self._pause), LONGEST_PAUSE) if early else 0.0
        log.warning("server process %d %s; another takes its place%s", pid, _end(status), f" in {self._pause:g} s" if early else "")
        end = time.monotonic() + self._pause
        while self._told is None and time.monotonic() < end:  # one long sleep would go on after a signal (PEP 475)
            time.sleep(LOOKS)
        if self._told is None:
            self._begin()

    def _tell_all(self, signum: int, frame: FrameType | None) -> None:
        self._told = signum
        self._door.close()  # else it would stay open here for clients that nobody serves
        for pid in list(self._alive):
            with suppress(ProcessLookupError):
                os.kill(pid, signum)


def _live(work: Callable[[], None], parent: int) -> None:
    """In a forked process: work, and leave without what its parent would do at its end."""
    code = 1
    try:
        os.setpgid(0, 0)  # a terminal's Ctrl-C reaches it by its parent alone, once
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
        if os.getppid() == parent:
            work()
            code = 0
    except KeyboardInterrupt:
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        log.exception("a server process failed")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _end(status: int) -> str:
    if os.WIFSIGNALED(status):
        return f"was killed by {signal.Signals(os.WTERMSIG(status)).name}"
    return f"ended with {os.waitstatus_to_exitcode(status)}"
