"""`/v1/responses`, the stateless part of it: a request as the chat request that it amounts to."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gemma3n_sgl.errors import InvalidValue
from gemma3n_sgl.openai.requests import ChatRequest, check_fields, invalid

_STATE = ("previous_response_id", "conversation", "background", "prompt", "context_management")
"""What needs a server that remembers."""

_LOGPROBS = "message.output_text.logprobs"
"""What asks for log probabilities in `include`. All else that it may hold belongs to tools of OpenAI's, or to a reasoning that is hidden."""

_MESSAGE = re.compile(r"messages\[(\d+)\](?:\.tool_calls\[(\d+)\](?:\.function)?)?(.*)")
_TOOL = re.compile(r"^(tools\[\d+\]|tool_choice)\.function\b")
_PREFIXES = (("messages", "input"), ("response_format.json_schema", "text.format"), ("response_format", "text.format"))
_NAMES = {"max_tokens": "max_output_tokens", "reasoning_effort": "reasoning.effort"}
"""What a chat request's fields are called here."""

_CONTENT = {"input_text": "text", "output_text": "text", "text": "text", "refusal": "refusal"}


class ResponsesRequest(BaseModel):
    """One request to `/v1/responses`; what it says of sampling means what it means in a chat."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    model: str
    input: str | Annotated[list[dict[str, Any]], Field(min_length=1)]
    instructions: str | None = None
    stream: bool | None = None
    max_output_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    metadata: dict[str, Any] | None = None
    truncation: Literal["auto", "disabled"] | None = None
    include: list[str] | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    program_options: dict[str, Any] | None = None
    seed: int | None = None

    @classmethod
    def parse(cls, body: bytes) -> ResponsesRequest:
        """A request from its JSON. Raises InvalidValue with the field as `param`."""
        try:
            request = cls.model_validate_json(body)
        except ValidationError as error:
            raise invalid(error) from None
        others = dict(request.model_extra or {})
        for name in _STATE:
            if others.pop(name, None):
                raise InvalidValue(f"`{name}` is not supported: this server keeps no state. Send the whole conversation as `input`.", param=name)
        if others.pop("max_tool_calls", None):
            raise InvalidValue("`max_tool_calls` counts tools that OpenAI runs; there are none here. Leave it out.", param="max_tool_calls")
        check_fields({name: value for name, value in others.items() if name != "stream_options"}, "responses")
        return request

    @property
    def logprobs(self) -> bool:
        """Whether log probabilities are asked for."""
        return _LOGPROBS in (self.include or ()) or bool(self.top_logprobs)

    def chat(self) -> ChatRequest:
        """The chat request that this amounts to. Raises InvalidValue with this request's field as `param`."""
        fields: dict[str, Any] = {
            "model": self.model,
            "messages": [message for _, message in self._placed()],
            "max_tokens": self.max_output_tokens,
            "temperature": self.temperature,
            "top_p": self.top_p,
            "seed": self.seed,
            "metadata": self.metadata,
            "program_options": self.program_options,
            "parallel_tool_calls": self.parallel_tool_calls,
            "tools": [_tool(tool, f"tools[{i}]") for i, tool in enumerate(self.tools or [])] or None,
            "tool_choice": _choice(self.tool_choice),
            "response_format": _format((self.text or {}).get("format")),
            "reasoning_effort": (self.reasoning or {}).get("effort"),
            "logprobs": self.logprobs or None,
            "top_logprobs": self.top_logprobs,
        }
        try:
            return ChatRequest.model_validate({name: value for name, value in fields.items() if value is not None})
        except ValidationError as error:
            told = invalid(error)
            param = told.param or ""
            ours = self.field(param)
            raise InvalidValue(told.message.replace(f"`{param}`", f"`{ours}`"), param=ours or None) from None

    def field(self, name: str) -> str:
        """What a field of that chat request is called in this one."""
        if found := _MESSAGE.match(name):
            index, call, rest = found.groups()
            items, message = self._placed()[int(index)]
            where = items[int(call or 0)]
            if not where.startswith("input["):
                return where
            if message["role"] == "tool":
                rest = rest.replace(".content", ".output", 1)
            return where + (".call_id" if rest in (".id", ".tool_call_id") else rest)
        for theirs, ours in _PREFIXES:
            if name.startswith(theirs):
                return ours + name.removeprefix(theirs)
        return _TOOL.sub(r"\1", _NAMES.get(name, name))

    def _placed(self) -> list[tuple[list[str], dict[str, Any]]]:
        """The messages, each with what it comes from here: with several items where the calls of each are told in one message."""
        system = [(["instructions"], {"role": "system", "content": self.instructions})] if self.instructions else []
        if isinstance(self.input, str):
            return [*system, (["input"], {"role": "user", "content": self.input})]
        placed: list[tuple[list[str], dict[str, Any]]] = []
        for i, item in enumerate(self.input):
            where = f"input[{i}]"
            message = _message(item, where)
            if message is None:
                continue
            if placed and "tool_calls" in message and "tool_calls" in placed[-1][1]:
                placed[-1][0].append(where)
                placed[-1][1]["tool_calls"] += message["tool_calls"]
            else:
                placed.append(([where], message))
        if not placed:
            raise InvalidValue("`input` holds no message.", param="input")
        return [*system, *placed]


