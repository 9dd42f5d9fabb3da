"""Long sound is cut where it is quiet, and none of it is lost."""

from __future__ import annotations

import json
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gemma3n_sgl.conversation import Audio
from gemma3n_sgl.errors import MediaError
from gemma3n_sgl.media import clips, open_audio, open_recording
from gemma3n_sgl.media.cutting import cuts
from gemma3n_sgl.media.segment import AudioSegment

MEDIA = Path(__file__).parent / "media"
DIGITS = json.loads((MEDIA / "digits.json").read_text())


def recording(samples: np.ndarray):
    return open_recording(AudioSegment(data=samples.astype("<i2").tobytes(), sample_width=2, frame_rate=16_000, channels=1))


def noise(length: int, loudness: float = 3000, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, loudness, length).clip(-32768, 32767).astype("<i2")


@settings(deadline=None, max_examples=60)
@given(length=st.integers(1, 16_000 * 100), longest=st.integers(16_000, 472_000), seed=st.integers(0, 9))
def test_parts_are_in_order_without_gap_or_overlap_and_none_is_too_long(length: int, longest: int, seed: int) -> None:
    places = cuts(noise(length, seed=seed), longest)
    assert (places[0], places[-1]) == (0, length)
    assert all(0 < end - start <= longest for start, end in pairwise(places))
    assert all(end - start >= longest * 0.66 for start, end in pairwise(places[:-1])), "clips are not wasted on snippets"


@settings(deadline=None, max_examples=25)
@given(length=st.integers(8_000, 16_000 * 90), seconds=st.floats(1, 29.5), seed=st.integers(0, 9))
def test_nothing_is_lost_or_doubled(length: int, seconds: float, seed: int) -> None:
    """The clips without their padding, one after the other, are the recording, sample by sample; all clips are of one length."""
    samples = noise(length, seed=seed)
    heard = clips(recording(samples), seconds)
    places = cuts(samples, round(seconds * 16_000))
    assert b"".join(clip.pcm[: 2 * (end - start)] for clip, (start, end) in zip(heard, pairwise(places), strict=True)) == samples.tobytes()
    assert {len(clip) for clip in heard} == {len(heard[0])}
    assert heard[0].seconds <= seconds + 1e-4


@settings(deadline=None, max_examples=25)
@given(st.lists(st.floats(20, 28.5), min_size=1, max_size=4), st.integers(0, 9))
def test_it_is_cut_in_the_pauses(gaps: list[float], seed: int) -> None:
    """Wherever within the last 9 s of a clip the speaker pauses for 300 ms, there it is cut."""
    middles = np.cumsum(gaps)
    samples = noise(round((middles[-1] + 10) * 16_000), seed=seed)
    for middle in middles:
        at = round(middle * 16_000)
        samples[at - 2400 : at + 2400] //= 100
    places = cuts(samples, 472_000)[1:-1]
    assert all(np.abs(np.array(places) / 16_000 - middle).min() < 0.16 for middle in middles)


def test_a_short_sound_is_one_clip_and_unchanged() -> None:
    clip = open_audio(MEDIA / "314.wav")
    assert clips(clip) == [clip]
    assert clips(open_recording(MEDIA / "314.wav")) == [clip]


@pytest.mark.parametrize("name", [name for name, told in DIGITS.items() if told["seconds"] > 29.5])
def test_every_group_of_words_is_whole_in_its_clip(name: str) -> None:
    heard = clips(open_recording(MEDIA / name))
    assert len(heard) == len(DIGITS[name]["clips"])
    assert {clip.seconds for clip in heard} == {heard[0].seconds}
    for clip in heard:
        assert np.abs(np.frombuffer(clip.pcm, dtype="<i2")[:800].astype(int)).max() < 200, "begins in a pause"


def test_speech_without_any_pause_is_cut_all_the_same() -> None:
    heard = clips(recording(np.full(16_000 * 61, 1000)))
    assert [round(clip.seconds, 3) for clip in heard] == [round(heard[0].seconds, 3)] * 3
    assert all(clip.seconds <= 29.5 for clip in heard)


def test_ten_minutes_are_cut_in_a_moment() -> None:
    samples = noise(16_000 * 600)
    start = time.perf_counter()
    places = cuts(samples, 472_000)
    assert time.perf_counter() - start < 0.3
    assert len(places) - 1 <= 31


def test_shorter_clips_can_be_asked_for() -> None:
    heard = clips(recording(noise(16_000 * 30)), 5)
    assert len(heard) >= 6
    assert heard[0].seconds <= 5


@pytest.mark.parametrize("seconds", [0, 0.5, 30, -1])
def test_clips_of_an_impossible_length_are_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match=r"1 to 29\.5 s long"):
        clips(Audio.from_pcm(bytes(32_000)), seconds)


def test_a_recording_without_sound_is_refused() -> None:
    with pytest.raises(MediaError, match="no sound"):
        clips(recording(np.zeros(0)))
