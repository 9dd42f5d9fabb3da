"""The log: one line a request, in words or as JSON, and none of what clients send unless the operator asks for it."""

from __future__ import annotations

import json
import logging
import sys
import time
import traceback
from types import TracebackType
from typing import Any

from gemma3n_sgl.serving.watching import Seen, seen
from gemma3n_sgl.settings import Settings

REQUESTS = logging.getLogger("gemma3n.requests")

QUIET = ("/health", "/livez", "/metrics")
"""Asked by machines every few seconds: told at the level `debug`."""

LONGEST = 128
"""Characters of a client's own word, such as a model's name, in a line."""

_FIELDS = "request"
"""The attribute of a record that holds a request's fields."""


def set_up(settings: Settings) -> None:
    """Have the server's log written to the standard error, as the settings say. For whoever owns the process."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Lines(as_json=settings.log_format == "json", with_content=settings.log_content))
    logging.logThreads = logging.logMultiprocessing = logging.logProcesses = False  # no line tells them
    root = logging.getLogger("gemma3n")
    root.handlers[:] = [handler]
    root.propagate = False
    root.setLevel(settings.log_level.upper())
    for name in ("uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler] if name == "uvicorn" else []
        logger.propagate = name != "uvicorn"


def tell(request: Seen) -> None:
    """Write a request's line."""
    level = logging.DEBUG if request.route in QUIET and request.outcome == "ok" else logging.INFO
    if REQUESTS.isEnabledFor(level):
        record = logging.LogRecord(REQUESTS.name, level, "", 0, "request", (), None)  # without a search for who calls, which is known
        record.__dict__[_FIELDS] = fields_of(request)
        REQUESTS.handle(record)


def fields_of(request: Seen) -> dict[str, Any]:
    """What is told of a request; what there is none of is left out. Times are in seconds."""
    times = {"queue": request.queue_seconds, "first_token": request.first_seconds, "total": request.seconds}
    tokens = {name.removesuffix("_tokens"): count for name, count in vars(request.usage).items() if count}
    told: dict[str, Any] = {
        "id": request.id,
        "method": request.method,
        "path": request.path[:LONGEST],
        "status": request.status,
        "outcome": request.outcome,
        "error": request.error,
        "model": request.model[:LONGEST],
        "program": request.program,
        "key": request.who.removeprefix("key "),
        "images": request.images,
        "sounds": request.sounds,
        "sound_seconds": round(request.sound_seconds, 1),
        "tokens": tokens,
        "seconds": {name: round(value, 4) for name, value in times.items() if value is not None},
        "prompt": request.prompt,
        "answers": request.answers,
    }
    return {name: value for name, value in told.items() if value}


class Lines(logging.Formatter):
    """A record as one line of words, or as one object of JSON; either way nothing in it can begin a line of its own.

    The words of foreign exceptions are left out, unless `with_content`: they may quote what a client has sent. What was raised, and where, stays.
    """

    def __init__(self, *, as_json: bool, with_content: bool) -> None:
        super().__init__()
        self._as_json, self._with_content = as_json, with_content

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] | None = getattr(record, _FIELDS, None)
        message = "" if fields else record.getMessage()
        trace = self._trace(record.exc_info[1]) if record.exc_info and record.exc_info[1] else ""
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"
        if self._as_json:
            entry = {"time": stamp, "level": record.levelname.lower(), "logger": record.name, "id": seen().id, "message": message}
            entry |= (fields or {}) | {"traceback": trace}
            return json.dumps({name: value for name, value in entry.items() if value != ""}, ensure_ascii=False)
        words = _in_words(fields) if fields else _plain(f"{message}  [{seen().id}]" if seen().id else message)
        return f"{stamp} {record.levelname.lower():7} {words}" + (f"\n{trace}" if trace else "")

    def _trace(self, error: BaseException) -> str:
        """Where it was raised, its causes first."""
        parts = []
        chain: BaseException | None = error
        told: set[int] = set()
        while chain is not None and id(chain) not in told:  # `raise error from error` makes a ring
            told.add(id(chain))
            parts.append(_frames(chain.__traceback__) + type(chain).__name__ + (f": {_plain(str(chain))}" if self._with_content else ""))
            chain = chain.__cause__ or (None if chain.__suppress_context__ else chain.__context__)
        return "\nwhich led to\n".join(reversed(parts))


def _frames(tb: TracebackType | None) -> str:
    return "".join(traceback.format_tb(tb))


def _in_words(told: dict[str, Any]) -> str:
    """A request's fields as a person reads them."""
    tokens, seconds = told.get("tokens", {}), told["seconds"]
    parts = [f"{told['method']} {told['path']} {told['status']} {told.get('error') or told['outcome']}"]
    if "model" in told:
        parts.append(told["model"] + (f" by {told['program']}" if "program" in told else ""))
    if tokens:
        cached = f", {tokens['cached']} cached" if tokens.get("cached") else ""
        parts.append(f"{tokens.get('prompt', 0)}+{tokens.get('completion', 0)} tokens{cached}")
    parts += [f"{told[name]} {name}" for name in ("images", "sounds") if name in told]
    if "sound_seconds" in told:
        parts.append(f"{told['sound_seconds']:g} s of sound")
    times = [f"{seconds['total']:.3f} s"]
    times += [f"{words} {seconds[name]:.3f}" for name, words in (("first_token", "first token"), ("queue", "queue")) if seconds.get(name)]
    parts.append(", ".join(times))
    parts += [f"key {told['key']}"] if "key" in told else []
    parts += [f"{name}: {told[name]}" for name in ("prompt", "answers") if name in told]
    return _plain("; ".join([*parts, told["id"]]) if "id" in told else "; ".join(parts))


def _plain(text: str) -> str:
    """Without anything that ends a line or commands a terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
