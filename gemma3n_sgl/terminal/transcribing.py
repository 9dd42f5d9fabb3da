"""`gemma3n transcribe`: recordings into texts and subtitles, on the terminal, beside the files or where -o says."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic_core import to_json
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from gemma3n_sgl.bridge import in_pool, in_thread
from gemma3n_sgl.conversation import Recording
from gemma3n_sgl.errors import Gemma3nError, InvalidValue, MediaError
from gemma3n_sgl.events import Done, Segment
from gemma3n_sgl.media import Limits, open_recording, playing_time
from gemma3n_sgl.media.sniffing import HEAD, sound_kind
from gemma3n_sgl.openai.writing import usage
from gemma3n_sgl.running import side_by_side
from gemma3n_sgl.subtitles import Format, srt, vtt
from gemma3n_sgl.terminal.given import STDIN
from gemma3n_sgl.terminal.journal import About, Journal, fingerprint, part_of
from gemma3n_sgl.terminal.showing import above_bars, console, safe, say, tell_error
from gemma3n_sgl.transcript import DAMAGED

Hear = Callable[[Recording, Callable[[Segment], None], Callable[[str], None]], Awaitable[Done]]
"""Hears a recording; the second and third argument are told of each segment and each piece of text."""

FILES_AT_ONCE = 4
"""Recordings that are heard side by side: short ones, each of a clip or two, keep an engine busy only together."""


@dataclass(frozen=True)
class Job:
    """One recording, and the file its text goes to (None: the standard output)."""

    name: str
    source: Path | None
    target: Path | None

    def recording(self) -> Recording:
        if self.source is None:
            with open(0, "rb", closefd=False) as stdin:  # sys.stdin's own buffer is locked while a read waits, also when the program is to end
                return open_recording(stdin, limits=Limits(), name=self.name)
        return open_recording(self.source, limits=Limits(), name=self.name)

    def is_live(self, format_: Format) -> bool:
        """Whether its text is told as it comes."""
        return self.target is None and format_ == "txt"

    def journal(self, asked: About, *, again: bool) -> Journal | None:
        """What was heard of it for a file that did not become whole; `asked` is how it is to be heard. None where it can't be kept."""
        if self.source is None or self.target is None or not self.source.is_file():
            return None
        journal = Journal(self.target, {"recording": fingerprint(self.source)} | asked)
        if again:
            journal.forget()
        elif journal:
            say(f"{self.target}: going on from {journal.path.name}, where {_parts(len(journal))} heard already.", "dim")
        elif journal.anew:
            say(f"{self.target}: begun anew, not from {journal.path.name}: {journal.anew}.", "dim")
        return journal


def jobs_of(files: list[str], output: str, format_: Format) -> list[Job]:
    """What there is to do. A folder stands for the recordings in it. Raises InvalidValue where that can't be said."""
    sources = [source for file in files for source in _sources(file)]
    if not sources:
        raise InvalidValue("There is no recording there. Give files of sound, or folders that hold some.")
    into = Path(output) if output else None
    several = len(sources) > 1
    if into and several and into.suffix and not into.is_dir():
        raise InvalidValue(f"{len(sources)} recordings don't go into one file. Give -o a folder.")
    jobs = []
    for source in sources:
        name = STDIN if source is None else str(source)
        stem = "recording" if source is None else source.stem
        if into is None:
            target = source.with_suffix(f".{format_}") if several and source else None
        else:
            target = into / f"{stem}.{format_}" if several or into.is_dir() or output.endswith(os.sep) else into
        jobs.append(Job(name, source, target))
    if len({job.target for job in jobs if job.target}) < sum(job.target is not None for job in jobs):
        raise InvalidValue("Two recordings have the same name, and would go into one file. Give them one at a time.")
    return jobs


def format_of(output: str, given: Format | None) -> Format:
    """The format that is asked for, else that of the output's name, else plain text."""
    suffix = Path(output).suffix.lstrip(".").lower()
    if given is None and suffix in ("txt", "srt", "vtt", "json"):
        return suffix  # type: ignore[return-value]  # just seen to be one of them
    return given or "txt"


