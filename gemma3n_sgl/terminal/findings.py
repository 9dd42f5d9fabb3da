"""What the doctor finds: one line each, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["fine", "warning", "problem"]

SIGNS: dict[State, str] = {"fine": "✓", "warning": "!", "problem": "✗"}
STYLES: dict[State, str] = {"fine": "green", "warning": "yellow", "problem": "red"}


@dataclass(frozen=True)
class Finding:
    """`what` was looked at, `text` says how it is, `advice` what to do next ("" where all is well)."""

    what: str
    state: State
    text: str
    advice: str = ""


def fine(what: str, text: str) -> Finding:
    return Finding(what, "fine", text)


def warning(what: str, text: str, advice: str) -> Finding:
    return Finding(what, "warning", text, advice)


def problem(what: str, text: str, advice: str) -> Finding:
    return Finding(what, "problem", text, advice)
