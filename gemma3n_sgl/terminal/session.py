"""Programs run for a person at a terminal: one engine, one event loop, Ctrl-C ends the run and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, TypeVar

from gemma3n_sgl import running
from gemma3n_sgl.client import endpoint_of
from gemma3n_sgl.errors import EngineUnavailable
from gemma3n_sgl.events import Done, Event
from gemma3n_sgl.program import Program
from gemma3n_sgl.running import Budget
from gemma3n_sgl.sampling import Sampling
from gemma3n_sgl.settings import Settings, without_login
from gemma3n_sgl.terminal.showing import show, show_json

T = TypeVar("T")


class Session:
    """`with Session(settings) as session: session.answer(program, arguments)`."""

    def __init__(self, settings: Settings, sampling: Sampling | None = None, *, as_json: bool = False) -> None:
        self._settings, self._sampling, self._as_json = settings, sampling, as_json
        self._endpoint = endpoint_of(settings)
        self._loop = asyncio.Runner()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.run(self._endpoint.client.aclose())
        self._loop.close()

    def answer(self, program: Program, arguments: dict[str, Any], heard: Callable[[str], object] = lambda text: None) -> Done:
        """Run a program and print what it says. Raises our errors, and KeyboardInterrupt when the engine has been let go."""
        return self.run(self._answer(program, arguments, heard))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Do something on the loop; Ctrl-C ends it, and is raised then."""
        return self._loop.run(work)

    async def hear(self, program: Program, arguments: dict[str, Any], told: Callable[[Event], object]) -> Done:
        """Run a program and hand each of its events to `told`."""
        with self._hinting():
            async for event in self._events(program, arguments):
                told(event)
        assert isinstance(event, Done)
        return event

    async def _answer(self, program: Program, arguments: dict[str, Any], heard: Callable[[str], object]) -> Done:
        events = self._events(program, arguments)
        with self._hinting():
            return await (show_json(events) if self._as_json else show(events, heard))

    @contextmanager
    def _hinting(self) -> Iterator[None]:
        try:
            yield
        except EngineUnavailable as error:
            hint = f"It is looked for at {without_login(self._settings.runtime_url)}: `gemma3n engine start` starts one, --runtime-url names another."
            raise EngineUnavailable(f"{error.message} {hint}") from error

    def _events(self, program: Program, arguments: dict[str, Any]) -> AsyncGenerator[Event]:
        budget = Budget.of(self._settings)
        return running.stream(program, arguments, self._endpoint, self._sampling, budget)
