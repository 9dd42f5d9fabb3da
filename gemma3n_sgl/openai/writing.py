"""What a run says → OpenAI's objects: a completion, chunks of a stream, a list of models, an error."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterable
from typing import Any

from pydantic_core import to_json

from gemma3n_sgl.errors import Gemma3nError, ProgramError
from gemma3n_sgl.events import Arguments, Call, Delta, Done, Event, Step, Token, ToolCall, Usage
from gemma3n_sgl.program import Program

HOLE = "\u0000"
"""Stands in a frame for each text that it is made around, so that a token costs the JSON of its text alone."""

DONE = b"data: [DONE]\n\n"


class Head:
    """What all chunks of an answer have in common."""

    def __init__(self, kind: str, model: str) -> None:
        self.fields: dict[str, Any] = {"id": f"{kind}-{secrets.token_hex(16)}", "created": int(time.time()), "model": model}


class Completion:
    """One answer on its way out, of one or several choices. Its id, time and model stay the same from the first chunk to the last."""

    def __init__(self, model: str, *, include_usage: bool = False, logprobs: bool = False) -> None:
        self._head = Head("chatcmpl", model).fields
        self._include_usage = include_usage
        self._logprobs = logprobs
        self._done: list[list[Event]] = []

    def field(self, name: str) -> str:
        return name

    def whole(self, runs: list[list[Event]]) -> dict[str, Any]:
        """A `chat.completion` from all events of each run."""
        choices = [self._choice(index, events) for index, events in enumerate(runs)]
        return self._head | {"object": "chat.completion", "choices": choices, "usage": usage(used(runs))}

    def _choice(self, index: int, events: list[Event]) -> dict[str, Any]:
        steps = [event for event in events if isinstance(event, Step)]
        done = events[-1]
        assert isinstance(done, Done)
        message: dict[str, Any] = {"role": "assistant", "content": None if done.calls else done.answer, "refusal": None}
        if steps:
            message["reasoning_content"] = "".join(told_step(step) for step in steps)
        if done.calls:
            message["tool_calls"] = [tool_call(call) for call in done.calls]
        logprobs = _logprobs(done.tokens) if self._logprobs else None
        return {"index": index, "message": message, "logprobs": logprobs, "finish_reason": done.finish_reason}

    def begin(self, count: int) -> bytes:
        return b"".join([frame(self._chunk({"role": "assistant", "content": "", "refusal": None}, index)) for index in range(count)])

    def piece(self, index: int, event: Event) -> bytes:
        if isinstance(event, Delta):
            if self._logprobs:
                return frame(self._chunk({"content": event.text}, index, logprobs=_logprobs(event.tokens)))
            return frame(self._chunk({"content": event.text}, index))
        if isinstance(event, Step):
            return frame(self._chunk({"reasoning_content": told_step(event)}, index))
        if isinstance(event, Call):
            function = {"name": event.name, "arguments": ""}
            return frame(self._chunk({"tool_calls": [{"index": event.index, "id": event.id, "type": "function", "function": function}]}, index))
        if isinstance(event, Arguments):
            return frame(self._chunk({"tool_calls": [{"index": event.index, "function": {"arguments": event.text}}]}, index))
        if isinstance(event, Done):
            self._done.append([event])
            return frame(self._chunk({}, index, event.finish_reason))
        return b""

    def end(self) -> bytes:
        if self._include_usage:
            return frame(self._chunk({}, 0) | {"choices": [], "usage": usage(used(self._done))}) + DONE
        return DONE

    def failed(self, error: Gemma3nError) -> bytes:
        return frame(error_object(error)) + DONE

    def around(self, index: int) -> tuple[bytes, bytes] | None:
        return None if self._logprobs else split(frame(self._chunk({"content": HOLE}, index)))

    def _chunk(self, delta: dict[str, Any], index: int, finish_reason: str | None = None, logprobs: Any = None) -> dict[str, Any]:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return self._head | {"object": "chat.completion.chunk", "choices": [choice]} | ({"usage": None} if self._include_usage else {})


def tool_call(call: ToolCall) -> dict[str, Any]:
    return {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}


def used(runs: list[list[Event]], each: int = 0) -> Usage:
    """What the runs of one request used: what they generated in all, and the prompt once for `each` runs (0: all have the same)."""
    total = Usage()
    for begin in range(0, len(runs), each or len(runs)):
        spent = [events[-1].usage for events in runs[begin : begin + (each or len(runs))] if events and isinstance(events[-1], Done)]
        prompt = max(spent, key=lambda usage: usage.prompt_tokens, default=Usage())
        total.prompt_tokens += prompt.prompt_tokens
        total.cached_tokens += prompt.cached_tokens
        total.image_tokens += prompt.image_tokens
        total.audio_tokens += prompt.audio_tokens
        total.completion_tokens += sum([usage.completion_tokens for usage in spent])
        total.reasoning_tokens += sum([usage.reasoning_tokens for usage in spent])
    return total


def _logprobs(tokens: Iterable[Token]) -> dict[str, Any]:
    return {"content": [logprob(token) for token in tokens], "refusal": None}


def logprob(token: Token) -> dict[str, Any]:
    """A token with its log probability, and the likeliest in its place."""
    return _logprob(token.text, token.logprob) | {"top_logprobs": [_logprob(*top) for top in token.top]}


def _logprob(text: str, logprob: float | None) -> dict[str, Any]:
    """OpenAI writes -9999.0 for "very unlikely", which is said of what the engine can't say, too."""
    return {"token": text, "logprob": -9999.0 if logprob is None else logprob, "bytes": list(text.encode())}


