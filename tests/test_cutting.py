"""Long sound is cut where it is silent; silence is left out, and nothing that is heard is lost or doubled."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gemma3n_sgl.conversation import Audio
from gemma3n_sgl.errors import MediaError
from gemma3n_sgl.media import Clip, clips, open_audio, open_recording
from gemma3n_sgl.media.cutting import Cutter
from gemma3n_sgl.media.segment import AudioSegment

MEDIA = Path(__file__).parent / "media"
DIGITS = json.loads((MEDIA / "digits.json").read_text())
RATE = 16_000


def recording(samples: np.ndarray):
    return open_recording(AudioSegment(data=samples.astype("<i2").tobytes(), sample_width=2, frame_rate=RATE, channels=1))


def noise(seconds: float, loudness: float = 3000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, loudness, round(seconds * RATE)).clip(-32768, 32767).astype("<i2")


def speech(seconds: float, seed: int, longest_pause: float = 4) -> np.ndarray:
    """Noise in bursts of 0.1 to 3 s, with pauses between them."""
    rng = np.random.default_rng(seed)
    samples, at = noise(seconds, seed=seed), 0.0
    while at < seconds:
        at += rng.uniform(0.1, 3)
        pause = rng.uniform(0.05, longest_pause) if rng.random() < 0.5 else rng.uniform(0.05, 0.5)
        samples[round(at * RATE) : round((at + pause) * RATE)] = 0
        at += pause
    return samples


def cut(samples: np.ndarray, seconds: float, *, overlap: bool = True, block: int = 10 * RATE) -> list[Clip]:
    cutter, pcm = Cutter(seconds, overlap=overlap), samples.astype("<i2").tobytes()
    found = [clip for at in range(0, len(pcm), 2 * block) for clip in cutter.feed(pcm[at : at + 2 * block])]
    return [*found, *cutter.pause(0)]


def loud_hops(samples: np.ndarray) -> np.ndarray:
    hops = np.pad(samples, (0, -len(samples) % 160)).reshape(-1, 160).astype(float)
    return np.flatnonzero(hops.var(axis=1) > 100)


@given(seconds=st.floats(0.1, 120), longest=st.floats(1, 29.5), seed=st.integers(0, 99))
def test_every_moment_that_is_heard_is_in_exactly_one_clip(seconds: float, longest: float, seed: int) -> None:
    samples = speech(seconds, seed)
    found = cut(samples, longest, overlap=False)
    spans = [(round(clip.start * 100), round(clip.end * 100)) for clip in found]
    assert all(a[1] <= b[0] for a, b in pairwise(spans))
    heard = np.concatenate([np.arange(*span) for span in spans]) if spans else np.zeros(0, int)
    assert set(loud_hops(samples)) <= set(heard)
    assert all(0.5 <= clip.sound.seconds <= longest for clip in found)


@given(seconds=st.floats(0.1, 120), longest=st.floats(1, 29.5), seed=st.integers(0, 99), block=st.integers(10_000, 300_000), overlap=st.booleans())
def test_a_clips_sound_is_what_is_heard_at_its_time_however_it_arrived(seconds: float, longest: float, seed: int, block: int, overlap: bool) -> None:
    samples = speech(seconds, seed)
    found = cut(samples, longest, overlap=overlap, block=block)
    assert found == cut(samples, longest, overlap=overlap)
    for clip in found:
        assert samples[round(clip.start * RATE) : round(clip.end * RATE)].tobytes() in clip.sound.pcm


@given(longest=st.floats(1, 29.5), seed=st.integers(0, 99))
def test_without_any_silence_all_around_a_cut_is_whole_in_one_of_two_clips(longest: float, seed: int) -> None:
    samples = noise(75, seed=seed)
    found = cut(samples, longest)
    assert all(clip.runs_on for clip in found[:-1]) and all(clip.repeats for clip in found[1:])
    assert all(a.end == b.start for a, b in pairwise(found)), "the times do not overlap"
    around = round(min(1, longest / 9) * RATE)
    for a, b in pairwise(found):
        at = round(a.end * RATE)
        assert samples[at : at + around].tobytes() in a.sound.pcm
        assert samples[at - around : at].tobytes() in b.sound.pcm
    assert max(clip.sound.seconds for clip in found) <= longest


@given(st.lists(st.floats(20, 27.5), min_size=1, max_size=4), st.integers(0, 9), st.sampled_from([0, 3, 30]))
def test_it_is_cut_in_the_pauses(gaps: list[float], seed: int, hiss: int) -> None:
    """Wherever between 20 and 27.5 s of a clip the speaker pauses for 300 ms, there it is cut, in a room that is not quite still too."""
    middles = np.cumsum(gaps)
    samples = noise(middles[-1] + 10, seed=seed)
    for middle in middles:
        at = round(middle * RATE)
        samples[at - 2400 : at + 2400] = noise(0.3, hiss, seed)
    ends = [clip.end for clip in cut(samples, 29.5)][:-1]
    assert all(min(abs(end - middle) for end in ends) < 0.16 for middle in middles)


@pytest.mark.parametrize("hiss", [0, 5, 60])
def test_silence_is_left_out_also_where_the_room_hisses(hiss: int) -> None:
    samples = noise(200, hiss)
    for start in (20, 23.5, 100, 190):
        samples[round(start * RATE) : round((start + 1) * RATE)] = noise(1, 4000)
    found = cut(samples, 29.5)
    assert [(round(clip.start, 1), round(clip.end, 1)) for clip in found] == [(20, 21), (23.5, 24.5), (100, 101), (190, 191)]
    assert all(clip.sound.seconds == pytest.approx(1.4, abs=0.03) for clip in found)


@pytest.mark.parametrize("samples", [np.zeros(RATE * 100), noise(100, 3), np.full(RATE * 100, 900), np.zeros(5)])
def test_nothing_but_silence_is_no_clip_at_all(samples: np.ndarray) -> None:
    assert list(clips(recording(samples))) == []


def test_noise_without_any_speech_is_heard() -> None:
    found = cut(noise(100, 300), 29.5)
    assert (found[0].start, found[-1].end) == (0, 100)


def test_a_whisper_after_a_shout_is_heard() -> None:
    samples = np.concatenate((speech(60, 1), speech(60, 2) // 20))
    assert sum(clip.end - clip.start for clip in cut(samples, 29.5) if clip.start > 60) > 20


def test_a_short_sound_is_one_clip_of_what_is_said() -> None:
    [clip] = clips(open_recording(MEDIA / "314.wav"))
    assert clip == next(iter(clips(open_audio(MEDIA / "314.wav"))))
    assert 1 < clip.end - clip.start < 1.5


@pytest.mark.parametrize("name", [name for name, told in DIGITS.items() if told["seconds"] > 29.5])
def test_every_group_of_words_is_whole_in_its_clip(name: str) -> None:
    found = list(clips(open_recording(MEDIA / name)))
    assert len(found) == len(DIGITS[name]["clips"])
    for clip in found:
        assert np.abs(np.frombuffer(clip.sound.pcm, dtype="<i2")[:800].astype(int)).max() < 200, "begins in a pause"


def test_shorter_clips_end_at_shorter_pauses() -> None:
    samples = noise(40)
    for at in range(3, 40, 4):
        samples[at * RATE : (at + 1) * RATE] = 0
    assert max(clip.end - clip.start for clip in cut(samples, 6)) == 3
    assert max(clip.end - clip.start for clip in cut(samples, 29.5)) > 20


def test_cutting_takes_hardly_longer_than_looking_at_how_loud_it_is() -> None:
    """Ten minutes, in less than ten times what the variance of each hop takes: usually twice."""
    minute, cutter, count = speech(60, 0), Cutter(29.5), 0
    start = time.thread_time()
    for _ in range(10):
        loud_hops(minute)
    looked = time.thread_time()
    for _ in range(10):
        count += len(list(cutter.feed(minute.tobytes())))
    assert time.thread_time() - looked < 10 * (looked - start)
    assert count > 20


@pytest.mark.parametrize("seconds", [0, 0.5, 30, -1])
def test_clips_of_an_impossible_length_are_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"1 to 29\.5 s long"):
        clips(Audio.from_pcm(bytes(32_000)), seconds)


def test_a_recording_without_a_sample_is_refused() -> None:
    with pytest.raises(MediaError, match="no sound"):
        list(clips(recording(np.zeros(0))))
