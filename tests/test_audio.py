"""Sound: what is understood, what it becomes, and what is refused."""

from __future__ import annotations

import io
import json
import re
import struct
import subprocess
import sys
import wave
from pathlib import Path

import av
import numpy as np
import pytest

from gemma3n_sgl.conversation import Audio, Recording
from gemma3n_sgl.errors import Gemma3nError, MediaError, TooLarge
from gemma3n_sgl.media import Limits, decode, one_clip, open_audio, open_recording, open_sound
from gemma3n_sgl.media.segment import AudioSegment

MEDIA = Path(__file__).parent / "media"
DIGITS = json.loads((MEDIA / "digits.json").read_text())
SHORT = sorted(name for name, told in DIGITS.items() if told["seconds"] <= 29.5)
LONG = sorted(set(DIGITS) - set(SHORT))


def samples(audio: Audio) -> np.ndarray:
    return np.frombuffer(audio.pcm, dtype="<i2").astype(float)


def tone(seconds: float, rate: int = 16_000, hertz: float = 440) -> np.ndarray:
    return (8000 * np.sin(np.arange(round(seconds * rate)) * 2 * np.pi * hertz / rate)).astype("<i2")


def wav(pcm: np.ndarray | bytes, rate: int = 16_000, channels: int = 1) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(bytes(pcm))
    return out.getvalue()


