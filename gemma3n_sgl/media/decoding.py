"""Sound of any kind → 16 kHz, mono, 16 bit, as a stream, with the length limited while it is decoded.

A header's word is not taken for the length: megabytes of compressed silence are gigabytes of samples, and a forged sample rate turns
one sample into thousands.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeVar

import av
from av.audio.fifo import AudioFifo
from av.audio.frame import AudioFrame

from gemma3n_sgl.conversation import SAMPLE_RATE, Audio, Recording
from gemma3n_sgl.errors import Gemma3nError, MediaError, TooLarge
from gemma3n_sgl.media.apart import each
from gemma3n_sgl.media.frames import DAMAGED, NO_SOUND, Gap, frames, lengths
from gemma3n_sgl.media.limits import Apart
from gemma3n_sgl.media.microphone import Live
from gemma3n_sgl.media.segment import AudioSegment

T = TypeVar("T")

BYTES_PER_SECOND = 2 * SAMPLE_RATE
BLOCK_SECONDS = 10
"""Length of a block: small beside the clips in flight, large beside what it costs to hand one on."""


def decode(sound: Recording | Audio) -> AudioSegment:
    """The sound as pydub's AudioSegment: 16 kHz, mono, 16 bit. Blocks: 10 minutes take 0.3 to 1.5 s.

    Raises MediaError for what is no whole sound, and TooLarge beyond the recording's `max_seconds`.
    """
    pcm = sound.pcm if isinstance(sound, Audio) else pcm_of(sound)
    return AudioSegment(data=pcm, sample_width=2, frame_rate=SAMPLE_RATE, channels=1)


def pcm_of(recording: Recording, *, enough: float = math.inf) -> bytes:
    """16-bit little-endian mono samples at 16 kHz; decoding ends soon after `enough` seconds. Gaps are silence.

    Raises as `decode` does, also for a file that breaks off.
    """
    limit = _limit(recording)
    pcm = bytearray()
    for piece in _pieces(recording):
        if isinstance(piece, Gap):
            if piece.ends:
                raise MediaError(_broken_off(len(pcm) / BYTES_PER_SECOND, piece))
            pcm += bytes(2 * round(min(piece.seconds, enough, limit + 1) * SAMPLE_RATE))
        else:
            pcm += piece
        if len(pcm) > limit * BYTES_PER_SECOND:
            raise too_long(recording)
        if len(pcm) > enough * BYTES_PER_SECOND:
            break
    if not pcm:
        raise MediaError(NO_SOUND)
    return bytes(pcm)


def blocks(sound: Recording | Audio) -> Iterator[bytes | Gap]:
    """The sound bit by bit, in memory no more than a block: samples as of `pcm_of`, some 10 s at once, and the gaps between them.

    What can't be decoded is a gap, also where the file breaks off; raises MediaError for what is no sound at all, and TooLarge as soon as it
    is longer than the recording's `max_seconds`.
    """
    if isinstance(sound, Audio | Live):
        yield from [sound.pcm] if isinstance(sound, Audio) else sound.pieces
        return
    limit, seconds = _limit(sound), 0.0
    block = bytearray()
    for piece in _pieces(sound):
        seconds += _seconds(piece)
        if seconds > limit:
            raise too_long(sound)
        if not isinstance(piece, Gap):
            block += piece
        if block and (isinstance(piece, Gap) or len(block) >= BLOCK_SECONDS * BYTES_PER_SECOND):
            yield bytes(block)
            block.clear()
        if isinstance(piece, Gap):
            yield piece
    if block:
        yield bytes(block)
    if not seconds:
        raise MediaError(NO_SOUND)


def _seconds(piece: bytes | Gap) -> float:
    """How long a piece is; what a file that breaks off says it would have had is not believed."""
    if isinstance(piece, Gap):
        return 0.0 if piece.ends else piece.seconds
    return len(piece) / BYTES_PER_SECOND


def exceeds(recording: Recording, seconds: float) -> bool:
    """Whether the packets of a recording last longer than this, without decoding them."""
    total = 0.0
    for piece in _lengths(recording):
        total += piece
        if total > seconds:
            return True
    return False


def playing_time(recording: Recording) -> float | None:
    """Seconds, as the packets tell without being decoded; None where they don't."""
    try:
        return sum(_lengths(recording)) or None
    except MediaError:
        return None


