"""Recordings: decoded as they are heard, in every format, past what is damaged, with no more in memory than a moment of them."""

from __future__ import annotations

import gc
import io
import os
import sys
import tempfile
import tracemalloc
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest

from gemma3n_sgl.conversation import Recording
from gemma3n_sgl.errors import MediaError, TooLarge
from gemma3n_sgl.media import Clip, Damage, Limits, clips, decode, open_recording, playing_time
from gemma3n_sgl.media.decoding import BLOCK_SECONDS, BYTES_PER_SECOND, blocks
from gemma3n_sgl.media.limits import Apart
from gemma3n_sgl.media.sources import IN_MEMORY

SAID = [(5.0, 6.0), (20.0, 21.5), (41.0, 41.3), (60.0, 62.0)]
"""When something is heard (s) in a recording of 65 s."""

FORMATS = [
    ("pcm_u8", "wav", 8_000, "mono"),
    ("pcm_s16le", "wav", 16_000, "mono"),
    ("pcm_s16le", "wav", 96_000, "stereo"),
    ("pcm_s24le", "wav", 44_100, "stereo"),
    ("pcm_s32le", "wav", 48_000, "mono"),
    ("pcm_f32le", "wav", 22_050, "stereo"),
    ("pcm_mulaw", "wav", 8_000, "mono"),
    ("pcm_s16be", "aiff", 44_100, "stereo"),
    ("libmp3lame", "mp3", 8_000, "mono"),
    ("libmp3lame", "mp3", 44_100, "stereo"),
    ("flac", "flac", 96_000, "stereo"),
    ("vorbis", "ogg", 44_100, "stereo"),
    ("libopus", "ogg", 48_000, "stereo"),
    ("libopus", "webm", 48_000, "mono"),
    ("aac", "ipod", 44_100, "stereo"),
    ("aac", "mp4", 16_000, "mono"),
    ("alac", "ipod", 48_000, "stereo"),
    ("aac", "adts", 48_000, "stereo"),
]
DAMAGEABLE = [f for f in FORMATS if f[1] in ("flac", "webm", "ipod", "mp4") or f[0] == "libopus" or f[1:3] == ("mp3", 44_100)]
"""Those that tell times, and MP3. libav's own Vorbis encoder writes none that are true."""


def talk(seconds: float = 65, said: list[tuple[float, float]] = SAID) -> np.ndarray:
    samples = np.zeros(round(seconds * 16_000), dtype="<i2")
    for begin, end in said:
        at = np.arange(round((end - begin) * 16_000))
        samples[round(begin * 16_000) :][: len(at)] = 8000 * np.sin(at * 2 * np.pi * 500 / 16_000) * (1 + np.sin(at / 900)) / 2
    return samples


def encoded(samples: np.ndarray, codec: str, container: str, rate: int = 16_000, layout: str = "mono") -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format=container, container_options={"page_duration": "500000"} if container == "ogg" else {}) as file:
        stream = file.add_stream(codec, rate=rate, layout=layout, options={"strict": "experimental"})
        if not codec.startswith(("pcm", "flac", "alac")):
            stream.bit_rate = 64_000 if rate > 8_000 else 24_000
        stream.codec_context.open()
        resampler = av.AudioResampler(stream.format.name, layout, rate, frame_size=stream.codec_context.frame_size or 1024)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            file.mux(stream.encode(piece))
    return out.getvalue()


def spans(data: bytes) -> list[tuple[float, float]]:
    return [(part.start, part.end) for part in clips(open_recording(data)) if isinstance(part, Clip)]


@pytest.mark.slow
@pytest.mark.parametrize(("codec", "container", "rate", "layout"), FORMATS)
def test_in_every_format_what_is_heard_has_its_time(codec: str, container: str, rate: int, layout: str) -> None:
    found = spans(encoded(talk(), codec, container, rate, layout))
    assert np.abs(np.array(found) - np.array(SAID)).max() <= 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("codec", "container", "rate", "layout"), FORMATS)
def test_in_every_format_its_length_is_known_without_decoding(codec: str, container: str, rate: int, layout: str) -> None:
    assert playing_time(open_recording(encoded(talk(), codec, container, rate, layout))) == pytest.approx(65, abs=0.2)


@pytest.mark.parametrize("seconds", [0.05, 0.3])
@pytest.mark.parametrize("codec", ["pcm_s16le", "pcm_u8"])
def test_a_moment_is_a_clip_of_half_a_second(seconds: float, codec: str) -> None:
    [clip] = clips(open_recording(encoded(talk(seconds, [(0, seconds)]), codec, "wav")))
    assert isinstance(clip, Clip) and clip.sound.seconds >= 0.5 and clip.end == pytest.approx(seconds, abs=0.011)


