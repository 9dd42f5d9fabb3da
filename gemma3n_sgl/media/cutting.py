"""Long sound → clips the engine can take: what is heard in it, cut at its silences, while it is still being decoded.

Loudness is looked at in hops of 10 ms. Hops as loud as speech are all in a clip, and in one alone: this is what the cutter keeps to by
construction, and why no word between two silences is lost or doubled. Silence is left out, but for a margin around what is heard.
Where nothing is silent for a whole clip's length, the clip ends at the quietest place there is, and the next one begins a little before it,
so that whatever is said there is whole in one of the two; `gemma3n_sgl.joining` takes out of their texts what both have heard.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from gemma3n_sgl.conversation import MAX_CLIP_SECONDS, SAMPLE_RATE, Audio, Recording
from gemma3n_sgl.media.audio import MIN_CLIP_SECONDS
from gemma3n_sgl.media.decoding import blocks
from gemma3n_sgl.media.loudness import HOP, Threshold, levels, quietest

HOPS = SAMPLE_RATE // HOP
"""Hops in a second."""

MARGIN = 20
"""Hops of silence left around what is heard: the soft beginning and end of a word."""

_PAUSE = 20
"""Hops of quiet between words: shorter gaps occur within them."""

_SEARCHED = 1 / 3
"""Share of a clip, from its end, in which a place to cut is looked for: 10 of 29.5 s."""


@dataclass(frozen=True)
class Clip:
    """What is heard in a recording from `start` to `end` (s), in a sound that goes a little beyond.

    `runs_on`: it ends without a silence, and the next one, which `repeats`, begins with its last moments.
    """

    start: float
    end: float
    sound: Audio
    repeats: bool = False
    runs_on: bool = False


@dataclass(frozen=True)
class Damage:
    """A stretch of a recording (s) that could not be decoded."""

    start: float
    end: float


def clips(recording: Recording | Audio, seconds: float = MAX_CLIP_SECONDS, *, overlap: bool = True) -> Iterator[Clip | Damage]:
    """All that is heard in a recording, in order, in clips of at most `seconds`. Blocks at each, for decoding above all.

    Without `overlap` a place without silence is cut all the same, and no clip repeats anything. Raises MediaError and TooLarge as decoding does,
    and ValueError for `seconds` that are no clip's.
    """
    return chain.from_iterable(batches(recording, seconds, overlap=overlap))


def batches(recording: Recording | Audio, seconds: float = MAX_CLIP_SECONDS, *, overlap: bool = True) -> Cutting:
    """As `clips`, but in steps that take a moment each: after every block of some 10 s, the clips that are ready, or none."""
    if not 1 <= seconds <= MAX_CLIP_SECONDS:
        raise ValueError(f"a clip is 1 to {MAX_CLIP_SECONDS} s long, not {seconds:g} s")
    return Cutting(recording, Cutter(seconds, overlap=overlap))


class Cutting(Iterator[list[Clip | Damage]]):
    """A recording on its way into clips."""

    def __init__(self, recording: Recording | Audio, cutter: Cutter) -> None:
        self._cutter = cutter
        self._steps = _batches(recording, cutter)

    def __next__(self) -> list[Clip | Damage]:
        return next(self._steps)

    @property
    def seconds(self) -> float:
        """How much of the recording has been decoded: at the end, how long it is."""
        return self._cutter.seconds


def _batches(recording: Recording | Audio, cutter: Cutter) -> Iterator[list[Clip | Damage]]:
    for block in blocks(recording):
        if isinstance(block, bytes):
            yield list(cutter.feed(block))
        elif block.damaged and block.seconds >= 1:
            ready: list[Clip | Damage] = [*cutter.pause(block.seconds)]
            yield [*ready, Damage(cutter.seconds - block.seconds, cutter.seconds)]
        else:
            yield list(cutter.pause(block.seconds))
    yield list(cutter.pause(0))


class Cutter:
    """Cuts samples that come block by block into clips of at most `seconds`. Where it cuts does not depend on the blocks."""

    def __init__(self, seconds: float, *, overlap: bool = True) -> None:
        self._longest = int(seconds * HOPS)
        self._silence = round(min(2 * HOPS, self._longest / 7))  # from here on a pause ends a clip
        self._repeated = min(HOPS, self._longest // 8) if overlap else 0  # hops on either side of a cut without silence
        self._window = self._longest + self._silence
        self._threshold = Threshold()
        self._samples = np.zeros(0, dtype="<i2")
        self._levels = np.zeros(0, dtype=np.float32)
        self._origin = 0  # the first sample's place in the recording
        self._lead = 0  # hops at the beginning that the clip before has heard too

    @property
    def seconds(self) -> float:
        """Where the samples so far end in the recording."""
        return (self._origin + len(self._samples)) / SAMPLE_RATE

    def feed(self, pcm: bytes) -> Iterator[Clip]:
        """Take 16-bit samples at 16 kHz; the clips that are certain now."""
        self._samples = np.concatenate((self._samples, np.frombuffer(pcm, dtype="<i2")))
        whole = len(self._samples) // HOP
        self._levels = np.concatenate((self._levels, levels(self._samples[len(self._levels) * HOP : whole * HOP])))
        while len(self._levels) >= self._window:
            yield from self._next(self._levels[: self._window])

    def pause(self, seconds: float) -> Iterator[Clip]:
        """The recording goes on after a gap of `seconds`, or ends here: all clips that are left."""
        missing = -len(self._samples) % HOP
        if missing:
            yield from self.feed(bytes(2 * missing))
        while len(self._levels):
            yield from self._next(self._levels[: self._window])
        self._origin += round(seconds * SAMPLE_RATE) - missing

    def _next(self, window: NDArray[np.float32]) -> Iterator[Clip]:
        """The clip at the beginning of the window, or some silence less."""
        loud = np.flatnonzero(window > self._threshold.of(window))
        if not len(loud):
            self._drop(max(len(window) - MARGIN, 1) if len(window) == self._window else len(window))
            return
        silent = max(int(loud[0]) - MARGIN, 0)
        if silent and len(window) == self._window:
            self._drop(silent)  # and look again, at what is behind the window now
            return
        yield self._clip(loud, silent, window)

    def _clip(self, loud: NDArray[np.intp], begin: int, window: NDArray[np.float32]) -> Clip:
        lead, end = 0, self._end(loud, begin, len(window))
        if not end:
            limit = begin + self._longest - self._repeated
            start = limit - round(self._longest * _SEARCHED)
            end = start + quietest(window[start:limit])
            last = int(loud[np.searchsorted(loud, end) - 1])
            lead, end = (self._repeated, end) if end - last <= self._repeated else (0, last + 1)
        hear_until = end + lead if lead else min([end + MARGIN, begin + self._longest, *loud[np.searchsorted(loud, end) :][:1]])
        repeats = bool(loud[0] < self._lead)
        clip = Clip(
            start=self._second(self._lead if repeats else int(loud[0])),
            end=self._second(end),
            sound=self._sound(begin, int(hear_until)),
            repeats=repeats,
            runs_on=lead > 0,
        )
        self._drop(end - lead)
        self._lead = lead
        return clip

    def _second(self, hop: int) -> float:
        return (self._origin / HOP + hop) / HOPS

    def _end(self, loud: NDArray[np.intp], begin: int, length: int) -> int:
        """The hop behind the last loud one before the silence that ends the clip; 0 where there is no silence in reach."""
        limit = begin + self._longest - MARGIN
        ends = np.append(loud[:-1][np.diff(loud) > _PAUSE], loud[-1]) + 1
        pauses = np.append(np.diff(loud)[np.diff(loud) > _PAUSE], length - loud[-1] if length == self._window else self._window)
        near = ends <= limit
        silences = ends[near & (pauses >= self._silence)]
        if len(silences):
            return int(silences[0])
        near &= (ends + pauses > limit - round(self._longest * _SEARCHED)) & (pauses > _PAUSE)
        return int(ends[near][::-1][np.argmax(pauses[near][::-1])]) if near.any() else 0

    def _sound(self, begin: int, end: int) -> Audio:
        """The sound, never too short, and filled up to the longest if it is nearly that: an engine takes clips of one length together."""
        samples = self._samples[begin * HOP : end * HOP]
        filled = self._longest * HOP if len(samples) > (1 - _SEARCHED) * self._longest * HOP else round(MIN_CLIP_SECONDS * SAMPLE_RATE)
        return Audio.from_pcm(samples.tobytes().ljust(2 * filled, b"\0"))

    def _drop(self, hops: int) -> None:
        self._samples = self._samples[hops * HOP :]
        self._levels = self._levels[hops:]
        self._origin += hops * HOP
        self._lead = max(self._lead - hops, 0)