def silence(codec: str, container: str, seconds: int, rate: int) -> bytes:
    """Compressed silence: an hour of it has some 100 kB."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        stream = file.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame(format=stream.format.name, layout="mono", samples=stream.codec_context.frame_size or 4096)
        frame.planes[0].update(bytes(frame.planes[0].buffer_size))
        frame.sample_rate = rate
        for i in range(seconds * rate // frame.samples):
            frame.pts = i * frame.samples
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return out.getvalue()


@pytest.mark.parametrize("name", SHORT)
def test_every_common_format_becomes_a_clip_of_its_length(name: str) -> None:
    clip = open_sound((MEDIA / name).read_bytes())
    assert isinstance(clip, Audio)
    with wave.open(io.BytesIO(clip)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
    assert clip.seconds == pytest.approx(DIGITS[name]["seconds"], abs=0.15)


@pytest.mark.parametrize("name", [name for name in SHORT if name.startswith("314")])
def test_every_common_format_sounds_the_same(name: str) -> None:
    """Its loudness over time, in steps of 50 ms, is that of the WAV file it was made from."""

    def envelope(audio: Audio) -> np.ndarray:
        steps = samples(audio)[: 27 * 800].reshape(27, 800)
        return np.sqrt((steps**2).mean(axis=1))

    best = max(
        np.corrcoef(envelope(open_audio(MEDIA / "314.wav")), np.roll(envelope(open_audio(MEDIA / name)), -shift))[0, 1]
        for shift in range(3)
    )
    assert best > 0.9


def test_a_clip_that_is_already_right_is_not_changed() -> None:
    assert open_sound(wav(tone(1))).pcm == tone(1).tobytes()


@pytest.mark.parametrize("name", LONG)
def test_sound_longer_than_a_clip_becomes_a_recording(name: str) -> None:
    data = (MEDIA / name).read_bytes()
    recording = open_sound(data, limits=Limits(max_audio_seconds=300))
    assert isinstance(recording, Recording)
    assert (recording.source, recording.max_seconds) == (data, 300)
    assert decode(recording).duration_seconds == pytest.approx(DIGITS[name]["seconds"], abs=0.1)


@pytest.mark.parametrize("extra", [0, 1])
def test_a_clip_holds_exactly_29_and_a_half_seconds(extra: int) -> None:
    assert isinstance(open_sound(wav(bytes(2 * (472_000 + extra)))), (Audio, Recording)[extra])


def test_resampling_lets_nothing_through_that_16_khz_cannot_hold() -> None:
    """15 kHz sampled at 48 kHz would come back as 1 kHz without a filter."""
    assert np.abs(samples(open_sound(wav(tone(1, 48_000, 15_000), 48_000)))[500:-500]).max() < 10


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_any_sample_rate_keeps_length_and_pitch(rate: int) -> None:
    clip = open_sound(wav(tone(2, rate), rate))
    assert clip.seconds == pytest.approx(2, abs=0.005)
    assert np.abs(np.fft.rfft(samples(clip))).argmax() / clip.seconds == pytest.approx(440, abs=2)


@pytest.mark.parametrize("channels", [2, 3, 6])
def test_many_channels_become_one(channels: int) -> None:
    clip = open_sound(wav(np.repeat(tone(1)[:, None], channels, axis=1).tobytes(), channels=channels))
    assert clip.seconds == pytest.approx(1, abs=0.01)
    assert np.abs(samples(clip)).max() > 1000


@pytest.mark.parametrize("data", [b"#!AMR\n" + (b"\x3c" + bytes(31)) * 50, b"#!AMR-WB\n" + (b"\x44" + bytes(60)) * 50])
def test_the_voice_messages_of_old_phones_are_heard(data: bytes) -> None:
    """AMR: 50 frames of 20 ms each."""
    assert open_sound(data).seconds == 1


def test_the_sound_of_a_video_is_heard() -> None:
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as file:
        video, audio = file.add_stream("mpeg4", rate=10), file.add_stream("aac", rate=16_000, layout="mono")
        video.width = video.height = 64
        video.pix_fmt = "yuv420p"
        for _ in range(5):
            file.mux(video.encode(av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), dtype=np.uint8))))
        file.mux(video.encode(None))
        resampler = av.AudioResampler("fltp", "mono", 16_000, frame_size=1024)
        frame = av.AudioFrame.from_ndarray(tone(1)[None], format="s16", layout="mono")
        frame.sample_rate = 16_000
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            file.mux(audio.encode(piece))
    assert open_sound(out.getvalue()).seconds == pytest.approx(1, abs=0.2)


def test_a_very_short_sound_is_lengthened_so_that_the_engine_can_take_it() -> None:
    clip = open_sound(wav(tone(0.01)))
    assert clip.seconds == 0.5
    assert clip.pcm[:320] == tone(0.01).tobytes()


def test_a_wav_whose_writer_did_not_know_its_length_is_heard() -> None:
    for unknown in (0, 0x7FFF_F000, 0xFFFF_FFFF):
        data = bytearray(wav(tone(2)))
        data[40:44] = struct.pack("<I", unknown)
        assert open_sound(bytes(data)).seconds == 2


def test_a_recording_is_not_decoded_until_it_is_heard() -> None:
    recording = open_recording(MEDIA / "2min.mp3", limits=Limits(max_audio_seconds=60))
    assert (recording.name, recording.source) == ("2min.mp3", MEDIA / "2min.mp3")
    with pytest.raises(TooLarge, match="longer than the limit of 60 s"):
        decode(recording)


def test_sound_can_be_a_path_a_string_bytes_an_open_file_or_an_audio_segment() -> None:
    path = MEDIA / "314.wav"
    with path.open("rb") as file:
        clips = {open_audio(path), open_audio(str(path)), open_audio(path.read_bytes()), open_audio(file)}
    assert clips == {open_audio(AudioSegment(path.read_bytes()))}


def test_an_audio_segment_of_any_kind_is_taken_and_given_back() -> None:
    segment = AudioSegment((MEDIA / "314.wav").read_bytes()).set_frame_rate(44_100).set_channels(2).set_sample_width(4)
    back = decode(open_audio(segment))
    assert (back.frame_rate, back.channels, back.sample_width) == (16_000, 1, 2)
    assert back.duration_seconds == pytest.approx(segment.duration_seconds, abs=0.01)
    assert decode(open_recording(segment)).raw_data == back.raw_data


def test_values_stay_as_they_are() -> None:
    clip, recording = open_audio(MEDIA / "314.wav"), open_recording(MEDIA / "2min.mp3")
    assert open_audio(clip) is clip
    assert open_recording(recording) is recording


@pytest.mark.slow
def test_importing_and_failing_say_nothing_on_the_terminal() -> None:
    """Neither pydub about a missing ffmpeg program, nor libav about what it thinks of a file."""
    script = f"""