def damaged(data: bytes, begin: float, end: float, seed: int = 0) -> bytes:
    """The file with noise for all bytes from one part of it to another."""
    hurt = np.frombuffer(data, dtype=np.uint8).copy()
    part = slice(round(len(hurt) * begin), round(len(hurt) * end))
    hurt[part] = np.random.default_rng(seed).integers(0, 256, len(hurt[part]))
    return hurt.tobytes()


@pytest.mark.slow
@pytest.mark.parametrize(("codec", "container", "rate", "layout"), DAMAGEABLE)
def test_a_damaged_middle_costs_itself_and_what_follows_keeps_its_time(codec: str, container: str, rate: int, layout: str) -> None:
    """A tenth of the file is lost, and that is told."""
    noise = np.random.default_rng(0).normal(0, 1, 16_000 * 60)
    noise = (noise * 3000 * np.sin(np.arange(len(noise)) / 4000) ** 2).astype("<i2")  # as loud and soft as speech
    whole = np.concatenate((noise, np.zeros(16_000 * 4, "<i2"), noise[: 16_000 * 2], np.zeros(16_000 * 2, "<i2")))
    found = list(clips(open_recording(damaged(encoded(whole, codec, container, rate, layout), 0.4, 0.5))))
    lost = [part for part in found if isinstance(part, Damage)]
    last = found[-1]
    assert isinstance(last, Clip)
    assert (last.start, last.end) == (pytest.approx(64, abs=0.3 if container == "mp3" else 0.1), pytest.approx(66, abs=0.3))
    assert 3 <= sum(part.end - part.start for part in lost) <= 14
    assert all(20 < part.start < part.end < 40 for part in lost)
    assert [part.start for part in found] == sorted(part.start for part in found)


@pytest.mark.parametrize(("codec", "container"), [("flac", "flac"), ("aac", "ipod"), ("pcm_s16be", "aiff")])
def test_a_file_that_breaks_off_is_heard_as_far_as_it_goes(codec: str, container: str, tmp_path: Path) -> None:
    data = encoded(talk(), codec, container)
    if container == "ipod":  # its table stands behind the sound: zeros in place of the last third of the sound
        table = data.index(b"moov")
        data = data[: round(table * 0.66)] + bytes(table - round(table * 0.66)) + data[table:]
    else:
        data = data[: round(len(data) * 0.66)]
    found = list(clips(open_recording(data)))
    assert [(round(part.start), round(part.end)) for part in found if isinstance(part, Clip)] == [(5, 6), (20, 22), (41, 41)]
    [lost] = [part for part in found if isinstance(part, Damage)]
    assert lost.end == pytest.approx(65, abs=0.2) and 38 < lost.start < 62
    if container != "ipod":
        with pytest.raises(MediaError, match=r"breaks off after \d+\.\d of 65\.0 s"):
            decode(open_recording(data))


@pytest.mark.slow
@pytest.mark.parametrize("container", ["wav", "mp3", "flac", "ogg", "webm", "ipod"])
def test_a_file_that_is_damaged_throughout_is_refused(container: str) -> None:
    codec = {"wav": "pcm_s16le", "mp3": "libmp3lame", "ogg": "libopus", "webm": "libopus", "ipod": "aac"}.get(container, container)
    data = encoded(talk(10, [(1, 9)]), codec, container, 48_000)
    hurt = data[:40] + damaged(data, 0, 1)[40:] if container != "wav" else data[:20] + bytes(len(data) - 20)
    with pytest.raises(MediaError, match=r"damaged|no sound"):
        list(clips(open_recording(hurt)))