def _message(item: dict[str, Any], where: str) -> dict[str, Any] | None:
    """One item of the input as a chat's message; None for what says nothing to the model."""
    kind = item.get("type", "message")
    if kind == "message":
        content = item.get("content")
        if isinstance(content, list):
            content = [_part(part, f"{where}.content[{i}]") for i, part in enumerate(content)]
        return {"role": item.get("role", "user"), "content": content}
    if kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments", "{}")}
        return {"role": "assistant", "content": None, "tool_calls": [{"id": item.get("call_id", ""), "function": function}]}
    if kind == "function_call_output":
        output = item.get("output")
        if isinstance(output, list):
            output = [_part(part, f"{where}.output[{i}]") for i, part in enumerate(output)]
        return {"role": "tool", "tool_call_id": item.get("call_id", ""), "content": output}
    if kind == "reasoning":
        return None
    raise InvalidValue(
        f"Input of type {kind!r} is not supported; send message, function_call and function_call_output items.", param=f"{where}.type"
    )


def _part(part: Any, where: str) -> dict[str, Any]:
    kind = str(part.get("type")) if isinstance(part, dict) else "None"
    if kind in _CONTENT:
        name = _CONTENT[kind]
        return {"type": name, name: part.get(name)}
    if kind == "input_image":
        if part.get("file_id"):
            raise InvalidValue("Pictures by `file_id` are not supported. Send `image_url`, a data URI or a URL.", param=f"{where}.file_id")
        return {"type": "image_url", "image_url": part.get("image_url")}
    if kind in ("input_audio", "image_url", "audio_url"):
        return dict(part)
    raise InvalidValue(f"Content of type {kind!r} is not supported; send input_text, input_image or input_audio.", param=f"{where}.type")


def _tool(tool: dict[str, Any], where: str) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise InvalidValue(f"Tools of type {tool.get('type')!r} are not supported; send functions.", param=f"{where}.type")
    return {"type": "function", "function": {name: tool[name] for name in ("name", "description", "parameters") if tool.get(name) is not None}}


def _choice(choice: Any) -> Any:
    if isinstance(choice, dict):
        return {"type": "function", "function": {"name": choice.get("name")}}
    return choice


def _format(format_: Any) -> Any:
    if not isinstance(format_, dict) or format_.get("type") != "json_schema":
        return format_
    return {"type": "json_schema", "json_schema": {"name": format_.get("name", ""), "schema": format_.get("schema")}}
