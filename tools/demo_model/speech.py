"""Speech by rule: digits and a few words spoken by espeak-ng, with pauses, noise and silence; and sounds in which nothing is said."""

from __future__ import annotations

import io
import random
import subprocess
import wave
from dataclasses import dataclass

import numpy as np
from scipy.signal import butter, lfilter, resample_poly

RATE = 16_000
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
WORDS = ("yes", "no", "red", "orange", "yellow", "green", "blue", "purple", "black", "white", "circle", "square", "triangle", "star")
TOKENS = tuple("0123456789") + WORDS
"""What can be said, as it is written down."""

ACCENTS = ("en-us", "en-us", "en-us", "en-gb", "en-gb", "en-gb-scotland", "en-gb-x-rp", "en-gb-x-gbclan", "en-gb-x-gbcwmd", "en-029")
VOICES = {
    "train": (
        "", "", "", "m1", "m2", "m3", "m4", "m6", "m7", "m8", "f1", "f2", "f4", "f5", "Annie", "Alex", "belinda", "steph", "john", "Michael", "Gene",
        "klatt", "klatt4", "Jacky", "Denis", "edward", "adam", "Alicia", "Andrea", "Diogo", "Hugo", "Lee", "Marco", "anika", "antonio", "benjamin",
        "boris", "caleb", "ed", "grandma", "gustave", "iven", "iven3", "kaukovalta", "marcelo", "max", "michel", "miguel", "norbert", "pablo", "paul",
        "quincy", "robert", "sandro", "shelby", "steph3", "travis", "zac",
    ),
    "unheard": ("m5", "f3", "Andy", "linda", "rob", "Mike", "david"),
}  # fmt: skip


@dataclass(frozen=True)
class Manner:
    """How a clip is spoken."""

    voice: str
    speed: int
    pitch: int
    between: str


def spoken(text: str, manner: Manner) -> np.ndarray:
    """float32 at 16 kHz, without the silence that espeak-ng puts around it."""
    command = ["espeak-ng", "-v", manner.voice, "-s", str(manner.speed), "-p", str(manner.pitch), "--stdout", text]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    sound = resample_poly(np.frombuffer(raw[44:], np.int16).astype(np.float32) / 32768, 320, 441).astype(np.float32)
    loud = np.nonzero(np.abs(sound) > 0.01)[0]
    return sound[max(0, loud[0] - 400) : loud[-1] + 800] if len(loud) else sound


def clip(rng: random.Random, kind: str, voices: str = "train") -> tuple[np.ndarray, list[str]]:
    """16-bit samples at 16 kHz and what is said. `kind`: digits (1–10 in one go), pauses (groups, up to 29 s), words, silence."""
    if kind == "silence":
        return _pcm(_without_speech(rng)), []
    variant = rng.choice(VOICES[voices])
    manner = Manner(
        rng.choice(ACCENTS) + (f"+{variant}" if variant else ""), rng.randrange(115, 206), rng.randrange(22, 80), rng.choice([" ", " ", ", "])
    )
    if kind == "words":
        said = [rng.choice(WORDS) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
        sound = _silent(rng, 0.03, 0.5), spoken(manner.between.join(said), manner), _silent(rng, 0.05, 0.4)
        return _pcm(_recorded(rng, np.concatenate(sound))), said
    if kind == "digits":
        said = [rng.choice("0123456789") for _ in range(rng.randint(1, 10))]
        sound = _silent(rng, 0.0, 0.6), _digits(said, manner), _silent(rng, 0.05, 0.4)
        return _pcm(_recorded(rng, np.concatenate(sound))), said
    samples, said = _with_pauses(rng, manner)
    return _pcm(_recorded(rng, samples)), said


def wav(samples: np.ndarray) -> bytes:
    """A WAV file of 16-bit samples."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    return out.getvalue()


def _digits(said: list[str], manner: Manner) -> np.ndarray:
    return spoken(manner.between.join(DIGITS[int(digit)] for digit in said), manner)


def _with_pauses(rng: random.Random, manner: Manner) -> tuple[np.ndarray, list[str]]:
    """Groups of digits with pauses between, from 3 to 29 s long."""
    length, longest_pause = rng.uniform(3, 29), rng.choice([1.0, 2.0, 5.0])
    parts, said = [_silent(rng, 0, longest_pause)], list[str]()
    while True:
        group = [rng.choice("0123456789") for _ in range(rng.choice([1, 1, 2, 3, 4]))]
        sound = _digits(group, manner)
        if sum(map(len, parts)) + len(sound) > length * RATE or len(said) + len(group) > 16:
            break
        parts += [sound, _silent(rng, 0.25, longest_pause)]
        said += group
    if not said:
        return _with_pauses(rng, manner)
    return np.concatenate(parts)[: int(29.4 * RATE)], said


def _silent(rng: random.Random, least: float, most: float) -> np.ndarray:
    return np.zeros(int(RATE * rng.uniform(least, most)), np.float32)


def _recorded(rng: random.Random, sound: np.ndarray) -> np.ndarray:
    """At some loudness, through some microphone, at times faster or slower, with noise behind it or not."""
    if rng.random() < 0.35:
        sound = resample_poly(sound, rng.choice([92, 95, 97, 103, 106, 109]), 100).astype(np.float32)
    if rng.random() < 0.25:
        sound = lfilter(*butter(2, rng.uniform(3000, 7000), fs=RATE), sound).astype(np.float32)
    sound = sound * (rng.uniform(0.15, 0.98) / max(1e-3, float(np.abs(sound).max())))
    if rng.random() < 0.5:
        sound = sound + _noise(rng, len(sound)) * 10 ** rng.uniform(-4, -2)
    return sound[: int(29.4 * RATE)]


def _noise(rng: random.Random, length: int) -> np.ndarray:
    """White, or with less in its heights; of deviation 1."""
    noise = np.random.RandomState(rng.randrange(1 << 30)).normal(0, 1, length).astype(np.float32)
    if rng.random() < 0.5:
        noise = lfilter(*butter(1, rng.uniform(300, 4000), fs=RATE), noise).astype(np.float32)
    return noise / max(1e-6, float(noise.std()))


def _without_speech(rng: random.Random) -> np.ndarray:
    """Silence, noise, a hum, a tone or knocks, 0.3 to 12 s long."""
    length = int(RATE * np.exp(rng.uniform(np.log(0.3), np.log(12))))
    kind = rng.choice(["zero", "noise", "noise", "noise", "tone", "knocks", "short"])
    if kind == "zero":
        return np.zeros(length, np.float32)
    if kind == "short":
        return np.full(rng.randrange(1, 400), rng.uniform(-1, 1), np.float32)
    sound = _noise(rng, length) * 10 ** rng.uniform(-4, -1 if kind == "noise" else -2.5)
    if kind == "tone":
        time = np.arange(length) / RATE
        pitch = np.exp(rng.uniform(np.log(50), np.log(3000)))
        sound = sound + sum(10 ** rng.uniform(-2.5, -0.7) / k * np.sin(2 * np.pi * pitch * k * time) for k in (1, 2, 3)).astype(np.float32)
    if kind == "knocks":
        for _ in range(rng.randint(1, 6)):
            begin, long = rng.randrange(length), rng.randrange(100, 2000)
            knock = _noise(rng, long) * np.exp(-np.arange(long) / (long / 5)) * rng.uniform(0.05, 0.4)
            sound[begin : begin + long] += knock[: length - begin]
    return sound


def _pcm(sound: np.ndarray) -> np.ndarray:
    return (np.clip(sound, -1, 1) * 32767).astype(np.int16)
