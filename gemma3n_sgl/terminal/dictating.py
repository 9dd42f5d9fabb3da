"""`gemma3n transcribe --microphone`: what is said is written down while it is said; Ctrl-C ends the recording, and not the program."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType

from gemma3n_sgl.errors import InvalidValue
from gemma3n_sgl.events import Segment
from gemma3n_sgl.media import open_microphone
from gemma3n_sgl.subtitles import Format, clock
from gemma3n_sgl.terminal.given import STDIN
from gemma3n_sgl.terminal.showing import say
from gemma3n_sgl.terminal.transcribing import Hear, deliver, jobs_of, write


async def dictate(output: str, format_: Format, hear: Hear, *, again: bool) -> None:
    """Hear the microphone until Ctrl-C. Text goes to the standard output as it comes, or, with `output`, to that file at the end.

    Raises MediaError where nothing can be recorded, and InvalidValue where the file is there already.
    """
    job = jobs_of([STDIN], output, format_)[0]
    live = job.is_live(format_)
    if job.target is not None and job.target.exists() and not again:
        raise InvalidValue(f"{job.target} is there already; --again writes it anew.")
    with open_microphone() as recording, ctrl_c_ends(recording.stop):
        say(f"Listening, through {recording.recorder}. Ctrl-C ends it.", "dim")
        done = await hear(recording, (lambda segment: None) if live else _tell, write if live else lambda text: None)
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


def _tell(segment: Segment) -> None:
    say(f"[{clock(segment.start)}] {segment.text}", "dim")
