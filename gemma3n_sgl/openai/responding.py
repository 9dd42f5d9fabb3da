"""What a run says → the object and the events of `/v1/responses`."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any

from gemma3n_sgl.errors import Gemma3nError
from gemma3n_sgl.events import Arguments, Call, Delta, Done, Event, Step, Token, Usage
from gemma3n_sgl.openai.responses import ResponsesRequest
from gemma3n_sgl.openai.writing import logprob, on_one_line, told_step

Item = dict[str, Any]


class Responding:
    """One response on its way out: its items (reasoning, message, function calls) come one after the other."""

    def __init__(self, asked: ResponsesRequest) -> None:
        self._asked = asked
        self._id = f"resp_{secrets.token_hex(16)}"
        self._created = int(time.time())
        self._sequence = -1
        self._output: list[Item] = []

    def field(self, name: str) -> str:
        return self._asked.field(name)

    def whole(self, runs: list[list[Event]]) -> dict[str, Any]:
        for event in runs[0]:
            for _ in self._said(event):
                continue
        done = runs[0][-1]
        assert isinstance(done, Done)
        return self._ended(done)

    def begin(self, count: int) -> bytes:
        created = self._event("response.created", response=self._response("in_progress"))
        return created + self._event("response.in_progress", response=self._response("in_progress"))

    def piece(self, index: int, event: Event) -> bytes:
        said = b"".join(self._said(event))
        if isinstance(event, Done):
            response = self._ended(event)
            return said + self._event(f"response.{response['status']}", response=response)
        return said

    def around(self, index: int) -> tuple[bytes, bytes] | None:
        return None  # events are numbered

    def end(self) -> bytes:
        return b""  # there is no [DONE] here

    def failed(self, error: Gemma3nError) -> bytes:
        failed = self._response("failed") | {"error": {"code": "server_error", "message": error.message}}
        told = self._event("error", code=error.code, message=error.message, param=error.param)
        return told + self._event("response.failed", response=failed)

    def _said(self, event: Event) -> Iterator[bytes]:
        """What one event adds to the response, as frames."""
        if isinstance(event, Step):
            yield from self._in("reasoning", _reasoning)
            yield from self._text("summary", "reasoning_summary", told_step(event))
        elif isinstance(event, Delta):
            yield from self._in("message", _message)
            yield from self._text("content", "output", event.text, event.tokens)
        elif isinstance(event, Call):
            yield from self._close()
            call = {"id": _new("fc"), "type": "function_call", "status": "in_progress", "call_id": event.id, "name": event.name, "arguments": ""}
            yield from self._open(call)
        elif isinstance(event, Arguments):
            self._output[-1]["arguments"] += event.text
            yield self._event("response.function_call_arguments.delta", **self._place(), delta=event.text)
        elif isinstance(event, Done):
            if not event.calls:
                yield from self._in("message", _message)
            yield from self._close("incomplete" if _is_cut(event) else "completed")

    def _in(self, kind: str, new: Any) -> Iterator[bytes]:
        """Be in an item of this kind."""
        if not self._is_open() or self._output[-1]["type"] != kind:
            yield from self._close()
            item = new()
            parts = item.pop("_parts")
            yield from self._open(item | {parts: []})
            part = {"type": "summary_text", "text": ""} if parts == "summary" else _output_text()
            item = self._output[-1]
            item[parts] = [part]
            added = "response.reasoning_summary_part.added" if parts == "summary" else "response.content_part.added"
            yield self._event(added, **self._place(parts), part=dict(part))

    def _open(self, item: Item) -> Iterator[bytes]:
        self._output.append(item)
        yield self._event("response.output_item.added", output_index=len(self._output) - 1, item=dict(item))

    def _text(self, parts: str, name: str, text: str, tokens: tuple[Token, ...] = ()) -> Iterator[bytes]:
        part = self._output[-1][parts][0]
        part["text"] += text
        more: dict[str, Any] = {}
        if parts != "summary":
            more["logprobs"] = [logprob(token) for token in tokens] if self._asked.logprobs else []
            part["logprobs"] += more["logprobs"]
        yield self._event(f"response.{name}_text.delta", **self._place(parts), delta=text, **more)

    def _close(self, status: str = "completed") -> Iterator[bytes]:
        """End the item that is open, if one is."""
        if not self._is_open():
            return
        item = self._output[-1]
        item["status"] = status
        if item["type"] == "function_call":
            yield self._event("response.function_call_arguments.done", **self._place(), name=item["name"], arguments=item["arguments"])
        else:
            parts = "summary" if item["type"] == "reasoning" else "content"
            part = item[parts][0]
            text, ended = ("reasoning_summary_text", "reasoning_summary_part") if parts == "summary" else ("output_text", "content_part")
            more: dict[str, Any] = {} if parts == "summary" else {"logprobs": part["logprobs"]}
            yield self._event(f"response.{text}.done", **self._place(parts), text=part["text"], **more)
            yield self._event(f"response.{ended}.done", **self._place(parts), part=part)
        yield self._event("response.output_item.done", output_index=len(self._output) - 1, item=item)

    def _is_open(self) -> bool:
        return bool(self._output) and self._output[-1]["status"] == "in_progress"

    def _place(self, parts: str = "") -> dict[str, Any]:
        index = {"summary": {"summary_index": 0}, "content": {"content_index": 0}}.get(parts, {})
        return {"item_id": self._output[-1]["id"], "output_index": len(self._output) - 1} | index

    def _event(self, kind: str, **fields: Any) -> bytes:
        self._sequence += 1
        return f"event: {kind}\ndata: ".encode() + on_one_line({"type": kind, "sequence_number": self._sequence} | fields) + b"\n\n"

    def _ended(self, done: Done) -> dict[str, Any]:
        cut = _is_cut(done)
        response = self._response("incomplete" if cut else "completed")
        return response | {"incomplete_details": {"reason": "max_output_tokens"} if cut else None, "usage": _usage(done.usage)}

    def _response(self, status: str) -> dict[str, Any]:
        asked = self._asked
        return {
            "id": self._id,
            "object": "response",
            "created_at": self._created,
            "status": status,
            "background": False,
            "error": None,
            "incomplete_details": None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata or {},
            "model": asked.model,
            "output": list(self._output),
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": None,
            "reasoning": {"effort": (asked.reasoning or {}).get("effort"), "summary": None},
            "store": False,
            "temperature": 1.0 if asked.temperature is None else asked.temperature,
            "text": asked.text or {"format": {"type": "text"}},
            "tool_choice": asked.tool_choice or "auto",
            "tools": asked.tools or [],
            "top_logprobs": asked.top_logprobs or 0,
            "top_p": 0.95 if asked.top_p is None else asked.top_p,
            "truncation": asked.truncation or "disabled",
            "usage": None,
        }


def _is_cut(done: Done) -> bool:
    return done.finish_reason == "length"


def _reasoning() -> Item:
    return {"id": _new("rs"), "type": "reasoning", "status": "in_progress", "_parts": "summary"}


def _message() -> Item:
    return {"id": _new("msg"), "type": "message", "status": "in_progress", "role": "assistant", "_parts": "content"}


def _output_text() -> dict[str, Any]:
    return {"type": "output_text", "text": "", "annotations": [], "logprobs": []}


def _new(kind: str) -> str:
    return f"{kind}_{secrets.token_hex(16)}"


def _usage(used: Usage) -> dict[str, Any]:
    return {
        "input_tokens": used.prompt_tokens,
        "input_tokens_details": {"cached_tokens": used.cached_tokens},
        "output_tokens": used.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": used.reasoning_tokens},
        "total_tokens": used.prompt_tokens + used.completion_tokens,
    }