def usage(used: Usage) -> dict[str, Any]:
    """OpenAI's `usage`. Prompt tokens are counted over all engine calls of the run."""
    return {
        "prompt_tokens": used.prompt_tokens,
        "completion_tokens": used.completion_tokens,
        "total_tokens": used.prompt_tokens + used.completion_tokens,
        "prompt_tokens_details": {
            "cached_tokens": used.cached_tokens,
            "audio_tokens": used.audio_tokens,
            "image_tokens": used.image_tokens,
        },
        "completion_tokens_details": {"reasoning_tokens": used.reasoning_tokens},
    }


def model_object(model: str, created: int, program: Program | None = None) -> dict[str, Any]:
    """One entry of `/v1/models`; with a program, what it is, takes and can be told."""
    entry: dict[str, Any] = {"id": model, "object": "model", "created": created, "owned_by": "gemma3n-sgl"}
    if program is not None:
        entry |= {"description": program.description, "input_kinds": list(program.input_kinds), "options": program.schema()}
    return entry


def error_object(error: Gemma3nError) -> dict[str, Any]:
    return {"error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}}


def error_headers(error: Gemma3nError) -> dict[str, str]:
    """What tells OpenAI's clients whether and when to try again."""
    headers = {}
    if error.retry_after is not None:
        headers["retry-after"] = str(error.retry_after)
    if error.retry is not None:
        headers["x-should-retry"] = str(error.retry).lower()
    return headers


def bug() -> ProgramError:
    """What is said of an exception that nobody expected; the log has the rest."""
    return ProgramError("Something in the server went wrong. The request id leads to it in the server's log.")


def told_step(step: Step) -> str:
    """A step as a client reads it."""
    return f"{step.name}: {step.text.strip()}\n\n"


def on_one_line(value: Any) -> bytes:
    """JSON without U+0085, U+2028 and U+2029 as they are: no line ends in a stream's own terms, but clients that read it by `str.splitlines`
    (httpx's `iter_lines` does) would break off there."""
    data = to_json(value)
    if data.isascii():
        return data
    return data.replace(b"\xc2\x85", b"\\u0085").replace(b"\xe2\x80\xa8", b"\\u2028").replace(b"\xe2\x80\xa9", b"\\u2029")


def split(frame: bytes) -> tuple[bytes, bytes]:
    """What stands in it before and after the HOLE."""
    before, after = frame.split(to_json(HOLE))
    return before, after


def frame(value: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + on_one_line(value) + b"\n\n"
