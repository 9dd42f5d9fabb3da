"""Sound of any kind → 16 kHz, mono, 16 bit, by PyAV (libav), with the length limited while it is decoded.

A header's word is not taken for the length: megabytes of compressed silence are gigabytes of samples, and a forged sample rate turns
one sample into thousands.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer

from gemma3n_sgl.conversation import SAMPLE_RATE, Audio, Recording
from gemma3n_sgl.errors import Gemma3nError, MediaError, TooLarge
from gemma3n_sgl.media.segment import AudioSegment
from gemma3n_sgl.media.sniffing import HEAD, is_cut_off_wav, is_forged_mp4, sound_kind
from gemma3n_sgl.media.sources import existing

T = TypeVar("T")

BYTES_PER_SECOND = 2 * SAMPLE_RATE
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

_BREAK = 0.25
"""Seconds a file may be shorter than it says, for encoders that count their padding."""


def decode(sound: Recording | Audio) -> AudioSegment:
    """The sound as pydub's AudioSegment: 16 kHz, mono, 16 bit. Blocks: 10 minutes take 0.3 to 1.5 s.

    Raises MediaError for what is no whole sound, and TooLarge beyond the recording's `max_seconds`.
    """
    pcm = sound.pcm if isinstance(sound, Audio) else pcm_of(sound)
    return AudioSegment(data=pcm, sample_width=2, frame_rate=SAMPLE_RATE, channels=1)


def pcm_of(recording: Recording, *, enough: float = math.inf) -> bytes:
    """16-bit little-endian mono samples at 16 kHz; decoding ends soon after `enough` seconds. Raises as `decode` does."""
    limit = math.inf if recording.max_seconds is None else recording.max_seconds
    pcm = bytearray()
    for piece in _guarded(_pieces(recording)):
        pcm += piece
        if len(pcm) > limit * BYTES_PER_SECOND:
            raise too_long(limit)
        if len(pcm) > enough * BYTES_PER_SECOND:
            break
    if not pcm:
        raise MediaError(NO_SOUND)
    return bytes(pcm)


def exceeds(recording: Recording, seconds: float) -> bool:
    """Whether the packets of a recording last longer than this, without decoding them."""
    total = 0.0
    for piece in _guarded(_lengths(recording)):
        total += piece
        if total > seconds:
            return True
    return False


def too_long(limit: float) -> TooLarge:
    return TooLarge(f"The sound is longer than the limit of {limit:g} s: send a shorter one, or several.")


def _guarded(values: Iterator[T]) -> Iterator[T]:
    """The border of libav: what it raises on foreign bytes is a MediaError."""
    try:
        yield from values
    except Gemma3nError:
        raise
    except Exception:  # libav's errors, and those of the buffers and filters between
        raise MediaError(DAMAGED) from None


@contextmanager
def _opened(recording: Recording) -> Iterator[tuple[InputContainer, AudioStream, str]]:
    """The container, its first audio stream and the demuxer's name. The file is opened by us, so that its name is never read as a URL."""
    source = recording.source
    with existing(source).open("rb") if isinstance(source, Path) else io.BytesIO(source) as file:
        head = file.read(HEAD)
        size = file.seek(0, io.SEEK_END)
        file.seek(0)
        kind = sound_kind(head)
        if kind is None:
            raise MediaError(UNKNOWN)
        if is_cut_off_wav(head, size) or (kind == "mov" and isinstance(source, bytes) and is_forged_mp4(source)):
            raise MediaError(DAMAGED)  # a path is the user's own file, which is not searched for forgeries
        options = {"codec_whitelist": ",".join(_CODECS)}
        with av.open(file, "r", format=kind, options=options, metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise MediaError(NO_SOUND)
            yield container, container.streams.audio[0], kind


def _lengths(recording: Recording) -> Iterator[float]:
    with _opened(recording) as (container, stream, _):
        for packet in container.demux(stream):
            if packet.duration and packet.time_base:
                yield float(packet.duration * packet.time_base)


def _pieces(recording: Recording) -> Iterator[bytes]:
    with _opened(recording) as (container, stream, kind):
        if stream.codec_context.name not in _CODECS:
            raise MediaError(UNKNOWN)
        told = float(stream.duration * stream.time_base) if kind in _TELLS_LENGTH and stream.duration and stream.time_base else 0.0
        length = 0
        for piece in _resampled(_frames(container, stream)):
            length += len(piece)
            yield piece
        heard = length / BYTES_PER_SECOND
        if told - heard > _BREAK:
            raise MediaError(f"The sound breaks off after {heard:.1f} of {told:.1f} s: send the whole file.")


def _frames(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    """Decoded frames; a damaged packet among good ones is skipped, as every player does."""
    damaged = decoded = False
    for packet in container.demux(stream):
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            damaged = True
            continue
        for frame in frames:
            decoded = True
            yield frame
    if damaged and not decoded:
        raise MediaError(DAMAGED)


def _resampled(frames: Iterator[AudioFrame]) -> Iterator[bytes]:
    resampler, made_for = None, None
    for frame in frames:
        if frame.sample_rate not in _RATES:
            raise MediaError(f"The sound claims a sample rate of {frame.sample_rate} Hz: send it at 8,000 to 48,000 Hz.")
        frame.pts = None  # gaps and jumps in time stamps are not sound
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if resampler is None or form != made_for:  # it may change within a stream
            yield from _flushed(resampler)
            resampler, made_for = av.AudioResampler("s16", "mono", SAMPLE_RATE), form
        yield from map(_samples, resampler.resample(frame))
    yield from _flushed(resampler)


def _flushed(resampler: av.AudioResampler | None) -> Iterator[bytes]:
    if resampler is not None:
        yield from map(_samples, resampler.resample(None))


def _samples(frame: AudioFrame) -> bytes:
    return bytes(frame.planes[0])[: 2 * frame.samples]
