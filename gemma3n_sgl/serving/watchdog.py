"""Notices when a program holds up the loop and with it all others, says which and where, and ends it where that is possible.

It watches from a thread of its own, and costs a program nothing. To end one, it uses signals, as Go does to take a processor from a
goroutine: the handler runs in the thread of the loop, on the stack of whatever runs there, and raises only where that is a program. So it
can't hit the loop or another's program, however late it comes. SIGURG comes from the watching thread, which waits in vain where C code keeps
Python's lock (a regular expression does); SIGVTALRM from the system, after so much of the processor's time without a beat of the loop.
Both need the loop to run in the main thread, where Python handles signals; elsewhere the program is only named.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

from gemma3n_sgl.bridge import Interrupted
from gemma3n_sgl.errors import ProgramError

BEAT = 0.2
"""Seconds between two beats of the loop."""

LATE = 0.5
"""Seconds without a beat from which on the loop is held up."""

ADVICE = "it should call what takes so long by offload(fn, …)"

log = logging.getLogger("gemma3n")

_SIGNALS = (signal.SIGURG, signal.SIGVTALRM)
_OURS = ("gemma3n_sgl.bridge", "gemma3n_sgl.transport", "gemma3n_sgl.connections", "gemma3n_sgl.lengths", "asyncio", "logging")
"""Where others depend on what is done being done wholly; it never takes long there."""


class Watchdog:
    """Watches the running loop between `start` and `stop`. `programs` tells names of programs by their code; `limit` is in seconds."""

    def __init__(self, programs: Mapping[CodeType, str], limit: float) -> None:
        self.held_up: Counter[str] = Counter()
        self._programs, self._limit = programs, limit
        self._beat = time.monotonic()
        self._timer: asyncio.TimerHandle | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="gemma3n-watchdog", daemon=True)
        self._loop_thread = 0
        self._before: dict[int, Any] = {}

    def start(self) -> None:
        self._loop_thread = threading.get_ident()
        if self._in_main_thread():
            self._before = {number: signal.signal(number, self._interrupt) for number in _SIGNALS}
        self._beats(asyncio.get_running_loop())
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join()
        if self._timer is not None:
            self._timer.cancel()
        if self._in_main_thread():
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            for number, before in self._before.items():
                signal.signal(number, before)

    def _in_main_thread(self) -> bool:
        return self._loop_thread == threading.main_thread().ident

    def _beats(self, loop: asyncio.AbstractEventLoop) -> None:
        self._beat = time.monotonic()
        self._timer = loop.call_later(BEAT, self._beats, loop)
        if self._in_main_thread():
            signal.setitimer(signal.ITIMER_VIRTUAL, self._limit, BEAT)

    def _watch(self) -> None:
        told = 0.0
        while True:
            asleep = time.monotonic()
            if self._ended.wait(BEAT):
                return
            now, beat = time.monotonic(), self._beat
            if now - asleep > 2 * BEAT or now - beat < LATE:
                continue  # this thread had to wait as well: the whole process stood still, and who did it can't be seen any more
            if told != beat:
                told = beat
                self._tell(now - beat)
            if now - beat > self._limit and self._in_main_thread():
                signal.pthread_kill(self._loop_thread, signal.SIGURG)

    def _tell(self, seconds: float) -> None:
        frame = sys._current_frames().get(self._loop_thread)
        found = self._found(frame)
        if found is not None:
            name, place = found
            self.held_up[name] += 1
            log.warning("the program %r holds up all others for %.1f s now, at %s; %s", name, seconds, place, ADVICE)
        elif frame is not None:
            log.warning("the server is held up for %.1f s now, at %s", seconds, _place(frame))

    def _found(self, frame: FrameType | None) -> tuple[str, str] | None:
        """Which program runs in a stack, and at which of its lines."""
        while frame is not None:
            if (name := self._programs.get(frame.f_code)) is not None:
                return name, _place(frame)
            frame = frame.f_back
        return None

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """In the thread of the loop, at `frame`."""
        if frame is None or time.monotonic() - self._beat <= self._limit or frame.f_globals.get("__name__", "").startswith(_OURS):
            return
        if (found := self._found(frame)) is not None:
            name, place = found
            log.error("the program %r was ended at %s: it held up all others for more than %g s (GEMMA3N_MAX_BLOCK)", name, place, self._limit)
            said = f"The program {name!r} held up all others for more than {self._limit:g} s and was ended."
            raise Interrupted(ProgramError(f"{said} Whoever wrote it calls what takes so long by `offload`."))


def _place(frame: FrameType) -> str:
    return f"line {frame.f_lineno} of {Path(frame.f_code.co_filename).name}"
