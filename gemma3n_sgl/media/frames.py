"""A file of sound → its decoded frames, by PyAV (libav), and what is missing between them.

A damaged stretch costs itself alone: it becomes a `Gap` as long as the file's own time stamps say, so that all that follows keeps its time.
MP3, AAC and AMR have none; there the damaged bytes tell, at the rate of the good ones.
"""

from __future__ import annotations

import io
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.packet import Packet

from gemma3n_sgl.conversation import Recording
from gemma3n_sgl.errors import MediaError
from gemma3n_sgl.media.sniffing import HEAD, is_cut_off_wav, is_forged_mp4, sound_kind
from gemma3n_sgl.media.sources import existing

NO_SOUND = "The file holds no sound."
UNKNOWN = "This is no sound, or of an unknown format: WAV, MP3, FLAC, Ogg, M4A, AAC, WebM, MP4, AIFF and AMR are understood."
DAMAGED = "The sound is damaged: send the whole file, or save it anew as WAV or MP3."

_COMPRESSED = ("aac", "adpcm_ima_wav", "adpcm_ms", "alac", "amrnb", "amrwb", "flac", "mp2", "mp2float", "mp3", "mp3float", "opus", "vorbis")
_PCM = ("alaw", "mulaw", "u8", "s8", "s16le", "s16be", "s24le", "s24be", "s32le", "s32be", "f32le", "f32be", "f64le", "f64be")
_CODECS = (*_COMPRESSED, *(f"pcm_{kind}" for kind in _PCM))
"""The decoders of libav's that foreign bytes may reach, of some 500."""

_RATES = range(4_000, 384_001)
_TELLS_LENGTH = ("aiff", "flac", "mov")
"""Formats whose header holds the exact length; MP3, Ogg, AAC and WebM are made to be sent as they arise, and may end anywhere."""

_TIMELESS = ("aac", "amr", "mp3")
"""Formats without time stamps: libav counts them up from the bytes it could use."""

_VIDEO = ("matroska", "mov")
"""Formats in which sound may begin later than the pictures, and in "matroska" pause without a sample, where a microphone was muted."""

_BREAK = 0.25
"""Seconds a file may be shorter than it says, for encoders that count their padding."""

_JITTER = 0.1
"""Seconds by which time stamps may differ from the samples before them: recorders stamp by the clock on the wall."""

_FAILURES = 100
"""Reads in a row that may fail until a file is taken to break off there."""

_LONGEST_PACKET = 60.0
"""Seconds up to which a packet is believed: the last one of libav's own Vorbis files claims a day."""

_LONGEST_GAP = 24 * 3600.0
_SKIPPED_BYTES = 4096
"""Bytes between two packets that are more than headers: something stood there that could not be read."""


@dataclass(frozen=True)
class Gap:
    """Seconds without samples: `damaged`, or silent; `ends`: nothing comes behind it, the file breaks off."""

    seconds: float
    damaged: bool = False
    ends: bool = False


def frames(recording: Recording) -> Iterator[AudioFrame | Gap]:
    """The decoded frames of the first sound in a file, and its gaps. Raises MediaError for what is no sound at all, and libav's errors."""
    with _opened(recording) as (container, stream, kind):
        if stream.codec_context.name not in _CODECS:
            raise MediaError(UNKNOWN)
        clock = _Clock(container, kind)
        broken = False
        try:
            for packet in _packets(container, stream):
                yield from _decoded(packet, clock)
        except av.error.FFmpegError:
            broken = True
        if not clock.good_bytes and (broken or clock.bad_bytes):
            raise MediaError(DAMAGED)
        told = float(stream.duration * stream.time_base) if kind in _TELLS_LENGTH and stream.duration and stream.time_base else 0.0
        if broken or told - clock.seconds > _BREAK:
            yield Gap(max(0.0, told - clock.seconds), damaged=True, ends=True)


def lengths(recording: Recording) -> Iterator[float]:
    """Seconds of each packet, without decoding it."""
    with _opened(recording) as (container, stream, _):
        for packet in container.demux(stream):
            seconds = float(packet.duration * packet.time_base) if packet.duration and packet.time_base else 0.0
            if 0 < seconds < _LONGEST_PACKET:
                yield seconds


