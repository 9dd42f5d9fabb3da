"""The values a program works on: pictures, sound, turns. Pure and frozen; none of them reads a file or a URL to work with it.

`Image` and `Audio` are real `bytes`, because that is what SGLang's own language carries through `run`, `fork`, `run_batch` and
`select` unchanged. They are made from foreign bytes by `gemma3n_sgl.media` alone, so that a value is decoded and within limits
by construction.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import MutableMapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from gemma3n_sgl.shown import shown

SAMPLE_RATE = 16_000
"""Hz: what Gemma 3n's audio tower hears (its feature extractor's `sampling_rate`)."""

MAX_CLIP_SECONDS = 29.5
"""Longest clip an engine is given. The model hears 30 s; SGLang 0.5.6 and later die of 30.5 s."""

_WAV_HEADER = 44


class Image(bytes):
    """A picture the engine can take: an encoded PNG or JPEG of `width` × `height` pixels."""

    width: int
    height: int
    media_type: str

    def __new__(cls, data: bytes, *, width: int, height: int, media_type: str) -> Image:
        value = super().__new__(cls, data)
        value.width, value.height, value.media_type = width, height, media_type
        return value

    @cached_property
    def data_uri(self) -> str:
        return f"data:{self.media_type};base64,{base64.b64encode(self).decode()}"

    def __repr__(self) -> str:
        return f"Image({self.width}×{self.height} {self.media_type})"

    __str__ = __repr__

    def _repr_html_(self) -> str:
        return f'<img src="{self.data_uri}" style="max-width: 20em; max-height: 20em">'


class Audio(bytes):
    """One clip of sound the engine can take: a WAV file, 16 kHz, mono, 16 bit, of `seconds` ≤ 29.5."""

    @classmethod
    def from_pcm(cls, pcm: bytes) -> Audio:
        """A clip of 16-bit little-endian mono samples at 16 kHz. Raises ValueError above 29.5 s."""
        seconds = len(pcm) / 2 / SAMPLE_RATE
        if seconds > MAX_CLIP_SECONDS:
            raise ValueError(f"a clip holds at most {MAX_CLIP_SECONDS} s of sound, not {seconds:.1f} s")
        header = struct.pack(
            "<4sI4s4sIHHIIHH4sI", b"RIFF", 36 + len(pcm), b"WAVE", b"fmt ", 16, 1, 1, SAMPLE_RATE, SAMPLE_RATE * 2, 2, 16, b"data", len(pcm)
        )
        return cls(header + pcm)

    @property
    def pcm(self) -> bytes:
        """16-bit little-endian mono samples at 16 kHz."""
        return self[_WAV_HEADER:]

    @property
    def seconds(self) -> float:
        return (len(self) - _WAV_HEADER) / 2 / SAMPLE_RATE

    @cached_property
    def data_uri(self) -> str:
        return f"data:audio/wav;base64,{base64.b64encode(self).decode()}"

    def padded(self, seconds: float) -> Audio:
        """The same clip with silence behind it, `seconds` long."""
        return Audio.from_pcm(self.pcm.ljust(round(seconds * SAMPLE_RATE) * 2, b"\0"))

    def __repr__(self) -> str:
        return f"Audio({self.seconds:.1f} s)"

    __str__ = __repr__

    def _repr_html_(self) -> str | None:
        return shown(self)


@dataclass(frozen=True)
class Recording:
    """Sound of any length, as it came: encoded bytes or a file, not decoded until it is heard.

    `name` is what a person calls it; `max_seconds` ends its decoding with a TooLarge error (None: no limit), in which `limit` stands behind it;
    `keeper` is what keeps its file on disk, if that is a temporary one, and lives as long as the recording; `apart` is what decoding it may
    cost, in a process apart (`gemma3n_sgl.media.limits.Apart`; None: it is decoded in this one); `memory` is what its parts were heard as,
    by what was asked about each: `hear` asks nothing that stands there, and writes down what it hears (a `dict` will do; None: nothing is kept).
    """

    source: bytes | Path = field(repr=False)
    name: str = "recording"
    max_seconds: float | None = None
    keeper: object = field(default=None, repr=False, compare=False)
    apart: object = field(default=None, repr=False, compare=False)
    memory: MutableMapping[str, Any] | None = field(default=None, repr=False, compare=False)
    limit: str = field(default="", repr=False, compare=False)

    def _repr_html_(self) -> str | None:
        return shown(self)


Part = str | Image | Audio | Recording
Sound = Audio | Recording


@dataclass(frozen=True)
class Turn:
    """What one side said, in order: text, pictures and sound, freely mixed."""

    role: Literal["user", "assistant"]
    parts: tuple[Part, ...]

    @property
    def text(self) -> str:
        """All text of the turn, a line for each part."""
        return "\n".join(part.strip() for part in self.parts if isinstance(part, str)).strip()

    def only(self, *kinds: type) -> tuple[Part, ...]:
        return tuple(part for part in self.parts if isinstance(part, kinds))


@dataclass(frozen=True)
class Conversation:
    """A whole talk: turns of user and assistant in alternation, the user's first and last, and a system prompt ("": none).

    Gemma 3n's template can express nothing else; ValueError says which rule a talk breaks.
    """

    turns: tuple[Turn, ...]
    system: str = ""

    def __post_init__(self) -> None:
        if not self.turns:
            raise ValueError("a conversation has at least one turn")
        for i, turn in enumerate(self.turns):
            if turn.role != ("user", "assistant")[i % 2]:
                raise ValueError("turns alternate, and the user speaks first")
        if self.turns[-1].role != "user":
            raise ValueError("the last turn is the user's")

    @classmethod
    def of(cls, *parts: Part, system: str = "") -> Conversation:
        """One user turn: `Conversation.of(picture, "What is this?")`."""
        return cls((Turn("user", parts),), system)

    @property
    def last(self) -> Turn:
        return self.turns[-1]

    def only(self, *kinds: type) -> tuple[Part, ...]:
        """All parts of these kinds, over all turns, in order."""
        return tuple([part for turn in self.turns for part in turn.parts if isinstance(part, kinds)])

    def asking(self, prompt: str) -> Conversation:
        """The same talk, with `prompt` for the text of its last turn; pictures and sound stay."""
        media = self.last.only(Image, Audio, Recording)
        return replace(self, turns=(*self.turns[:-1], Turn("user", (*media, prompt))))
