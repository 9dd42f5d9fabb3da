"""An engine on this machine: started, watched while it loads, and gone when it is stopped."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from gemma3n_sgl.engine.asking import check_port, free_port, is_ready
from gemma3n_sgl.engine.choice import Choice
from gemma3n_sgl.engine.installing import DEFAULT_VENV, is_installed
from gemma3n_sgl.engine.launch import HOST, command, environment
from gemma3n_sgl.engine.logs import last_lines, shown
from gemma3n_sgl.engine.progress import Progress
from gemma3n_sgl.engine.records import Record, claimed, write
from gemma3n_sgl.engine.spawning import spawn
from gemma3n_sgl.errors import EngineUnavailable, SettingsError

DEFAULT_PORT = 30_000
LOADING_TIMEOUT = {"cpu": 300.0, "gpu": 3600.0}
"""Seconds an engine may take until it answers: 16 to 19 s for the demo on two cores; a real model's weights may have to be
fetched first."""

_ASK_EVERY = 0.25
_KILLED = 128 + 9
_CRASHED = re.compile(r"Subprocess \S+ .*crashed with exit code (-?\d+)")
_LAST_WORDS = 60
"""Lines of a log in which an engine tells of what it dies."""


class LocalEngine:
    """`with LocalEngine(choose()) as engine: … engine.url …`.

    It ends with the `with` block, and with this process however that ends; `attended=False`: neither, it goes on by itself.
    Port 0 takes any that is free. The folder `venv` must hold an installed engine, and gets its log.
    """

    def __init__(
        self,
        choice: Choice,
        *,
        venv: Path = DEFAULT_VENV,
        port: int = DEFAULT_PORT,
        progress: Progress | None = None,
        attended: bool = True,
        loading_timeout: float | None = None,
    ) -> None:
        self.choice = choice
        self.port = port
        self._venv = venv.absolute()
        self._progress = progress or Progress()
        self._attended = attended
        self._loading_timeout = loading_timeout or LOADING_TIMEOUT[choice.device]
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def log(self) -> Path:
        return self._venv / "run" / f"{self.port}.log"

    def start(self) -> Self:
        """Start the engine and wait until it answers.

        Once it has died it may be started again; its log then goes on. SettingsError where it is not installed or the port is taken;
        EngineUnavailable, with the end of its log, where it dies or does not get ready in time. Nothing is left running then, nor after Ctrl-C.
        """
        if not is_installed(self.choice.device, self._venv):
            raise SettingsError(f"No engine is installed in {self._venv}, or not wholly: gemma3n engine install")
        if self.port:
            check_port(self.port)
        else:
            self.port = free_port()
        try:
            with self._progress.step(f"Loading {self.choice.name}") as note:
                self._spawn()
                deadline = time.monotonic() + self._loading_timeout
                while not is_ready(self.url):
                    self._check_loading(deadline)
                    note("".join(last_lines(self.log, 1)))
                    time.sleep(_ASK_EVERY)
        except BaseException:
            self.stop()
            raise
        return self

    def alive(self) -> bool:
        return self._guard is not None and self._guard.poll() is None

    def last_lines(self, count: int = 15) -> list[str]:
        """The last lines of the engine's log."""
        return last_lines(self.log, count)

    def check_alive(self) -> None:
        """EngineUnavailable, with the end of its log, if the engine has died."""
        if not self.alive():
            raise EngineUnavailable(self.obituary())

    def obituary(self) -> str:
        """That the engine has died, of what, and the end of its log."""
        return f"The engine has ended by itself. {self._why()}{shown(self.log)}"

    def stop(self) -> None:
        """End the engine and all its processes; returns when they are gone. Harmless when it is not running."""
        if self._guard is not None:
            self._guard.terminate()
            self._guard.wait()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self.stop()

    def _spawn(self) -> None:
        again = "ab" if self._guard is not None else "wb"  # of what it died stays in the log
        with claimed(self._venv, self.port) as descriptor, self.log.open(again) as log:
            env = environment(self.choice, os.environ)
            line = command(self.choice, self.port, self._venv)
            self._guard = spawn(line, env=env, log=log, attended=self._attended, keep=[descriptor])
            write(descriptor, Record(self.port, self._guard.pid, self.choice.name, str(self.log), self._attended))

    def _check_loading(self, deadline: float) -> None:
        if not self.alive():
            raise EngineUnavailable(f"The engine ended while it was loading. {self._why()}{shown(self.log)}")
        if time.monotonic() > deadline:
            raise EngineUnavailable(f"The engine was not ready within {self._loading_timeout:.0f} s, and was ended. {shown(self.log)}")

    def _why(self) -> str:
        assert self._guard is not None
        crashes = _CRASHED.findall("\n".join(last_lines(self.log, _LAST_WORDS)))  # SGLang then kills itself, all of it
        if crashes and crashes[-1] != "-9":
            return f"One of its processes crashed, with exit code {crashes[-1]}. "
        if self._guard.returncode == _KILLED:
            return "It was killed, most likely because this machine ran out of memory: the demo takes 3 GB. "
        return f"Its exit code was {self._guard.returncode}. "
