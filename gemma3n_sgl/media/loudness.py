"""How loud a sound is from moment to moment, and what in it is silence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from gemma3n_sgl.conversation import SAMPLE_RATE

HOP = SAMPLE_RATE // 100
"""Samples in a hop of 10 ms."""

_INAUDIBLE = 100.0
"""Variance of 16-bit samples that nobody hears: -70 dB of full scale."""

_CONTRAST = 300.0
"""Ratio of power between speech and the noise behind it, from which on the noise is known for what it is: 25 dB."""

_ABOVE_NOISE = 4.0
"""Ratio of power to the noise, from which on something is heard: 6 dB."""

_FORGETS = 0.8
"""What is left after 30 s of how loud the speaker was: 1 dB less."""

_QUIET_HOPS = 20
_MOMENT = 2
"""Hops between two words of one breath: a cut there is in neither."""


def levels(samples: NDArray[np.int16]) -> NDArray[np.float32]:
    """The variance of each hop of whole hops of 16-bit samples; a constant offset is no sound."""
    hops = samples.reshape(-1, HOP).astype(np.float32)
    power = np.einsum("ij,ij->i", hops, hops) / HOP
    return power - np.square(hops @ np.full(HOP, 1 / HOP, dtype=np.float32))


def quietest(window: NDArray[np.float32]) -> int:
    """The quietest moment of the quietest 200 ms, the last if there are several; in hops."""
    begin = _quietest(window, _QUIET_HOPS)
    return begin + _quietest(window[begin : begin + _QUIET_HOPS], _MOMENT) + _MOMENT // 2


def _quietest(window: NDArray[np.float32], width: int) -> int:
    """Where the quietest `width` hops begin."""
    energy = np.concatenate(([0.0], np.cumsum(window, dtype=np.float64)))
    width = min(width, len(window))
    sums = energy[width:] - energy[:-width]
    return len(sums) - 1 - int(np.argmin(sums[::-1]))


class Threshold:
    """The power from which on a hop is heard: above what is inaudible, and above the steady noise behind speech that is 25 dB louder.

    How loud the speaker was is remembered for some windows, so that the noise of a long pause is known too. Noise without speech,
    or music, is sound.
    """

    def __init__(self) -> None:
        self._loud = 0.0

    def of(self, window: NDArray[np.float32]) -> float:
        tenth, loudest = len(window) // 10, len(window) * 98 // 100
        noise, loud = np.partition(window, (tenth, loudest))[[tenth, loudest]]
        self._loud = max(float(loud), self._loud * _FORGETS ** (len(window) * HOP / SAMPLE_RATE / 30))
        known = self._loud > _CONTRAST * max(float(noise), 1.0)
        return max(_INAUDIBLE, _ABOVE_NOISE * float(noise)) if known else _INAUDIBLE
