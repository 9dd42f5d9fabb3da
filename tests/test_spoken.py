"""On the real engine: spoken digits are truly heard in every format, at every rate, past silence, noise and damage."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sglang as sgl
from listening_engine import wav
from serving import Served, serving
from test_recordings import FORMATS, damaged, encoded

from gemma3n_sgl import Recording, connect
from gemma3n_sgl import hear as hear_all
from gemma3n_sgl.media import Clip, clips, decode, open_recording
from gemma3n_sgl.settings import Settings

pytestmark = pytest.mark.engine

MEDIA = Path(__file__).parent / "media"
SAID = {name: " ".join(told["clips"]) for name, told in json.loads((MEDIA / "digits.json").read_text()).items()}
DIGITS = np.frombuffer(decode(open_recording(MEDIA / "314.wav")).raw_data, dtype="<i2")
MINUTES = np.frombuffer(decode(open_recording(MEDIA / "2min.mp3")).raw_data, dtype="<i2")


@pytest.fixture(scope="module")
def served(engine: str) -> Iterator[Served]:
    with serving(Settings(runtime_url=engine)) as server:
        server.client = server.client.with_options(timeout=120)
        yield server


def hear(served: Served, data: bytes, **fields: Any) -> Any:
    return served.client.audio.transcriptions.create(**{"model": "whisper-1", "file": ("sound", data)} | fields)


@pytest.mark.parametrize("name", SAID)
def test_each_file_says_its_digits(served: Served, name: str):
    assert hear(served, (MEDIA / name).read_bytes()).text == SAID[name]


@pytest.mark.parametrize(("codec", "container", "rate", "layout"), FORMATS)
def test_each_format_says_them_at_each_rate_mono_and_stereo(served: Served, codec: str, container: str, rate: int, layout: str):
    assert hear(served, encoded(DIGITS, codec, container, rate, layout)).text == "3 1 4"


@pytest.mark.parametrize("seconds", [0.05, 0.3, 3])
def test_silence_is_nothing_said(served: Served, seconds: float):
    heard = hear(served, wav(bytes(2 * round(16_000 * seconds))), response_format="verbose_json")
    assert (heard.text, heard.segments, heard.duration) == ("", [], pytest.approx(seconds, abs=0.01))


@pytest.mark.parametrize("seconds", [0.05, 0.3, 29.5, 70])
def test_noise_is_answered(served: Served, seconds: float):
    """With what does not matter; the engine is well afterwards."""
    noise = np.random.default_rng(3).normal(0, 5000, round(16_000 * seconds)).astype("<i2")
    assert hear(served, wav(noise.tobytes()), response_format="verbose_json").duration == pytest.approx(seconds, abs=0.01)
    assert hear(served, wav(DIGITS.tobytes())).text == "3 1 4"


def test_a_corrupted_middle_costs_what_is_said_there_alone(served: Served):
    heard = hear(served, damaged(encoded(MINUTES, "flac", "flac"), 0.4, 0.5), response_format="verbose_json")
    [lost] = [segment for segment in heard.segments if "could not be heard" in segment.text]
    assert heard.text.startswith("7 8 1 5 6 5 0") and heard.text.endswith("8 7 3 8")
    assert 20 < lost.start < lost.end < 75 and heard.duration == pytest.approx(121, abs=0.5)


@sgl.function
def in_short_clips(s, recording: Recording):
    """Write down what is said, from clips that hold some ten digits, which is as many as the small model hears at once."""
    hear_all(s, "answer", recording, "Transcribe this audio.", clip_seconds=6)


@pytest.mark.parametrize("seed", range(5))
def test_where_speech_without_a_pause_is_cut_no_word_is_lost_or_doubled(engine: str, seed: int):
    """Eighty digits in one breath of 55 s: fifteen cuts or so, all of them amid speech."""
    apart = np.frombuffer(decode(open_recording(MEDIA / "zero-to-nine.opus")).raw_data, dtype="<i2")
    loud = [np.flatnonzero(np.abs(apart[at : at + 32_000]) > 300) + at for at in range(0, 320_000, 32_000)]
    said = [np.append(apart[found[0] - 160 : found[-1] + 160], np.zeros(1600, dtype="<i2")) for found in loud]  # the cutter's pauses are longer
    rng, digits = random.Random(seed), [0]
    while len(digits) < 80:
        digits.append(rng.choice([digit for digit in range(10) if digit != digits[-1]]))  # one said twice in a row it hears once
    talk = open_recording(wav(np.concatenate([said[digit] for digit in digits]).tobytes()))
    assert sum(part.runs_on for part in clips(talk, 6) if isinstance(part, Clip)) >= 12
    assert connect(engine).run(in_short_clips, recording=talk).answer == " ".join(map(str, digits))


def test_an_hour_is_heard_at_its_times(served: Served):
    """Digits every five minutes, in an MP3."""
    hour = np.zeros(16_000 * 3600, dtype="<i2")
    for at in range(0, 3600, 300):
        hour[at * 16_000 :][: len(DIGITS)] = DIGITS
    heard = hear(served, encoded(hour, "libmp3lame", "mp3", 16_000), response_format="verbose_json")
    assert [segment.text for segment in heard.segments] == ["3 1 4"] * 12
    assert np.abs(np.array([segment.start for segment in heard.segments]) - np.arange(0, 3600, 300)).max() < 0.3
    assert heard.duration == pytest.approx(3600, abs=0.2)