from gemma3n_sgl.errors import MediaError
from gemma3n_sgl.media import open_audio
open_audio({str(MEDIA / "314.mp3")!r})
try:
    open_audio(b"RIFF....WAVE" + bytes(99))
except MediaError:
    raise SystemExit(7)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=MEDIA.parent.parent)
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")


def refused(data: bytes, kind: type[Gemma3nError], words: str, limits: Limits = Limits()) -> None:  # noqa: B008 - it is frozen
    """The sound is refused with a sentence for people: nothing of the decoder's own words, or of Python's."""
    with pytest.raises(kind, match=words) as caught:
        open_sound(data, limits=limits)
    assert not re.search(r"0x|object at|Traceback|\.py|BytesIO|libav|Errno|avcodec", caught.value.message)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("open_it", [open_audio, one_clip])
def test_a_sound_too_long_for_one_clip_is_refused_with_what_to_do(open_it) -> None:
    recording = open_recording(MEDIA / "31s.mp3")
    with pytest.raises(MediaError, match=r"longer than 29\.5 s.*open_recording\(\).*hear\(\)"):
        open_it(recording)


@pytest.mark.parametrize("seconds", [10, 60, 120.9])
def test_a_sound_beyond_the_limit_is_refused_with_the_limit(seconds: float) -> None:
    refused((MEDIA / "2min.mp3").read_bytes(), TooLarge, rf"longer than the limit of {seconds:g} s", Limits(max_audio_seconds=seconds))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("codec", "container", "rate"), [("flac", "flac", 48_000), ("libopus", "ogg", 48_000), ("libmp3lame", "mp3", 8_000)]
)
def test_a_bomb_of_compressed_silence_is_refused_before_it_unfolds(codec: str, container: str, rate: int) -> None:
    bomb = silence(codec, container, 900, rate)
    refused(bomb, TooLarge, "longer than the limit of 300 s", Limits(max_audio_seconds=300))
    recording = Recording(bomb, max_seconds=300)
    with pytest.raises(TooLarge, match="longer than the limit of 300 s"):
        decode(recording)


@pytest.mark.parametrize("rate", [1, 100, 3_999, 500_000, 2**31 - 1])
def test_a_forged_sample_rate_is_refused(rate: int) -> None:
    """At 1 Hz each sample would become 16,000."""
    data = bytearray(wav(tone(1)))
    data[24:32] = struct.pack("<II", rate, min(2 * rate, 2**32 - 1))
    refused(bytes(data), MediaError, "sample rate|damaged")


def test_a_slow_sample_rate_does_not_outwit_the_limit() -> None:
    refused(wav(tone(40), rate=4_000), TooLarge, "limit of 100 s", Limits(max_audio_seconds=100))


def forged_mp4(claimed: int) -> bytes:
    """An M4A of 1.5 kB whose table claims as many samples of a byte each."""

    def box(name: bytes, *content: bytes) -> bytes:
        return struct.pack(">I4s", 8 + sum(map(len, content)), name) + b"".join(content)

    def table(name: bytes, *numbers: int) -> bytes:
        return box(name, bytes(4), struct.pack(f">{len(numbers)}I", *numbers))

    sound = box(b"sowt", bytes(6), struct.pack(">H", 1), bytes(8), struct.pack(">HHHHI", 1, 16, 0, 0, 16_000 << 16))
    description = box(b"stsd", bytes(4), struct.pack(">I", 1), sound)
    times, sizes = table(b"stts", 2, 1, 1, claimed - 1, 2), table(b"stsz", 1, claimed)
    samples_of = box(b"stbl", description, times, table(b"stsc", 1, 1, claimed, 1), sizes, table(b"stco", 1, 40))
    media = box(b"minf", table(b"smhd", 0), box(b"dinf", table(b"dref", 1), box(b"url ", bytes(4))), samples_of)
    header = box(b"mdhd", bytes(12), struct.pack(">IIHH", 16_000, 1000, 0x55C4, 0))
    track = box(b"trak", box(b"tkhd", bytes(84)), box(b"mdia", header, box(b"hdlr", bytes(8), b"soun", bytes(13)), media))
    return box(b"ftyp", b"M4A ", bytes(4)) + box(b"moov", box(b"mvhd", bytes(100)), track) + box(b"mdat", bytes(1000))


