"""What a run says → OpenAI's objects: a completion, chunks of a stream, a list of models, an error."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

from pydantic_core import to_json

from gemma3n_sgl.errors import Gemma3nError, ProgramError
from gemma3n_sgl.program import Program
from gemma3n_sgl.running import Delta, Done, Event, Step, Usage

log = logging.getLogger("gemma3n")

_HOLE = "\u0000"
DONE = b"data: [DONE]\n\n"


class Completion:
    """One answer on its way out. Its id, time and model stay the same from the first chunk to the last."""

    def __init__(self, model: str, *, include_usage: bool = False) -> None:
        self._head: dict[str, Any] = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": model}
        self._include_usage = include_usage
        self._content = self._split({"content": _HOLE})
        self._reasoning = self._split({"reasoning_content": _HOLE})

    def whole(self, events: list[Event]) -> dict[str, Any]:
        """A `chat.completion` from all events of a run."""
        steps = [event for event in events if isinstance(event, Step)]
        done = events[-1]
        assert isinstance(done, Done)
        message: dict[str, Any] = {"role": "assistant", "content": done.answer, "refusal": None}
        if steps:
            message["reasoning_content"] = "".join(_told(step) for step in steps)
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": done.finish_reason}
        return self._head | {"object": "chat.completion", "choices": [choice], "usage": usage(done.usage)}

    async def frames(self, events: AsyncIterator[Event]) -> AsyncIterator[bytes]:
        """The server-sent events of a stream, up to `[DONE]`. An error on the way is told in the stream, and ends it."""
        yield _frame(self._chunk({"role": "assistant", "content": "", "refusal": None}))
        try:
            async for event in events:
                if isinstance(event, Delta):
                    yield self._content[0] + to_json(event.text) + self._content[1]
                elif isinstance(event, Step):
                    yield self._reasoning[0] + to_json(_told(event)) + self._reasoning[1]
                else:
                    yield _frame(self._chunk({}, event.finish_reason))
                    if self._include_usage:
                        yield _frame(self._chunk({}) | {"choices": [], "usage": usage(event.usage)})
        except Gemma3nError as error:
            yield _frame(error_object(error))
        except Exception:
            log.exception("a stream broke off")
            yield _frame(error_object(bug()))
        yield DONE

    def _chunk(self, delta: dict[str, Any], finish_reason: str | None = None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
        return self._head | {"object": "chat.completion.chunk", "choices": [choice]} | ({"usage": None} if self._include_usage else {})

    def _split(self, delta: dict[str, str]) -> tuple[bytes, bytes]:
        """A chunk around the place of its text, so that a token costs the JSON of its text alone."""
        before, after = _frame(self._chunk(delta)).split(to_json(_HOLE))
        return before, after


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


def _told(step: Step) -> str:
    return f"{step.name}: {step.text.strip()}\n\n"


def _frame(value: dict[str, Any]) -> bytes:
    return b"data: " + to_json(value) + b"\n\n"