def too_long(recording: Recording) -> TooLarge:
    return TooLarge(f"The sound is longer than the limit of {recording.max_seconds:g} s{recording.limit}: send a shorter one, or several.")


def _limit(recording: Recording) -> float:
    return math.inf if recording.max_seconds is None else recording.max_seconds


def _broken_off(heard: float, gap: Gap) -> str:
    return f"The sound breaks off after {heard:.1f} of {heard + gap.seconds:.1f} s: send the whole file." if gap.seconds else DAMAGED


def guarded(values: Iterator[T]) -> Iterator[T]:
    """The border of libav: what it raises on foreign bytes is a MediaError."""
    try:
        yield from values
    except (Gemma3nError, MemoryError):
        raise
    except Exception:  # libav's errors, and those of the buffers and filters between
        raise MediaError(DAMAGED) from None


def _pieces(recording: Recording) -> Iterator[bytes | Gap]:
    """Samples, and gaps; by a process apart if the recording asks for one."""
    if not isinstance(recording.apart, Apart):
        yield from guarded(pieces(recording))
        return
    for said, pcm in each("pieces", recording.apart, *_asked(recording)):
        yield Gap(*said["gap"]) if "gap" in said else pcm


def _lengths(recording: Recording) -> Iterator[float]:
    if not isinstance(recording.apart, Apart):
        yield from guarded(lengths(recording))
        return
    for said, _ in each("lengths", recording.apart, *_asked(recording)):
        yield said["seconds"]


def _asked(recording: Recording) -> tuple[dict[str, str | None], bytes]:
    """What a process apart is told of a recording."""
    source = recording.source
    return ({"path": None}, source) if isinstance(source, bytes) else ({"path": str(source.absolute())}, b"")


def pieces(recording: Recording) -> Iterator[bytes | Gap]:
    """Samples, and gaps, decoded here."""
    resampling = None
    for frame in frames(recording):
        if isinstance(frame, Gap) or (resampling is not None and not resampling.takes(frame)):  # its form may change within a stream
            yield from resampling.rest() if resampling else ()
            resampling = None
        if isinstance(frame, Gap):
            yield frame
            continue
        resampling = resampling or _Resampling(frame)
        yield from resampling.of(frame)
    yield from resampling.rest() if resampling else ()


class _Resampling:
    """Frames of one form on their way to samples: a second at once, since each call costs what resampling some thousand samples does."""

    def __init__(self, first: AudioFrame) -> None:
        self._form = _form(first)
        self._many = first.sample_rate
        self._waiting = AudioFifo()
        self._resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE)

    def takes(self, frame: AudioFrame) -> bool:
        return _form(frame) == self._form

    def of(self, frame: AudioFrame) -> Iterator[bytes]:
        frame.pts = None  # what time stamps tell is told by the gaps
        self._waiting.write(frame)
        if self._waiting.samples >= self._many:
            yield from map(_samples, self._resampler.resample(self._waiting.read()))

    def rest(self) -> Iterator[bytes]:
        if self._waiting.samples:
            yield from map(_samples, self._resampler.resample(self._waiting.read()))
        yield from map(_samples, self._resampler.resample(None))


def _form(frame: AudioFrame) -> tuple[str, str, int]:
    return frame.format.name, frame.layout.name, frame.sample_rate


def _samples(frame: AudioFrame) -> bytes:
    return bytes(frame.planes[0])[: 2 * frame.samples]
