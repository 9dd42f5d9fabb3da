"""A microphone as a recording that is heard while it is being made, through whichever recorder program is there."""

from __future__ import annotations

import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from queue import SimpleQueue
from shutil import which
from threading import Thread
from typing import Any

from gemma3n_sgl.conversation import SAMPLE_RATE, Recording
from gemma3n_sgl.errors import MediaError

_RATE = str(SAMPLE_RATE)
_FFMPEG = ("-loglevel", "quiet", "-nostdin")
_RAW = ("-ac", "1", "-ar", _RATE, "-f", "s16le", "-")
RECORDERS = (
    ("pw-record", "-a", "--rate", _RATE, "--channels", "1", "--format", "s16", "-"),
    ("parec", "--raw", "--format=s16le", f"--rate={_RATE}", "--channels=1", "--latency-msec=100"),
    ("arecord", "-q", "-t", "raw", "-f", "S16_LE", "-r", _RATE, "-c", "1"),
    ("rec", "-q", "-t", "raw", "-e", "signed-integer", "-b", "16", "-L", "-r", _RATE, "-c", "1", "-"),
    *((("ffmpeg", *_FFMPEG, "-f", "avfoundation", "-i", ":default", *_RAW),) if sys.platform == "darwin" else ()),
    ("ffmpeg", *_FFMPEG, "-f", "pulse", "-i", "default", *_RAW),
    ("ffmpeg", *_FFMPEG, "-f", "alsa", "-i", "default", *_RAW),
)
"""Commands that write raw sound of the default microphone to their standard output. Some fail: pw-record knows -a since PipeWire 1.2, and each
needs its own sound server. So the first that gives a sample is taken."""

_MISSING = (
    "There is no program here that records. Install one: pw-record (PipeWire), parec (PulseAudio), arecord (alsa-utils), rec (SoX) or ffmpeg."
)
_PIECE = SAMPLE_RATE // 2
"""Bytes of a quarter of a second."""

_PATIENCE = 5.0
"""Seconds in which a recorder gives its first sample: also a quiet room sounds, and one that is woken up takes a second."""

_ALONE: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
"""A recorder gets no Ctrl-C of the terminal's, which goes to a whole group of processes."""


@dataclass(frozen=True)
class Live(Recording):
    """Sound that is still being made: it is heard once, and ends when its recorder does. `recorder` is the program's name."""

    source: bytes = b""
    name: str = "the microphone"
    recorder: str = ""
    pieces: Iterator[bytes] = field(default=iter(()), repr=False, compare=False)
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False, compare=False)

    def stop(self) -> None:
        """No more is recorded; what was so far is still heard."""
        if self.process is not None:
            self.process.terminate()


@contextmanager
def open_microphone() -> Iterator[Live]:
    """What the microphone hears from now on. Raises MediaError where no recorder program is there, or none hears anything."""
    there = [command for command in RECORDERS if which(command[0])]
    if not there:
        raise MediaError(_MISSING)
    for command in there:
        with subprocess.Popen(command, stdout=subprocess.PIPE, **_ALONE) as process:
            try:
                assert process.stdout is not None
                ready, _, _ = select.select([process.stdout], [], [], _PATIENCE)
                if ready and (first := process.stdout.read(_PIECE)):
                    yield Live(recorder=command[0], pieces=_kept(first, process), process=process)
                    return
            finally:
                process.terminate()
    names = ", ".join(dict.fromkeys(command[0] for command in there))
    raise MediaError(f"No sound comes from a microphone through {names}. Check that one is plugged in, and that this terminal may use it.")


def _kept(first: bytes, process: subprocess.Popen[bytes]) -> Iterator[bytes]:
    """All that comes, taken from the recorder at once, so that it loses nothing while an engine is slow: 2 MB a minute at most."""
    waiting: SimpleQueue[bytes] = SimpleQueue()
    waiting.put(first)

    def take() -> None:
        assert process.stdout is not None
        with suppress(ValueError):  # it was closed: nobody listens any more
            while piece := process.stdout.read(_PIECE):
                waiting.put(piece[: len(piece) // 2 * 2])
        waiting.put(b"")

    Thread(target=take, name="gemma3n-microphone", daemon=True).start()
    return iter(waiting.get, b"")
