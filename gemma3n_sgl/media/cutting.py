"""Long sound → clips the engine can take, cut where it is quietest."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from gemma3n_sgl.conversation import MAX_CLIP_SECONDS, SAMPLE_RATE, Audio, Recording
from gemma3n_sgl.media.decoding import decode

_PAUSE = 0.2
"""Seconds of quiet that are looked for: shorter gaps occur within words."""

_HOP = SAMPLE_RATE // 100
_SEARCHED = 1 / 3
"""Share of a clip, from its end, in which the quietest place is looked for: 10 of 29.5 s."""


def clips(recording: Recording | Audio, seconds: float = MAX_CLIP_SECONDS) -> list[Audio]:
    """All of a recording as clips of at most `seconds`, cut at silences, in order; all of one length, with silence behind the shorter.

    Engines must not get clips of unequal length in one request. Nothing is lost or doubled. Blocks, for decoding above all.
    Raises MediaError and TooLarge as `decode` does, and ValueError for `seconds` that are no clip's.
    """
    if not 1 <= seconds <= MAX_CLIP_SECONDS:
        raise ValueError(f"a clip is 1 to {MAX_CLIP_SECONDS} s long, not {seconds:g} s")
    pcm = decode(recording).raw_data
    places = cuts(np.frombuffer(pcm, dtype="<i2"), round(seconds * SAMPLE_RATE))
    parts = [Audio.from_pcm(pcm[2 * start : 2 * end]) for start, end in pairwise(places)]
    longest = max(part.seconds for part in parts)
    return [part.padded(longest) for part in parts]


def cuts(samples: np.ndarray, longest: int) -> list[int]:
    """Where parts of at most `longest` samples begin and end: 0, …, `len(samples)`."""
    places = [0]
    while len(samples) - places[-1] > longest:
        end = places[-1] + longest
        start = end - round(longest * _SEARCHED)
        places.append(start + _quietest(samples[start:end]))
    return [*places, len(samples)]


def _quietest(samples: np.ndarray) -> int:
    """The middle of the quietest 200 ms, of the last if there are several."""
    hops = samples[: len(samples) // _HOP * _HOP].reshape(-1, _HOP).astype(np.float64)
    energy = np.concatenate(([0.0], np.cumsum(np.einsum("ij,ij->i", hops, hops))))
    width = round(_PAUSE * SAMPLE_RATE / _HOP)
    windows = energy[width:] - energy[:-width]
    last = len(windows) - 1 - int(np.argmin(windows[::-1]))
    return last * _HOP + width * _HOP // 2