def test_an_mp4_that_claims_more_samples_than_it_has_bytes_is_refused() -> None:
    """For 30 million claimed samples libav would reserve a gigabyte."""
    assert isinstance(open_sound(forged_mp4(1_000)), Audio)
    refused(forged_mp4(30_000_000), MediaError, "damaged")


@pytest.mark.parametrize("name", ["314.wav", "314-float.wav", "314.aiff", "314.flac", "314.m4a", "314-alac.m4a"])
def test_half_a_file_is_refused_where_the_format_tells_its_length(name: str) -> None:
    data = (MEDIA / name).read_bytes()
    refused(data[: len(data) // 2], MediaError, "send the whole file")


@pytest.mark.parametrize("name", ["314.mp3", "314.webm", "314.aac", "20s.mp3", "29s.opus"])
def test_of_half_a_stream_what_is_there_is_heard(name: str) -> None:
    """These formats are made to be sent as they arise, and may end anywhere."""
    data = (MEDIA / name).read_bytes()
    clip = open_sound(data[: len(data) // 2])
    assert 0.5 <= clip.seconds < 0.9 * DIGITS[name]["seconds"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SHORT)
def test_a_sound_cut_anywhere_is_refused_or_heard_but_never_an_accident(name: str) -> None:
    whole = (MEDIA / name).read_bytes()
    for end in range(1, len(whole), max(1, len(whole) // 15)):
        try:
            assert open_sound(whole[:end]).seconds <= DIGITS[name]["seconds"] + 0.2
        except MediaError as error:
            assert error.status == 400


@pytest.mark.slow
def test_noise_in_a_sound_is_never_an_accident() -> None:
    rng = np.random.default_rng(0)
    for name in (name for name in SHORT if name.startswith("314")):
        for _ in range(10):
            data = bytearray((MEDIA / name).read_bytes())
            for at in rng.integers(0, min(len(data), 2000), 8):
                data[at] = int(rng.integers(0, 256))
            try:
                assert open_sound(bytes(data), limits=Limits(max_audio_seconds=60))
            except Gemma3nError as error:
                assert error.status in (400, 413)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "holds no sound"),
        (wav(b""), "holds no sound"),
        (b"This is a text that somebody calls speech.mp3", "no sound, or of an unknown format"),
        ("\ufeffUTF-16 text begins with bytes 0xFF 0xFE".encode("utf-16"), "no sound, or of an unknown format"),
        ((MEDIA / "red-circle.png").read_bytes(), "no sound, or of an unknown format"),
        (b"#EXTM3U\n#EXTINF:10,\nhttp://169.254.169.254/\n", "no sound, or of an unknown format"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "no sound, or of an unknown format"),
        (b"ID3\4\0\0\0\0\0\0 and then only text", "holds no sound|damaged"),
        (wav(tone(1))[:30], "damaged|no sound"),
    ],
)
def test_what_is_no_sound_is_said_to_be_none(data: bytes, words: str) -> None:
    refused(data, MediaError, words)


def test_text_called_mp3_is_refused_when_it_is_opened(tmp_path: Path) -> None:
    (tmp_path / "speech.mp3").write_text("Not at all.")
    with pytest.raises(MediaError, match="no sound"):
        open_recording(tmp_path / "speech.mp3")


def test_a_file_that_is_gone_when_it_is_heard_is_said_to_be_gone(tmp_path: Path) -> None:
    path = tmp_path / "talk.wav"
    path.write_bytes(wav(tone(1)))
    recording = open_recording(path)
    path.unlink()
    with pytest.raises(MediaError, match="There is no file"):
        decode(recording)
