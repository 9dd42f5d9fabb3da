"""What an engine says against a request, in its many forms, as our errors; and what it says that is no answer at all."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json

from gemma3n_sgl.errors import ContextLengthExceeded, EngineError, EngineUnavailable, Gemma3nError, InvalidValue, Overloaded
from gemma3n_sgl.events import COUNTS

BROKEN_OFF = "The engine broke off in the middle of the answer. Try again."
NONSENSE = "The engine answered something that is no answer. Try again; if it goes on, look at the engine's log."
KEY_REFUSED = "The engine refuses our key. Set GEMMA3N_RUNTIME_API_KEY to the key it was started with."
_TOO_LONG = ("longer than the model's context length", "maximum context length", "exceeds the maximum allowed length")


def parsed(data: bytes, expected: Any = dict) -> Any:
    """The JSON of an answer or an event. Raises EngineError for what is none, and for what is not of the type expected."""
    try:
        value = from_json(data, allow_inf_nan=False)
    except ValueError:
        raise EngineError(NONSENSE) from None
    if not isinstance(value, expected):
        raise EngineError(NONSENSE)
    return value


def refusal(status: int, body: bytes) -> Gemma3nError:
    """What an answer that is not 200 means. The engine has five shapes for it; all hold a message or nothing."""
    try:
        value = from_json(body)
    except ValueError:
        value = {}
    found = value.get("error", value) if isinstance(value, dict) else {}
    message = found.get("message") if isinstance(found, dict) else found
    return _meant(status, message if isinstance(message, str) else "")


def told(error: Any) -> Gemma3nError:
    """What an error inside a stream means, where HTTP has said 200 already."""
    if not isinstance(error, dict):
        return EngineError(NONSENSE)
    status = error.get("code")
    return _meant(status if isinstance(status, int) else 500, str(error.get("message", "")))


def check_finish(meta: dict[str, Any]) -> None:
    """Raise what the last `meta_info` of a generation says against it: that it was aborted, or nothing, where it should tell how it ended."""
    reason = meta.get("finish_reason")
    if not isinstance(reason, dict):
        raise EngineError(BROKEN_OFF)
    if reason.get("type") == "abort":
        status = reason.get("status_code")
        raise _meant(status if isinstance(status, int) else 500, str(reason.get("message", "")))
    for name in COUNTS:
        if not isinstance(meta.get(name) or 0, int):
            raise EngineError(NONSENSE)


def _meant(status: int, message: str) -> Gemma3nError:
    """An engine's status and words as our error; its words are passed on only where they speak of lengths and limits."""
    if any(mark in message for mark in _TOO_LONG):
        return ContextLengthExceeded(message, param="messages")
    if status in (401, 403):
        return EngineError(KEY_REFUSED)
    if status in (404, 405) or 300 <= status < 400:
        return EngineError("What answers at the engine's address is no SGLang engine. Set GEMMA3N_RUNTIME_URL to the engine's own.")
    if status == 429:
        return Overloaded("The engine has too much to do. Try again in a moment.")
    if status == 503:
        return EngineUnavailable("The engine takes no requests now; it may be loading or overloaded. Try again in a few seconds.")
    if 400 <= status < 500 and "grammar" in message:
        return InvalidValue("The engine can't keep to this regex, grammar or schema. Simplify it.")
    if 400 <= status < 500:
        return InvalidValue("The engine refused the request: one of its parameters is out of range.")
    return EngineError("The engine failed on this request. Try again; if it goes on, look at the engine's log.")