@contextmanager
def _opened(recording: Recording) -> Iterator[tuple[InputContainer, AudioStream, str]]:
    """The container, its first audio stream and the demuxer's name. The file is opened by us, so that its name is never read as a URL."""
    source = recording.source
    with io.BytesIO(source) if isinstance(source, bytes) else existing(source).open("rb") as file:
        head = file.read(HEAD)
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        kind = sound_kind(head)
        if kind is None:
            raise MediaError(UNKNOWN)
        if is_cut_off_wav(head, size) or (kind == "mov" and _is_forged(source if isinstance(source, bytes) else file.fileno())):
            raise MediaError(DAMAGED)
        options = {"codec_whitelist": ",".join(_CODECS)}
        with av.open(file, "r", format=kind, options=options, metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise MediaError(NO_SOUND)
            yield container, container.streams.audio[0], kind


def _is_forged(source: bytes | int) -> bool:
    if isinstance(source, bytes):
        return is_forged_mp4(source)
    with mmap.mmap(source, 0, access=mmap.ACCESS_READ) as pages:
        return is_forged_mp4(pages)


def _packets(container: InputContainer, stream: AudioStream) -> Iterator[Packet[AudioStream]]:
    """All packets; what can't be read between them is gone over, unless it does not end."""
    failures = 0
    while True:
        try:
            for packet in container.demux(stream):
                failures = 0
                yield packet
        except av.error.FFmpegError:
            failures += 1
            if failures > _FAILURES:
                raise
        else:
            return


def _decoded(packet: Packet[AudioStream], clock: _Clock) -> Iterator[AudioFrame | Gap]:
    try:
        decoded = packet.decode()
    except av.error.FFmpegError:  # skipped, as every player does
        clock.bad_bytes += packet.size
        return
    for frame in decoded:
        if frame.sample_rate not in _RATES:
            raise MediaError(f"The sound claims a sample rate of {frame.sample_rate} Hz: send it at 8,000 to 48,000 Hz.")
        if gap := clock.gap_before(frame, packet):
            yield gap
        clock.advance(frame, packet)
        yield frame


class _Clock:
    """How far a stream is, in seconds, and whether something is missing before its next frame."""

    def __init__(self, container: InputContainer, kind: str) -> None:
        self.seconds = 0.0
        self.good_bytes = self.bad_bytes = 0
        self._kind = kind
        begins = container.start_time if kind in _VIDEO else None
        self._zero = None if begins is None else begins / av.time_base
        self._next_byte: int | None = None

    def gap_before(self, frame: AudioFrame, packet: Packet[AudioStream]) -> Gap | None:
        if self._kind in _TIMELESS:
            lost = self.bad_bytes * self.seconds / self.good_bytes if self.good_bytes else 0.0
            damaged = True
        else:
            lost = self._late(frame)
            skipped = packet.pos is not None and self._next_byte is not None and packet.pos - self._next_byte > _SKIPPED_BYTES
            damaged = self.seconds > 0 and (self._kind != "matroska" or self.bad_bytes > 0 or skipped)
        self.bad_bytes = 0
        if not 0 < lost <= _LONGEST_GAP:
            return None
        self.seconds += lost
        return Gap(lost, damaged)

    def _late(self, frame: AudioFrame) -> float:
        """Seconds that the frame comes later than the samples before it say. A stream whose stamps jump back goes on from there."""
        if frame.pts is None or frame.time_base is None:
            return 0.0
        stamp = float(frame.pts * frame.time_base)
        if self._zero is None:
            self._zero = stamp
        late = stamp - self._zero - self.seconds
        if late < -_JITTER or late > _LONGEST_GAP:
            self._zero = stamp - self.seconds
        return late if late > _JITTER else 0.0

    def advance(self, frame: AudioFrame, packet: Packet[AudioStream]) -> None:
        self.seconds += frame.samples / frame.sample_rate
        self.good_bytes += packet.size
        if packet.pos is not None:
            self._next_byte = packet.pos + packet.size