async def transcribe_all(jobs: list[Job], format_: Format, hear: Hear, asked: About, *, again: bool) -> int:
    """Do them, a few side by side; one that fails is told and the others go on. How many failed.

    `asked` is all that `hear` makes of a recording depends on: what was heard before is taken up only if it is the same.
    """
    failed, places = 0, asyncio.Semaphore(FILES_AT_ONCE)

    async def do(job: Job, title: str) -> None:
        nonlocal failed
        async with places:
            try:
                await _transcribe(job, title, format_, hear, job.journal(asked, again=again), progress)
            except Gemma3nError as error:
                failed += 1
                tell_error(error if job.name in error.message else type(error)(f"{job.name}: {error.message}"))

    wanted = [job for job in jobs if again or _is_to_do(job)]
    if not wanted:
        return 0
    many = f" ({{}} of {len(wanted)})" if len(wanted) > 1 else ""
    with _progress(shown=not any(job.is_live(format_) for job in wanted)) as progress:
        await side_by_side([do(job, Path(job.name).name + many.format(number)) for number, job in enumerate(wanted, 1)])
    return failed


def _is_to_do(job: Job) -> bool:
    if job.target and job.target.exists() and not part_of(job.target).exists():
        say(f"{job.target} is there already; --again hears {job.name} anew.", "dim")
        return False
    return True


async def _transcribe(job: Job, title: str, format_: Format, hear: Hear, journal: Journal | None, progress: Progress) -> None:
    recording, live = replace(await in_thread(job.recording), memory=journal), job.is_live(format_)
    bar = progress.add_task(title, total=None if progress.disable else await in_pool(playing_time, recording))
    try:
        with _kept(job, journal):
            done = await hear(recording, lambda heard: progress.update(bar, completed=heard.end), write if live else lambda text: None)
    finally:
        progress.remove_task(bar)
    if live:
        write("\n")
    deliver(job, done, format_, written=live)
    unheard = sum(segment.error not in (None, DAMAGED) for segment in done.segments)
    if journal and unheard:
        say(f"{job.name}: {_parts(unheard)} not heard; the same command asks about {'it' if unheard == 1 else 'them'} again.", "yellow")
    elif journal is not None:
        journal.remove()


def deliver(job: Job, done: Done, format_: Format, *, written: bool) -> None:
    """Put what was heard where it is to go, if that is still to do, and tell what could not be heard."""
    if job.target is not None:
        _save(job.target, _text(done, format_))
        say(f"{job.name} → {job.target}", whole=True)
    elif not written:
        write(_text(done, format_))
    for segment in done.segments:
        if segment.error:
            say(f"{job.name}: {segment.text} {segment.error}", "yellow")


def _parts(count: int) -> str:
    return "1 part is" if count == 1 else f"{count} parts are"


def _text(done: Done, format_: Format) -> str:
    if format_ == "srt":
        return srt(done.segments)
    if format_ == "vtt":
        return vtt(done.segments)
    if format_ == "txt":
        return done.answer.strip() + "\n"
    segments = [{"start": s.start, "end": s.end, "text": s.text} | ({"error": s.error} if s.error else {}) for s in done.segments]
    whole: dict[str, Any] = {"text": done.answer.strip(), "segments": segments, "usage": usage(done.usage)}
    return to_json(whole).decode() + "\n"


def write(text: str) -> None:
    sys.stdout.write(safe(text, sys.stdout))
    sys.stdout.flush()


def _save(target: Path, text: str) -> None:
    """Write a file that is whole or not there."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=target.parent, prefix=f".{target.name}.", delete=False) as new:
            new.write(text)
        Path(new.name).chmod(0o644)
        Path(new.name).replace(target)
    except OSError as error:
        raise MediaError(f"{target} can't be written: {(error.strerror or 'unknown reason').lower()}.") from None


@contextmanager
def _kept(job: Job, journal: Journal | None) -> Iterator[None]:
    """If the job is broken off, a word on what stays of it."""
    try:
        yield
    except (asyncio.CancelledError, Gemma3nError):
        if journal:
            say(f"{job.name}: {_parts(len(journal))} heard, kept in {journal.path}; the same command goes on from there.", "dim")
        raise


@contextmanager
def _progress(*, shown: bool) -> Iterator[Progress]:
    """Bars that fill as recordings are heard, where somebody watches."""
    there = console(stderr=True)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.percentage:3.0f} %"), TimeRemainingColumn())
    with Progress(*columns, console=there, transient=True, disable=not (shown and there.is_terminal)) as progress, above_bars(there):
        yield progress


def _sources(given: str) -> Iterator[Path | None]:
    if given == STDIN:
        yield None
        return
    path = Path(given).expanduser()
    if path.is_dir():
        yield from sorted(file for file in path.rglob("*") if file.is_file() and _is_sound(file))
    elif path.exists():
        yield path
    else:
        raise InvalidValue(f"There is no file {given!r}. Check its name.")


def _is_sound(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return sound_kind(opened.read(HEAD)) is not None
    except OSError:
        return False
