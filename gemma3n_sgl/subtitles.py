"""What was heard, with its times: as subtitles (SubRip and WebVTT), or as text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from gemma3n_sgl.events import Segment

Form = Literal["srt", "vtt", "text"]
Format = Literal["txt", "srt", "vtt", "json"]
"""What a transcript can be written as, by the name's end of its file."""

HEAD = "WEBVTT\n\n"


def srt(segments: Iterable[Segment]) -> str:
    """SubRip: numbered from 1, times with a comma, an empty line between."""
    return "".join(map(Cues("srt"), segments))


def vtt(segments: Iterable[Segment]) -> str:
    """WebVTT: a head, then times with a point. What would be markup is written so that it is read as text."""
    return "".join(map(Cues("vtt"), segments)) or HEAD


class Cues:
    """Writes segment after segment in a form, for `hear(…, as_text=Cues("srt"))`; "text" has a line with a time for each: [1:02] Hello."""

    def __init__(self, form: Form) -> None:
        self._form = form
        self._count = 0

    def __call__(self, segment: Segment) -> str:
        self._count += 1
        if self._form == "text":
            return f"[{clock(segment.start)}] {' '.join(segment.text.split())}\n"
        between = "\n" if self._count > 1 else ""
        if self._form == "srt":
            times = f"{_time(segment.start, ',')} --> {_time(segment.end, ',')}"
            return f"{between}{self._count}\n{times}\n{_plain(segment.text)}\n"
        times = f"{_time(segment.start, '.')} --> {_time(segment.end, '.')}"
        return f"{between or HEAD}{times}\n{_escaped(_plain(segment.text))}\n"


def clock(seconds: float) -> str:
    """A time in a recording, as players show it: 0:58, 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _time(seconds: float, point: str) -> str:
    whole = round(seconds * 1000)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}{point}{whole % 1000:03}"


def _plain(text: str) -> str:
    """Text on lines that are not empty: an empty one ends a cue, and an arrow would begin another."""
    return "\n".join(line.strip() for line in text.replace("-->", "→").splitlines() if line.strip())


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
