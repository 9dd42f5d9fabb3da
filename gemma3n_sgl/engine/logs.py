"""The end of a log."""

from __future__ import annotations

from pathlib import Path

_TAIL = 64 * 1024


def last_lines(log: Path, count: int = 15) -> list[str]:
    """The last lines of a log that say something; none of a log that is not there."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    return [line.rstrip() for line in text.replace("\r", "\n").splitlines() if line.strip()][-count:]


def shown(log: Path, count: int = 15) -> str:
    """The last lines of a log, under its name, to stand in a message."""
    lines = last_lines(log, count)
    return "\n".join([f"The last lines of {log}:", *(f"  {line}" for line in lines)]) if lines else f"Its log, {log}, is empty."
