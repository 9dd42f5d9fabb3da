"""Recordings whose words can be told from their samples, and a scripted engine that hears them: it answers each clip with the words in it."""

from __future__ import annotations

import asyncio
import base64
import random
import struct
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scripted_engine import Reply, ScriptedEngine

RATE = 16_000
BEGIN, END = (21_111, -21_112, 21_113), (22_111, -22_112, 22_113)
"""Samples that mark the beginning and the end of a word; its number follows, as two samples."""


@dataclass(frozen=True)
class Word:
    """The `number`-th word of a recording, said from `start` to `end` s."""

    number: int
    start: float
    end: float


@dataclass(frozen=True)
class Spoken:
    """A recording as a WAV file, and what is said in it."""

    wav: bytes
    words: list[Word]
    seconds: float


def spoken(seconds: float, seed: int, *, pause: float = 3.0, fluent: float = 0.7) -> Spoken:
    """Words of 0.15 to 0.5 s; between them 20 ms, or with a chance of 1 - `fluent` a pause of up to `pause` s. Seconds are whole hundredths."""
    rng = random.Random(seed)
    noise = np.random.default_rng(seed).normal(0, 3000, RATE).astype("<i2")
    samples = np.zeros(round(seconds * 100) * 160, dtype="<i2")
    words: list[Word] = []
    at = rng.choice([0, rng.randrange(300)])  # hundredths
    while at + 60 < len(samples) // 160:
        length = rng.randrange(15, 50)
        sound = noise[: length * 160].copy()
        number = np.array(divmod(len(words), 10_000), dtype="<i2")
        sound[:5], sound[-5:] = np.concatenate((BEGIN, number)), np.concatenate((END, number))
        samples[at * 160 : (at + length) * 160] = sound
        words.append(Word(len(words), at / 100, (at + length) / 100))
        at += length + (2 if rng.random() < fluent else rng.randrange(2, round(pause * 100)))
    return Spoken(wav(samples.tobytes()), words, len(samples) / RATE)


def wav(pcm: bytes) -> bytes:
    return wav_head(len(pcm) / 2 / RATE) + pcm


def wav_head(seconds: float) -> bytes:
    size = round(seconds * RATE) * 2
    return struct.pack("<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + size, b"WAVE", b"fmt ", 16, 1, 1, RATE, 2 * RATE, 2, 16, b"data", size)


def heard(pcm: bytes) -> str:
    """The words in a clip: "w7" for one that is whole, something else for one that is cut."""
    samples = np.frombuffer(pcm, dtype="<i2")
    begun, ended = _marked(samples, BEGIN), _marked(samples, END)
    return " ".join(f"w{n}" if n in begun and n in ended else f"{'be' if n in begun else 'en'}{n % 7}" for n in sorted(begun | ended))


def _marked(samples: np.ndarray, mark: tuple[int, int, int]) -> set[int]:
    at = np.flatnonzero((samples[:-4] == mark[0]) & (samples[1:-3] == mark[1]) & (samples[2:-2] == mark[2]))
    return {int(samples[i + 3]) * 10_000 + int(samples[i + 4]) for i in at}


class ListeningEngine(ScriptedEngine):
    """Answers each clip with its words, in a few pieces of any length; `delay` s at most before each of them. `faults` are what may befall a
    clip, with a chance of `unlucky`, as often as each says. `clips` holds the length of each clip heard, `most` how many were at once."""

    def __init__(self) -> None:
        super().__init__()
        self.script = self._say
        self.delay = self.unlucky = 0.0
        self.faults: tuple[tuple[int, Any], ...] = ()
        self.rng = random.Random(0)
        self.clips: list[float] = []
        self.most = 0
        self._fates: dict[str, tuple[int, Any] | None] = {}
        self._asked: Counter[str] = Counter()

    def begin(self, seed: int) -> None:
        """Be as new, for the next recording."""
        self.rng = random.Random(seed)
        self.clips.clear()
        self.requests.clear()
        self._fates.clear()
        self._asked.clear()
        self.most = 0

    async def _generate(self, body: dict[str, Any], writer: asyncio.StreamWriter) -> None:
        self.most = max(self.most, self.open)
        sounds = [base64.b64decode(uri.partition(",")[2])[44:] for uri in body.get("audio_data") or []]
        self.clips += [len(pcm) / 2 / RATE for pcm in sounds]
        body.pop("audio_data", None)  # a test of an hour would keep it all
        await super()._generate(body | {"text": " ".join(map(heard, sounds)) + "\n" + body["text"]}, writer)

    def _say(self, prompt: str) -> Reply:
        words = prompt.partition("\n")[0]
        fate = self._fates.setdefault(words, self.rng.choice(self.faults) if self.faults and self.rng.random() < self.unlucky else None)
        self._asked[words] += 1
        fault = fate[1] if fate and self._asked[words] <= fate[0] else None
        at = sorted(self.rng.randrange(len(words)) for _ in range(min(4, len(words))))
        tokens = tuple(words[a:b] for a, b in pairwise([0, *at, len(words)]) if a < b)
        return Reply(tokens, delay=self.rng.uniform(0, self.delay), fault=fault)
