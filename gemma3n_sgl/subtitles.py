"""What was heard, with its times, as subtitles: SubRip and WebVTT."""

from __future__ import annotations

from collections.abc import Iterable

from gemma3n_sgl.events import Segment


def srt(segments: Iterable[Segment]) -> str:
    """SubRip: numbered from 1, times with a comma, an empty line between."""
    shown = [f"{i}\n{_time(s.start, ',')} --> {_time(s.end, ',')}\n{_plain(s.text)}\n" for i, s in enumerate(segments, 1)]
    return "\n".join(shown)


def vtt(segments: Iterable[Segment]) -> str:
    """WebVTT: a head, then times with a point. What would be markup is written so that it is read as text."""
    shown = [f"{_time(s.start, '.')} --> {_time(s.end, '.')}\n{_escaped(_plain(s.text))}\n" for s in segments]
    return "\n".join(["WEBVTT\n", *shown])


def _time(seconds: float, point: str) -> str:
    whole = round(seconds * 1000)
    return f"{whole // 3_600_000:02}:{whole // 60_000 % 60:02}:{whole // 1000 % 60:02}{point}{whole % 1000:03}"


def _plain(text: str) -> str:
    """Text on lines that are not empty: an empty one ends a cue, and an arrow would begin another."""
    return "\n".join(line.strip() for line in text.replace("-->", "→").splitlines() if line.strip())


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
