"""What a notebook shows: sound with a player and its waveform, what was heard as a table, a bar while it is heard.

HTML and SVG that stand for themselves, without scripts, so that a saved notebook shows them too.
"""

from __future__ import annotations

import base64
import html
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm.auto import tqdm

from gemma3n_sgl.conversation import SAMPLE_RATE, Audio, Conversation, Recording
from gemma3n_sgl.errors import Gemma3nError
from gemma3n_sgl.events import Done, Segment
from gemma3n_sgl.media import Live, playing_time
from gemma3n_sgl.media.decoding import BYTES_PER_SECOND, blocks
from gemma3n_sgl.media.sniffing import HEAD, sound_kind
from gemma3n_sgl.shown import shown
from gemma3n_sgl.subtitles import clock

SHOWN_BYTES = 5_000_000
"""Size of a file up to which a notebook holds it."""

FIRST = 29
"""Seconds that are played of what is larger, or of a format that browsers don't play."""

LOOKED_AT = 600
"""Seconds of which a waveform is drawn at most: to decode them takes a second."""

_PLAYED = {"wav": "wav", "mp3": "mpeg", "flac": "flac", "ogg": "ogg", "mov": "mp4", "matroska": "webm", "aac": "aac"}
"""Formats that browsers play, and what they call them."""

_WIDTH, _HEIGHT = 480, 48
_CELL = "text-align: left; vertical-align: top"
_BAR = "{desc}: {percentage:3.0f}% {bar} {n:.0f}/{total:.0f} s [{elapsed}<{remaining}]"


@shown.register
def clip_html(clip: Audio) -> str:
    return f"{waveform(clip.pcm)}<br>{_player(clip.data_uri)}"


@shown.register
def recording_html(recording: Recording) -> str:
    """Its name and length, a waveform and a player, or why there is none."""
    name = f"<b>Recording</b> {html.escape(recording.name)}"
    if isinstance(recording, Live):
        return name
    try:
        pcm = _beginning(recording)
        whole = len(pcm) < LOOKED_AT * BYTES_PER_SECOND
        seconds = len(pcm) / BYTES_PER_SECOND if whole else playing_time(recording) or LOOKED_AT
        played, note = _played(recording, pcm)
    except (Gemma3nError, OSError) as error:
        return f"{name}: {html.escape(error.message if isinstance(error, Gemma3nError) else 'its file is gone.')}"
    drawn = "" if whole else f", the first {clock(LOOKED_AT)} drawn"
    return f"{name}, {clock(round(seconds))}{drawn}{note}<br>{waveform(pcm)}<br>{_player(played)}"


@shown.register
def done_html(done: Done) -> str | None:
    """A table of what was heard, with its times; None where nothing was."""
    if not done.segments:
        return None
    rows = "".join(map(_row, done.segments))
    head = "".join(f'<th style="{_CELL}">{title}</th>' for title in ("from", "to", "heard"))
    return f'<div style="max-height: 30em; overflow: auto"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>'


def waveform(pcm: bytes) -> str:
    """An SVG of the loudest samples, column by column."""
    samples = np.abs(np.frombuffer(pcm, dtype="<i2").astype(np.int32))
    bounds = np.linspace(0, len(samples), _WIDTH // 2 + 1).astype(int)[:-1]
    peaks: NDArray[Any] = np.maximum.reduceat(samples, bounds) if len(samples) > len(bounds) else samples
    half = _HEIGHT / 2
    reach = half * peaks / max(int(peaks.max(initial=0)), 1)
    lines = " ".join(f"M{2 * x + 1} {half - y:.1f}V{half + max(y, 0.5):.1f}" for x, y in enumerate(reach))
    size = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="waveform" {size}><path d="{lines}" stroke="#4a7ebb" fill="none"/></svg>'


@contextmanager
def watching(arguments: Mapping[str, Any], name: str, *, wanted: bool | None) -> Iterator[Callable[[object], None] | None]:
    """A bar for a run that hears a recording, which is to be told of its events: if `wanted`, or, where nothing is said (None), in a notebook."""
    recordings = [recording for value in arguments.values() for recording in _recordings(value)]
    if not recordings or not ("ipykernel" in sys.modules if wanted is None else wanted):
        yield None
        return
    total = playing_time(recordings[0]) if len(recordings) == 1 else None
    with tqdm(total=total, desc=name, unit="s", bar_format=_BAR if total else None) as bar:

        def tell(event: object) -> None:
            if isinstance(event, Segment):
                bar.update(max(0.0, event.end - bar.n))
            elif isinstance(event, Done) and total:
                bar.update(total - bar.n)

        yield tell


def _recordings(value: object) -> list[Recording]:
    """Those in an argument, which may be a talk; sound that is still being made has no length."""
    held = value.only(Recording) if isinstance(value, Conversation) else value if isinstance(value, list) else [value]
    return [part for part in held if isinstance(part, Recording) and not isinstance(part, Live)]


def _beginning(recording: Recording) -> bytes:
    """The samples of the first `LOOKED_AT` s."""
    pcm = bytearray()
    for block in blocks(recording):
        pcm += block if isinstance(block, bytes) else bytes(2 * round(min(block.seconds, LOOKED_AT) * SAMPLE_RATE))
        if len(pcm) >= LOOKED_AT * BYTES_PER_SECOND:
            break
    return bytes(pcm[: LOOKED_AT * BYTES_PER_SECOND])


def _played(recording: Recording, pcm: bytes) -> tuple[str, str]:
    """A data URI of what a player gets, and a note on what that is."""
    source = recording.source
    size = source.stat().st_size if isinstance(source, Path) else len(source)
    if size <= SHOWN_BYTES:
        data = source.read_bytes() if isinstance(source, Path) else source
        if kind := _PLAYED.get(sound_kind(data[:HEAD]) or ""):
            return f"data:audio/{kind};base64,{base64.b64encode(data).decode()}", ""
    first = pcm[: FIRST * BYTES_PER_SECOND]
    return Audio.from_pcm(first).data_uri, f", the first {FIRST} s to play" if len(pcm) > len(first) else ""


def _player(uri: str) -> str:
    return f'<audio controls preload="metadata" src="{uri}"></audio>'


def _row(segment: Segment) -> str:
    told = html.escape(segment.text) + (f" <i>{html.escape(segment.error)}</i>" if segment.error else "")
    cells = (clock(segment.start), clock(segment.end), told)
    return "<tr>" + "".join(f'<td style="{_CELL}">{cell}</td>' for cell in cells) + "</tr>"