def test_in_a_video_whose_sound_begins_later_it_keeps_its_time() -> None:
    """Two seconds of picture come before the first sound."""
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        video, audio = file.add_stream("mpeg4", rate=10), file.add_stream("aac", rate=16_000, layout="mono")
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        for _ in range(50):
            file.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), dtype=np.uint8))))
        file.mux(video.encode(None))
        resampler = av.AudioResampler("fltp", "mono", 16_000, frame_size=1024)
        frame = av.AudioFrame.from_ndarray(talk(3, [(1, 2)])[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        at = 0
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            piece.pts = at + 2 * 16_000
            at += piece.samples
            file.mux(audio.encode(piece))
        file.mux(audio.encode(None))
    assert spans(out.getvalue()) == [(pytest.approx(3, abs=0.1), pytest.approx(4, abs=0.1))]


def test_a_microphone_that_was_muted_is_silence_and_no_damage() -> None:
    """Browsers' recorders send nothing meanwhile; the time stamps jump."""
    out = io.BytesIO()
    with av.open(out, "w", format="webm") as file:
        stream = file.add_stream("libopus", rate=48_000, layout="mono")
        stream.bit_rate = 64_000
        stream.codec_context.open()
        resampler = av.AudioResampler("s16", "mono", 48_000, frame_size=stream.codec_context.frame_size)
        frame = av.AudioFrame.from_ndarray(talk(4, [(1, 3)])[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        at = 0
        for piece in resampler.resample(frame):
            piece.pts = at + (at > 2 * 48_000) * 30 * 48_000
            at += piece.samples
            file.mux(stream.encode(piece))
        file.mux(stream.encode(None))
    found = list(clips(open_recording(out.getvalue())))
    assert [(round(part.start), round(part.end)) for part in found if isinstance(part, Clip)] == [(1, 2), (32, 33)]
    assert len(found) == 2


@pytest.mark.slow
def test_a_recording_is_in_memory_block_by_block(tmp_path: Path) -> None:
    """Twenty minutes from a file, and never more than a few seconds of them: 38 MB when decoded."""
    path = tmp_path / "talk.flac"
    path.write_bytes(encoded(talk(1200), "flac", "flac"))
    recording = open_recording(path)
    tracemalloc.start()
    try:
        lengths = [len(block) / BYTES_PER_SECOND for block in blocks(recording) if isinstance(block, bytes)]
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
        assert sum(1 for _ in clips(recording)) == len(SAID)
        assert tracemalloc.get_traced_memory()[1] < 12_000_000
    finally:
        tracemalloc.stop()
    assert sum(lengths) == pytest.approx(1200) and max(lengths) < BLOCK_SECONDS + 1


def test_the_limit_of_length_holds_while_it_is_heard() -> None:
    parts = clips(open_recording(encoded(talk(), "libmp3lame", "mp3"), limits=Limits(max_audio_seconds=50)))
    assert next(parts).start == pytest.approx(5, abs=0.1)
    with pytest.raises(TooLarge, match="longer than the limit of 50 s"):
        list(parts)


def test_time_stamps_that_claim_a_day_do_not_become_one() -> None:
    """A gap is nothing in memory, and counts for the limit."""
    out = io.BytesIO()
    with av.open(out, "w", format="webm") as file:
        stream = file.add_stream("libopus", rate=48_000, layout="mono")
        stream.codec_context.open()
        for i in range(100):
            frame = av.AudioFrame(format=stream.format.name, layout="mono", samples=stream.codec_context.frame_size)
            frame.planes[0].update(bytes(frame.planes[0].buffer_size))
            frame.sample_rate, frame.pts = 48_000, i * frame.samples + (i > 50) * 48_000 * 80_000
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    with pytest.raises(TooLarge):
        list(clips(open_recording(out.getvalue(), limits=Limits(max_audio_seconds=3600))))
    assert list(clips(open_recording(out.getvalue()))) == []


def test_a_large_open_file_goes_to_disk_and_is_gone_with_the_recording() -> None:
    data = encoded(talk(300), "pcm_s16le", "wav", 16_000)
    assert len(data) > IN_MEMORY
    recording = open_recording(io.BytesIO(data), name="upload")
    path = recording.source
    assert isinstance(path, Path) and path.stat().st_size == len(data)
    assert recording.name == "upload"
    assert len(list(clips(recording))) == len(SAID)
    assert len(list(clips(replace(recording, apart=Apart())))) == len(SAID)
    del recording
    gc.collect()
    assert not path.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="a file without a name has a path on Linux alone")
def test_a_large_upload_has_no_name_that_a_killed_process_could_leave_and_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    data = encoded(talk(300), "pcm_s16le", "wav", 16_000)
    with tempfile.SpooledTemporaryFile(max_size=2**20) as upload:  # what Starlette puts an upload in
        upload.write(data)
        upload.seek(0)
        recording, copied = open_recording(upload), open_recording(io.BytesIO(data))
        assert _inode(recording) == os.fstat(upload.fileno()).st_ino != _inode(copied)
    assert list(tmp_path.iterdir()) == []
    assert [len(list(clips(each))) for each in (recording, copied)] == [len(SAID)] * 2


def _inode(recording: Recording) -> int:
    assert isinstance(recording.source, Path)
    return recording.source.stat().st_ino


def test_a_small_open_file_stays_in_memory() -> None:
    data = encoded(talk(), "libopus", "ogg", 48_000)
    assert open_recording(io.BytesIO(data)) == Recording(data)


def test_a_forged_table_in_a_file_on_disk_is_refused_too(tmp_path: Path) -> None:
    data = bytearray(encoded(talk(), "aac", "mp4"))
    at = data.index(b"stsz") + 12
    data[at : at + 4] = (30_000_000).to_bytes(4)
    (tmp_path / "talk.m4a").write_bytes(data)
    with pytest.raises(MediaError, match="damaged"):
        list(clips(open_recording(tmp_path / "talk.m4a")))
