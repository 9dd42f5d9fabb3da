"""An engine that is kept running: where it dies it is started again, after a pause that grows, until it has died too often."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from gemma3n_sgl.engine.local import LocalEngine
from gemma3n_sgl.engine.progress import Progress
from gemma3n_sgl.errors import EngineUnavailable, Gemma3nError, SettingsError

DEATHS = 5
"""Deaths in a row after which an engine is not started again."""

STEADY = 600.0
"""Seconds an engine has answered for, after which its death is the first in a row."""

_WATCH_EVERY = 0.5
_FIRST_PAUSE = 1.0
_STOP_EVERY = 0.1


@contextmanager
def kept(engine: LocalEngine, progress: Progress, *, first_pause: float = _FIRST_PAUSE) -> Iterator[LocalEngine]:
    """Start the engine as its own `with` does, and start it again whenever it dies; the pause before is `first_pause` s, then twice that, and so on.

    What happens is told on `progress`; the engine's log goes on in the same file. Its address stays the same.
    """
    with engine:
        keeper = _Keeper(engine, progress, first_pause)
        keeper.thread.start()
        try:
            yield engine
        finally:
            keeper.end()


class _Keeper:
    def __init__(self, engine: LocalEngine, progress: Progress, first_pause: float) -> None:
        self.thread = threading.Thread(target=self._keep, name="gemma3n-keeper", daemon=True)
        self._engine, self._progress, self._pause = engine, progress, first_pause
        self._ending = threading.Event()

    def end(self) -> None:
        """Let the engine end without being started again, also where it is just being started."""
        self._ending.set()
        while self.thread.is_alive():
            self._engine.stop()
            self.thread.join(_STOP_EVERY)

    def _keep(self) -> None:
        deaths, ready = 0, time.monotonic()
        while not self._ending.wait(_WATCH_EVERY):
            if self._engine.alive():
                continue
            deaths = 1 if time.monotonic() - ready > STEADY else deaths + 1
            if deaths >= DEATHS:
                self._progress.warn(_given_up(self._engine, deaths))
                return
            pause = self._pause * 2 ** (deaths - 1)
            self._progress.warn(f"{self._engine.obituary()}\nIt is started again in {pause:g} s; requests are told to come back until it answers.")
            if self._ending.wait(pause):
                return
            try:
                self._engine.start()
            except (EngineUnavailable, SettingsError, OSError) as error:
                if not self._ending.is_set():
                    self._progress.warn(error.message if isinstance(error, Gemma3nError) else f"It can't be started: {error.strerror}.")
            ready = time.monotonic()


def _given_up(engine: LocalEngine, deaths: int) -> str:
    again = f"gemma3n engine start --port {engine.port}"
    return f"{engine.obituary()}\nIt has died {deaths} times in a row and is not started again. Mend what its log tells, then: {again}"
