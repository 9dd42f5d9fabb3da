"""Programs as functions, for notebooks and scripts: `gemma = connect(); gemma.run(describe, open_image("cat.jpg"))`."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from sglang.lang.ir import SglFunction
from tqdm.auto import tqdm

from gemma3n_sgl import running
from gemma3n_sgl.bridge import in_program, on_background, wait
from gemma3n_sgl.conversation import Conversation, Part
from gemma3n_sgl.endpoint import Gemma3nEndpoint
from gemma3n_sgl.errors import InvalidValue
from gemma3n_sgl.events import Done, Event
from gemma3n_sgl.notebook import watching
from gemma3n_sgl.program import Program
from gemma3n_sgl.running import Budget
from gemma3n_sgl.sampling import Sampling
from gemma3n_sgl.settings import Settings
from gemma3n_sgl.transport import Deadlines


def endpoint_of(settings: Settings) -> Gemma3nEndpoint:
    """The engine the settings name."""
    deadlines = Deadlines(settings.connect_timeout, settings.first_token_timeout, settings.token_timeout)
    return Gemma3nEndpoint(settings.runtime_url, settings.engine_key, deadlines=deadlines, shared=settings.runtime_shared or settings.workers > 1)


def connect(url: str | None = None, *, settings: Settings | None = None) -> Gemma:
    """An engine to run programs on: at `url`, else where `GEMMA3N_RUNTIME_URL` says, else at http://127.0.0.1:30000.

    Asks nothing of the network yet; a first run tells when nobody is there (EngineUnavailable). SettingsError where `url` is none.
    """
    settings = settings or Settings.from_env(os.environ)
    if url:
        settings = settings.model_copy(update={"runtime_url": Settings.from_env({"GEMMA3N_RUNTIME_URL": url}).runtime_url})
    return Gemma(endpoint_of(settings), Budget.of(settings))


class Gemma:
    """Runs programs from code without an event loop; in a notebook too, whose own loop stays free.

    Values are given by position, as a user would put them in one message (`gemma.run(vision, picture, "What is this?")`),
    or by the names of the program's parameters; options by name.
    """

    def __init__(self, endpoint: Gemma3nEndpoint, budget: Budget | None = None) -> None:
        self.endpoint = endpoint
        self.budget = budget or Budget()

    def run(
        self, function: SglFunction, *parts: Part | Conversation, sampling: Sampling | None = None, progress: bool | None = None, **values: Any
    ) -> Done:
        """Run a program to its end. Raises the errors of `gemma3n_sgl.errors`; Ctrl-C ends the run in the engine too.

        While a recording is heard a bar shows how far it is, in a notebook, or if `progress` is True.
        """
        program, arguments = _bound(function, parts, values)
        with watching(arguments, program.name, wanted=progress) as told:
            if told is None:
                return wait(running.run(program, arguments, self.endpoint, sampling, self.budget))
            for event in self._events(program, arguments, sampling):
                told(event)
        assert isinstance(event, Done)
        return event

    def stream(self, function: SglFunction, *parts: Part | Conversation, sampling: Sampling | None = None, **values: Any) -> Iterator[Event]:
        """Run a program and yield `Step`, `Delta` and at last `Done`, as they come. Leaving early ends the run."""
        program, arguments = _bound(function, parts, values)
        yield from self._events(program, arguments, sampling)

    def _events(self, program: Program, arguments: dict[str, Any], sampling: Sampling | None) -> Iterator[Event]:
        events = running.stream(program, arguments, self.endpoint, sampling, self.budget)
        try:
            while (event := wait(_next(events))) is not None:
                yield event
        finally:
            if not (in_program() or on_background()):  # there a loop that can't be waited for closes it, as soon as nobody has it
                wait(_aclose(events))

    def run_batch(
        self,
        function: SglFunction,
        batch: Sequence[Mapping[str, Any]],
        *,
        sampling: Sampling | None = None,
        concurrency: int = 32,
        progress: bool = True,
    ) -> list[Done]:
        """Run a program once for each mapping of arguments, `concurrency` at a time, with a progress bar; results in order.

        The first error ends the batch.
        """
        program = Program.of(function, file_doc=function.func.__name__)
        arguments = [program.arguments(values) for values in batch]
        return wait(self._batch(program, arguments, sampling, concurrency, progress))

    async def _batch(
        self, program: Program, batch: list[dict[str, Any]], sampling: Sampling | None, concurrency: int, progress: bool
    ) -> list[Done]:
        gate = asyncio.Semaphore(concurrency)
        with tqdm(total=len(batch), desc=program.name, disable=not progress) as bar:

            async def one(arguments: dict[str, Any]) -> Done:
                async with gate:
                    done = await running.run(program, arguments, self.endpoint, sampling, self.budget)
                bar.update()
                return done

            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(one(arguments)) for arguments in batch]
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
        return [task.result() for task in tasks]


def _bound(function: SglFunction, parts: Sequence[Part | Conversation], values: Mapping[str, Any]) -> tuple[Program, dict[str, Any]]:
    program = Program.of(function, file_doc=function.func.__name__)
    if not parts:
        return program, program.arguments(values)
    talks = [part for part in parts if isinstance(part, Conversation)]
    if not talks:
        return program, program.bind(Conversation.of(*parts), values)  # type: ignore[arg-type]  # just seen to be parts
    if len(parts) > 1:
        raise InvalidValue("A Conversation is given alone. Put what else is said into its last turn.")
    return program, program.bind(talks[0], values)


async def _next(events: AsyncIterator[Event]) -> Event | None:
    return await anext(events, None)


async def _aclose(events: Any) -> None:
    while events.ag_running:  # noqa: ASYNC110 - Ctrl-C has just cancelled what it waits for, and nothing tells when that has ended
        await asyncio.sleep(0.01)
    await events.aclose()
