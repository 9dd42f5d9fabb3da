"""Steps that take a while, told to a person: on a terminal a line that lives, elsewhere one line as a step begins and one as it ends."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import Progress as Bar
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

Note = Callable[[str], None]

log = logging.getLogger("gemma3n")


class Progress:
    """Tells on standard error, or on the console given: `Progress(Console(quiet=True))` tells nothing."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False, markup=False, soft_wrap=True)

    def say(self, text: str) -> None:
        with suppress(OSError, SystemExit):  # whoever read it has gone; rich makes SystemExit of a broken pipe
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def warn(self, text: str) -> None:
        """Say what somebody may have to look after."""
        self.say(text)

    @contextmanager
    def step(self, title: str) -> Iterator[Note]:
        """A step; what it is given is shown beside it on a terminal, with the time gone by, ten times a second."""
        begun = time.monotonic()
        if not self._console.is_terminal:
            self.say(f"{title} …")
        columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn(), _NoteColumn())
        with Bar(*columns, console=self._console, transient=True, disable=not self._console.is_terminal) as bar:
            task = bar.add_task(title, total=None, note="")
            yield lambda text: bar.update(task, note=text)
        self.say(f"{title}: done in {time.monotonic() - begun:.0f} s")


class LoggedProgress(Progress):
    """Tells in the log, where a machine reads that."""

    def __init__(self) -> None:
        super().__init__(Console(quiet=True, force_terminal=False))

    def say(self, text: str) -> None:
        log.info("%s", text)

    def warn(self, text: str) -> None:
        log.warning("%s", text)


class _NoteColumn(TextColumn):
    """The note of a step, on one line however long it is."""

    def __init__(self) -> None:
        super().__init__("{task.fields[note]}", markup=False, style="dim")

    def render(self, task: object) -> Text:
        text = super().render(task)  # type: ignore[arg-type]  # rich's Task, which is all that is ever given
        text.truncate(60, overflow="ellipsis")
        return text
