"""Strangers' files are decoded in processes apart (`gemma3n_sgl.media.worker`): what kills a decoder costs the request that brought it, and no other.

The first file starts the process that the others are forked from, in 0.3 s and 70 MB; who decodes nothing apart has none of it.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

from gemma3n_sgl.errors import MediaError, TooLarge
from gemma3n_sgl.media.limits import Apart
from gemma3n_sgl.media.wire import Message, receive, send
from gemma3n_sgl.settings import by

_BOOT = """
import json, sys, types
sys.path[:] = json.loads(sys.argv[1])
package = sys.modules["gemma3n_sgl"] = types.ModuleType("gemma3n_sgl")
package.__path__ = [sys.argv[2]]
from gemma3n_sgl.media.worker import nursery
nursery(int(sys.argv[3]))
"""
"""Loads the decoders without the façade, which would bring three times as much."""

_HANDED_DOWN = ("LANG", "LD_LIBRARY_PATH", "PATH", "TMPDIR")
_SPARE = min(os.cpu_count() or 2, 8)
_LONGEST_ANSWER = 2**27
_LATER = 5.0
"""Seconds after its own timer when a process is given up that does not even end."""

_START = 60.0
"""Seconds that loading the decoders may take, on a disk that is slow: a file's own time begins after that."""

_MOMENT = 0.05

log = logging.getLogger("gemma3n")


def each(job: str, cost: Apart, asked: dict[str, Any], data: bytes = b"") -> Iterator[Message]:
    """What a job (`gemma3n_sgl.media.worker.JOBS`) answers to `asked` and `data`, message by message. Blocks at each.

    Raises its MediaError or TooLarge, and a MediaError where the process died of it. Leaving early ends the process.
    """
    nursery = _nursery(os.getpid())
    began, worker, spared = time.monotonic(), nursery.take(), False
    worker.settimeout(cost.seconds + _LATER)
    try:
        send(worker, asked | {"job": job, "seconds": cost.seconds, "megabytes": cost.megabytes}, data)
        while "end" not in (answer := receive(worker, _LONGEST_ANSWER))[0] and "error" not in answer[0]:
            yield answer
            began = time.monotonic()
        spared = True
    except (OSError, EOFError, ValueError):
        nursery.check()
        took, most = time.monotonic() - began, f"{cost.seconds:g} s{by('decode_timeout')} or {cost.megabytes} MB{by('decode_memory_mb')}"
        log.warning("a decoder died of a file (%s), after %.1f s: it crashed, or took more than %s", job, took, most)
        raise _died(job, cost) from None
    finally:
        nursery.give(worker) if spared else worker.close()
    if "error" in answer[0]:
        kind = TooLarge if answer[0]["error"] == TooLarge.__name__ else MediaError
        raise kind(str(answer[0].get("message")))


def _died(job: str, cost: Apart) -> MediaError:
    what, anew = ("picture", "PNG or JPEG") if job == "image" else ("sound", "WAV or MP3")
    return MediaError(
        f"The {what} could not be decoded: it is damaged, or takes more than {cost.seconds:g} s or {cost.megabytes} MB. Save it anew as {anew}."
    )


@cache
def _nursery(pid: int) -> _Nursery:
    """This process's own; a process forked from it gets another."""
    return _Nursery()


class _Nursery:
    """The process that forks workers, started at need and again where it has died; and workers that wait for the next file."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._control: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._idle: list[socket.socket] = []
        atexit.register(self._end)

    def take(self) -> socket.socket:
        """A worker that lives, ours alone until it is given back."""
        while True:
            try:
                worker = self._idle.pop()
            except IndexError:
                return self._new()
            if _lives(worker):
                return worker
            worker.close()

    def give(self, worker: socket.socket) -> None:
        if len(self._idle) < _SPARE:
            worker.setblocking(False)
            self._idle.append(worker)
        else:
            worker.close()

    def check(self) -> None:
        """RuntimeError where it is not the worker that died, but what forks workers: no file is to blame for that."""
        with suppress(subprocess.TimeoutExpired):
            if self._process is None or self._process.wait(_MOMENT) is not None:
                raise RuntimeError("the process that forks decoders has ended")

    def _new(self) -> socket.socket:
        ours, theirs = socket.socketpair()
        with theirs, self._lock:
            for last in (False, True):
                if self._control is None:
                    self._start()
                assert self._control is not None
                try:
                    socket.send_fds(self._control, [b"."], [theirs.fileno()])
                    return ours
                except OSError:
                    self._end()
                    if last:
                        raise
        raise AssertionError("unreachable")

    def _start(self) -> None:
        self._control, theirs = socket.socketpair()
        path = [os.path.abspath(entry) for entry in sys.path]
        command = [sys.executable, "-I", "-c", _BOOT, json.dumps(path), str(Path(__file__).parent.parent), str(theirs.fileno())]
        env = {name: os.environ[name] for name in _HANDED_DOWN if name in os.environ} | {"OPENBLAS_NUM_THREADS": "1"}
        with theirs:
            self._process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True)
        self._control.settimeout(_START)
        with suppress(OSError):
            if self._control.recv(1):
                self._control.settimeout(None)
                return
        self._end()
        raise RuntimeError(f"the process that forks decoders has ended, or taken {_START:g} s to begin")

    def _end(self) -> None:
        """Let the processes go: each ends as its socket does."""
        if self._control is not None:
            self._control.close()
            self._control = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        while self._idle:
            self._idle.pop().close()


def _lives(worker: socket.socket) -> bool:
    try:
        worker.recv(1, socket.MSG_PEEK)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False  # it has ended, or says what nobody has asked
