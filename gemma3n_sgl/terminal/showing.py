"""What a run says, on a terminal, in a pipe or as JSON. The answer alone goes to the standard output; all else to the standard error."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pydantic_core import to_json
from rich.console import Console

from gemma3n_sgl.errors import Gemma3nError, ProgramError, RequestError, SettingsError
from gemma3n_sgl.events import Delta, Done, Event, Step
from gemma3n_sgl.openai.writing import error_object, tool_call, usage

OK, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: fine; the run failed; wrong usage or bad input; Ctrl-C."""

PATIENCE = 1.0
"""Seconds of silence after which a person is told that something is going on."""

PIPE_WIDTH = 240
"""Columns of a table that no terminal shows."""

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


_with_bars: list[Console] = []


@contextmanager
def above_bars(there: Console) -> Iterator[None]:
    """Bars are drawn on this console within: what is said meanwhile goes above them."""
    _with_bars.append(there)
    try:
        yield
    finally:
        _with_bars.remove(there)


def console(*, stderr: bool = False) -> Console:
    """Plain where nobody watches and where NO_COLOR is set; lines are never wrapped for a pipe."""
    if stderr and _with_bars:
        return _with_bars[-1]
    stream = sys.stderr if stderr else sys.stdout
    plain = bool(os.environ.get("NO_COLOR")) or not stream.isatty()
    width = None if stream.isatty() else PIPE_WIDTH
    return Console(file=stream, color_system=None if plain else "auto", highlight=False, markup=False, width=width)


def say(text: str, style: str = "", *, stderr: bool = True, whole: bool = False) -> None:
    """A line for a person, wrapped at words to fit a terminal; never in a pipe, nor where it is to be copied as a `whole`."""
    there = console(stderr=stderr)
    there.print(safe(text, there.file), style=style, soft_wrap=whole or not there.is_terminal)


def exit_code(error: Exception) -> int:
    return WRONG if isinstance(error, RequestError | SettingsError) else FAILED


def tell_error(error: Exception, *, as_json: bool = False) -> None:
    """Say what went wrong: an error of ours in its own words, anything else as the bug it is."""
    if not isinstance(error, Gemma3nError):
        error = Gemma3nError(f"Something went wrong in this program ({type(error).__name__}: {error}). --debug shows where.")
    elif isinstance(error, ProgramError):
        error = ProgramError(f"{error.message} --debug shows where.")
    if as_json:
        print_json(error_object(error))
    else:
        say(f"Error: {error.message}", "red")


def print_json(value: Any) -> None:
    sys.stdout.write(to_json(value).decode() + "\n")


class Waiting:
    """A sign of life on the terminal, from the second second of silence on."""

    def __init__(self, what: str) -> None:
        self._status = console(stderr=True).status(what)
        self._timer: asyncio.TimerHandle | None = None

    def begin(self) -> None:
        if sys.stderr.isatty():
            self._timer = asyncio.get_running_loop().call_later(PATIENCE, self._status.start)

    def end(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._status.stop()
            self._timer = None


async def show(events: AsyncIterator[Event], heard: Callable[[str], object] = lambda text: None) -> Done:
    """Print a run as it goes on: steps dimmed, the answer as it comes. `heard` is called with each piece of the answer."""
    waiting, begun = Waiting("thinking…"), False
    waiting.begin()
    try:
        async for event in events:
            waiting.end()
            if isinstance(event, Step):
                say(f"{event.name}: {event.text.strip()}", "dim")
                waiting.begin()
            elif isinstance(event, Delta):
                heard(event.text)
                sys.stdout.write(safe(event.text if begun else event.text.lstrip(), sys.stdout))
                sys.stdout.flush()
                begun = begun or bool(event.text.strip())
    finally:
        waiting.end()
        if begun:
            sys.stdout.write("\n")
            sys.stdout.flush()
    assert isinstance(event, Done)
    for call in event.calls:
        sys.stdout.write(safe(f"{call.name}({call.arguments})\n", sys.stdout))
    if not begun and not event.calls:
        say("(the answer is empty)", "dim")
    if event.finish_reason == "length":
        say("(cut off: the limit of length was reached)", "dim")
    return event


async def show_json(events: AsyncIterator[Event]) -> Done:
    """Print a run as one JSON object when it is over."""
    steps, waiting = [], Waiting("thinking…")
    waiting.begin()
    try:
        async for event in events:
            if isinstance(event, Step):
                steps.append({"name": event.name, "text": event.text})
    finally:
        waiting.end()
    assert isinstance(event, Done)
    called = {"tool_calls": [tool_call(call) for call in event.calls]} if event.calls else {}
    print_json({"answer": event.answer, "steps": steps} | called | {"finish_reason": event.finish_reason, "usage": usage(event.usage)})
    return event


def safe(text: str, stream: Any) -> str:
    """Text without what would command a terminal; in a pipe it stays as it is."""
    return _CONTROLS.sub("", text) if stream.isatty() else text
