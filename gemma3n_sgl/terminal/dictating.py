"""`gemma3n transcribe --microphone`: what is said is written down while it is said; Ctrl-C ends the recording, and not the program."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType

from gemma3n_sgl.errors import Gemma3nError, InvalidValue
from gemma3n_sgl.events import Done, Segment, Usage
from gemma3n_sgl.media import Live, open_microphone
from gemma3n_sgl.subtitles import Format, clock
from gemma3n_sgl.terminal.given import STDIN
from gemma3n_sgl.terminal.showing import say
from gemma3n_sgl.terminal.transcribing import Hear, Job, deliver, jobs_of, write


async def dictate(output: str, format_: Format, hear: Hear, *, again: bool) -> None:
    """Hear the microphone until Ctrl-C. Text goes to the standard output as it comes, or, with `output`, to that file at the end, be it a bad one:
    what was said can't be heard again.

    Raises MediaError where nothing can be recorded, and InvalidValue where the file is there already.
    """
    job = jobs_of([STDIN], output, format_)[0]
    live = job.is_live(format_)
    if job.target is not None and job.target.exists() and not again:
        raise InvalidValue(f"{job.target} is there already; --again writes it anew.")
    with open_microphone() as recording, ctrl_c_ends(recording.stop):
        say(f"Listening, through {recording.recorder}. Ctrl-C ends it.", "dim")
        heard: list[Segment] = []
        try:
            done = await hear(recording, lambda segment: _take(segment, heard, live=live), write if live else lambda text: None)
        except (Gemma3nError, asyncio.CancelledError):
            if heard:
                whole = Done(" ".join(segment.text for segment in heard), "stop", Usage(), segments=tuple(heard))
                _deliver(job, recording, whole, format_, live=live)
            raise
    _deliver(job, recording, done, format_, live=live)


def _take(segment: Segment, heard: list[Segment], *, live: bool) -> None:
    heard.append(segment)
    if not live:
        say(f"[{clock(segment.start)}] {segment.text}", "dim")


def _deliver(job: Job, recording: Live, done: Done, format_: Format, *, live: bool) -> None:
    if live:
        write("\n")
    deliver(replace(job, name=recording.name), done, format_, written=live)


@contextmanager
def ctrl_c_ends(what: Callable[[], None]) -> Iterator[None]:
    """Within the block the first Ctrl-C calls `what`; a second one is as ever."""

    def end(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, before)
        what()

    before = signal.signal(signal.SIGINT, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
