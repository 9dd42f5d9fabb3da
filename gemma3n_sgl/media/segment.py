"""pydub's AudioSegment, the value in which sound goes to and comes from other libraries. Its own decoding is not used."""

from __future__ import annotations

import warnings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # pydub looks for an ffmpeg program as it is imported, and nothing here needs one
    from pydub import AudioSegment  # it has no annotations

__all__ = ["AudioSegment"]
