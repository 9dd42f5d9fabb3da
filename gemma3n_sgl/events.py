"""What a run tells of itself: `Step`… `Segment`… `Delta`… `Call`… `Arguments`… `Done`. Values alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gemma3n_sgl.shown import shown

COUNTS = ("prompt_tokens", "completion_tokens", "cached_tokens", "image_tokens", "audio_tokens")
"""What an engine counts in the `meta_info` of a call."""


@dataclass
class Usage:
    """Tokens over all engine calls of a run. `reasoning_tokens`, those of the steps, are part of `completion_tokens`."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    image_tokens: int = 0
    audio_tokens: int = 0

    def add(self, meta: dict[str, Any], *, product: bool) -> None:
        """Count one engine call by its `meta_info`; `product`: it made what the client gets, not a step on the way."""
        for name in COUNTS:
            if count := meta.get(name):
                setattr(self, name, getattr(self, name) + int(count))
        if not product:
            self.reasoning_tokens += int(meta.get("completion_tokens") or 0)


@dataclass(frozen=True)
class Token:
    """A token of the answer, its log probability (None: the engine could not say), and the likeliest ones in its place."""

    text: str
    logprob: float | None
    top: tuple[tuple[str, float | None], ...] = ()


@dataclass(frozen=True)
class Step:
    """A step on the way to the answer is complete."""

    name: str
    text: str


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording, from `start` to `end` in seconds, and what was heard in it; `error` says why it could not be heard."""

    start: float
    end: float
    text: str
    error: str | None = None


@dataclass(frozen=True)
class Delta:
    """A piece of the answer; `tokens` where log probabilities were asked for."""

    text: str
    tokens: tuple[Token, ...] = ()


@dataclass(frozen=True)
class Call:
    """The model begins to call a tool, its `index`-th call; `Arguments` follow."""

    index: int
    id: str
    name: str


@dataclass(frozen=True)
class Arguments:
    """A piece of a call's arguments, as JSON."""

    index: int
    text: str


@dataclass(frozen=True)
class ToolCall:
    """A whole call; `arguments` are JSON."""

    id: str
    name: str
    arguments: str


@dataclass(frozen=True)
class Done:
    """The end of a run. `finish_reason` is "stop", "length" or "tool_calls"; `variables` are all the program made; `seconds` is the length of
    the recording that was heard, the longest of several (0: none)."""

    answer: str
    finish_reason: str
    usage: Usage
    variables: dict[str, Any] = field(default_factory=dict, repr=False)
    calls: tuple[ToolCall, ...] = ()
    segments: tuple[Segment, ...] = ()
    tokens: tuple[Token, ...] = field(default=(), repr=False)
    seconds: float = field(default=0.0, repr=False)

    def _repr_html_(self) -> str | None:
        return shown(self)


Event = Step | Segment | Delta | Call | Arguments | Done


def joined(first: Event, then: Event) -> Event | None:
    """Both as one, where they are pieces of the same text; None where they are not."""
    if isinstance(first, Delta) and isinstance(then, Delta):
        return Delta(first.text + then.text, first.tokens + then.tokens)
    if isinstance(first, Arguments) and isinstance(then, Arguments) and first.index == then.index:
        return Arguments(first.index, first.text + then.text)
    return None
