"""Foreign sound → `Audio`, one clip the engine can take, or `Recording`, sound of any length that waits to be heard."""

from __future__ import annotations

import io
from pathlib import Path

from gemma3n_sgl.conversation import MAX_CLIP_SECONDS, Audio, Recording
from gemma3n_sgl.errors import MediaError
from gemma3n_sgl.media.decoding import BYTES_PER_SECOND, exceeds, pcm_of, too_long
from gemma3n_sgl.media.frames import NO_SOUND, UNKNOWN
from gemma3n_sgl.media.limits import DEFAULTS, Limits
from gemma3n_sgl.media.segment import AudioSegment
from gemma3n_sgl.media.sniffing import HEAD, sound_kind
from gemma3n_sgl.media.sources import Source, existing, opened, spooled

MIN_CLIP_SECONDS = 0.5
"""Shorter clips get silence behind them: the engine's feature extractor fails below one frame of 32 ms."""


def open_recording(
    source: Source | AudioSegment | Recording, *, limits: Limits = DEFAULTS, name: str = "", keeper: object = None
) -> Recording:
    """Sound of any length from a path, bytes, an open file or pydub's AudioSegment: WAV, MP3, FLAC, Ogg, M4A, AAC, WebM, MP4, AIFF, AMR.

    It is not decoded yet, only looked at: MediaError if it can't be read or does not begin like sound. A large open file or pipe is copied to a
    temporary one.
    `name` is what a person calls it (a path: its own); `keeper` keeps the file of a path on disk, if that is a temporary one.
    """
    if isinstance(source, Recording):
        return source
    found: bytes | Path
    if isinstance(source, str | Path):
        found = existing(source)
        if not found.is_file():  # a pipe, which can be read only once
            name = name or found.name
            with opened(source) as file:
                found, keeper = spooled(file)
    elif isinstance(source, AudioSegment):
        found = _wav(source)
    elif isinstance(source, bytes | bytearray | memoryview):
        found = bytes(source)
    else:
        found, keeper = spooled(source)
    _check_kind(_head(found))
    named = name or (found.name if isinstance(found, Path) and keeper is None else "recording")
    return Recording(found, named, limits.max_audio_seconds, keeper, apart=limits.apart, limit=limits.by(limits.sound_setting))


def open_audio(source: Source | AudioSegment | Recording, *, limits: Limits = DEFAULTS) -> Audio:
    """One clip of at most 29.5 s from what `open_recording` takes. Raises MediaError if it is longer, or no sound."""
    return source if isinstance(source, Audio) else one_clip(open_recording(source, limits=limits))


def open_sound(data: bytes, *, limits: Limits = DEFAULTS) -> Audio | Recording:
    """One sound of a request: a clip, or a recording of the same bytes where one clip can't hold it.

    The first 29.5 s are decoded, so that what is no sound is refused before a program runs; the rest is only measured. Raises
    MediaError and TooLarge.
    """
    recording = open_recording(data, limits=limits)
    pcm = pcm_of(recording, enough=MAX_CLIP_SECONDS)
    if _fits(pcm):
        return _clip(pcm)
    if limits.max_audio_seconds is not None and exceeds(recording, limits.max_audio_seconds):
        raise too_long(recording)
    return recording


def one_clip(recording: Recording) -> Audio:
    """A recording as a single clip. Raises MediaError if it is longer than 29.5 s, and as `decode` does."""
    pcm = pcm_of(recording, enough=MAX_CLIP_SECONDS)
    if not _fits(pcm):
        most = f"{MAX_CLIP_SECONDS} s, the most that one clip holds"
        raise MediaError(f"The sound is longer than {most}: open it with open_recording() and listen with hear().")
    return _clip(pcm)


def _fits(pcm: bytes) -> bool:
    return len(pcm) <= MAX_CLIP_SECONDS * BYTES_PER_SECOND


def _clip(pcm: bytes) -> Audio:
    return Audio.from_pcm(pcm.ljust(round(MIN_CLIP_SECONDS * BYTES_PER_SECOND), b"\0"))


def _head(source: bytes | Path) -> bytes:
    if isinstance(source, bytes):
        return source[:HEAD]
    with opened(source) as file:
        return file.read(HEAD)


def _check_kind(head: bytes) -> None:
    if not head:
        raise MediaError(NO_SOUND)
    if sound_kind(head) is None:
        raise MediaError(UNKNOWN)


def _wav(segment: AudioSegment) -> bytes:
    out = io.BytesIO()
    segment.export(out, format="wav")
    return out.getvalue()
