"""The fields of a chat request that are honoured; any other is refused by name, so that nothing that changes an answer is dropped silently."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gemma3n_sgl.calling import NONE, Tool
from gemma3n_sgl.errors import InvalidValue
from gemma3n_sgl.forms import ebnf, json_object, json_schema, regex
from gemma3n_sgl.sampling import Sampling

Penalty = Annotated[float, Field(ge=-2, le=2)]

EFFORTS = {"none": "none", "minimal": "none", "low": "low", "medium": "low", "high": "high", "xhigh": "high"}
"""OpenAI's `reasoning_effort` as a program's `effort`."""

HARMLESS = {
    "user",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "verbosity",
    "modalities",
    "add_generation_prompt",
}
"""Fields that never change an answer here; they are taken and not looked at."""

NOTHING: dict[str, tuple[Any, ...]] = {
    "functions": ([],),
    "function_call": ("none", "auto"),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
}
"""Fields of OpenAI's that are not honoured, with the values of theirs that ask for nothing (as null always does)."""


MOST = 2**30
"""No number of tokens and no id of one is above it. It is SGLang's own "all" for `top_k`; beyond 2**31 its scheduler dies."""

_BRANCH = re.compile(r"(list|literal)\[|constrained-|(str|\[key\]|NamedTool)$")
"""What pydantic puts into the place of an error that no client wrote: which branch of a union, and that it is about a key."""


class FunctionGiven(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    name: str
    arguments: str = "{}"


class ToolCallGiven(BaseModel):
    """A call that an assistant made earlier in the talk."""

    model_config = ConfigDict(strict=True, extra="ignore")

    id: str = ""
    function: FunctionGiven


class ToolGiven(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    type: Literal["function"] = "function"
    function: Tool


class NamedFunction(BaseModel):
    name: str


class NamedTool(BaseModel):
    """A `tool_choice` of one tool."""

    type: Literal["function"] = "function"
    function: NamedFunction


class Message(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    role: str
    content: str | list[dict[str, Any]] | None = None
    tool_calls: list[ToolCallGiven] | None = None
    tool_call_id: str | None = None
    name: str | None = None


class SchemaGiven(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", populate_by_name=True)

    name: str = ""
    schema_: Any = Field(None, alias="schema")


class ResponseFormat(BaseModel):
    """`text`, `json_object`, or `json_schema` with its schema (strict, whatever `strict` says)."""

    model_config = ConfigDict(strict=True, extra="ignore")

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaGiven | None = None

    def form(self, tokens: int | None) -> dict[str, str]:
        if self.type == "json_object":
            return json_object(tokens=tokens).params()
        if self.type == "text":
            return {}
        if self.json_schema is None or self.json_schema.schema_ is None:
            raise InvalidValue("A `response_format` of type json_schema holds a schema.", param="response_format.json_schema.schema")
        return json_schema(self.json_schema.schema_, tokens=tokens, param="response_format.json_schema.schema").params()


_FREE = (None, ResponseFormat(type="text"))
"""What holds an answer to nothing."""


class StreamOptions(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    include_usage: bool = False


class ChatRequest(BaseModel):
    """One request to `/v1/chat/completions`."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)

    model: str
    messages: Annotated[list[Message], Field(min_length=1)]
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1, le=MOST)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=MOST)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=1, le=MOST)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    logit_bias: dict[Annotated[str, Field(pattern=r"^[0-9]{1,9}$")], Annotated[float, Field(ge=-100, le=100)]] | None = None
    min_tokens: Annotated[int, Field(ge=0, le=MOST)] | None = None
    ignore_eos: bool | None = None
    stop_token_ids: Annotated[list[Annotated[int, Field(ge=0, le=MOST)]], Field(max_length=16)] | None = None
    continue_final_message: bool | None = None
    response_format: ResponseFormat | None = None
    regex: str | None = None
    ebnf: str | None = None
    tools: list[ToolGiven] | None = None
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = None
    parallel_tool_calls: bool | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | list[str] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    program_options: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None

    @classmethod
    def parse(cls, body: bytes) -> ChatRequest:
        """A request from its JSON. Raises InvalidValue with the field as `param`."""
        try:
            request = cls.model_validate_json(body)
        except ValidationError as error:
            raise invalid(error) from None
        check_fields(request.model_extra or {}, "chat")
        return request

    @property
    def effort(self) -> str | None:
        return EFFORTS[self.reasoning_effort] if self.reasoning_effort else None

    def open_end(self) -> tuple[list[Message], str]:
        """The messages, and with `continue_final_message` the last one, an assistant's, as the beginning of the answer."""
        if not self.continue_final_message:
            return self.messages, ""
        last = self.messages[-1]
        if last.role != "assistant" or not isinstance(last.content, str) or not last.content or len(self.messages) < 2:
            raise InvalidValue("`continue_final_message` needs a last message of the assistant's that holds text.", param="continue_final_message")
        return self.messages[:-1], last.content

    @property
    def has_schemas(self) -> bool:
        """Whether there is something to compile, which may take tenths of a second."""
        return bool(self.response_format or self.regex or self.ebnf or self.tools)

    def demands(self) -> tuple[Sampling, dict[str, Any]]:
        """What it asks of sampling, and the options for tools."""
        return self.sampling(), self.tool_options

    @property
    def tool_options(self) -> dict[str, Any]:
        """The options `tools`, `tool_choice` and `parallel_tool_calls` of a program; {} where no tool may be called."""
        choice = self.tool_choice.function.name if isinstance(self.tool_choice, NamedTool) else self.tool_choice
        names = [given.function.name for given in self.tools or []]
        allowed = names if isinstance(self.tool_choice, NamedTool) else [None, "none", "auto", *(["required"] if names else [])]
        if choice not in allowed:
            raise InvalidValue(f"`tool_choice` asks for {choice!r}, which is not among `tools`.", param="tool_choice")
        if len(set(names)) < len(names):
            raise InvalidValue("Two of the tools have the same name.", param="tools")
        if NONE in names:
            where = f"tools[{names.index(NONE)}].function.name"
            raise InvalidValue(f"A tool can't be named {NONE!r}, which stands for no tool. Rename it.", param=where)
        if not names or choice == "none":
            return {}
        for i, given in enumerate(self.tools or []):
            limit = self.max_completion_tokens or self.max_tokens
            json_schema(given.function.object_schema, tokens=limit, param=f"tools[{i}].function.parameters")
        tools = tuple(given.function for given in self.tools or [])
        return {"tools": tools, "tool_choice": choice or "auto", "parallel_tool_calls": self.parallel_tool_calls is not False}

    def form(self, tokens: int | None) -> dict[str, str]:
        """What the answer must look like, in the engine's words; {} where it is free. `tokens` is its budget."""
        asked = {"regex": self.regex, "ebnf": self.ebnf, "response_format": self.response_format}
        given = [name for name, value in asked.items() if value not in _FREE]
        if len(given) > 1:
            raise InvalidValue(f"An answer can't be held to {' and '.join(f'`{name}`' for name in given)} at once. Send one.", param=given[1])
        if self.regex is not None:
            return regex(self.regex).params()
        if self.ebnf is not None:
            return ebnf(self.ebnf).params()
        return self.response_format.form(tokens) if self.response_format else {}

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def options_for(self, known: set[str] | frozenset[str]) -> dict[str, Any]:
        """Options for a program: all of `program_options`, and of the free-form `metadata` what the program knows and no field here says."""
        said = {"tools", "tool_choice", "parallel_tool_calls"} | ({"effort"} if self.effort else set())
        named = {name: value for name, value in (self.metadata or {}).items() if name in known and name not in said}
        return named | (self.program_options or {})

    def sampling(self) -> Sampling:
        stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        if "" in stops:
            raise InvalidValue("A stop string has at least one character.", param="stop")
        if self.top_logprobs and not self.logprobs:
            raise InvalidValue("`top_logprobs` needs `logprobs`: true.", param="top_logprobs")
        max_tokens = self.max_completion_tokens or self.max_tokens
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
            max_tokens=max_tokens,
            stop=stops,
            min_tokens=self.min_tokens,
            ignore_eos=bool(self.ignore_eos),
            stop_token_ids=tuple(self.stop_token_ids or ()),
            logit_bias=self.logit_bias or {},
            form=self.form(max_tokens),
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )


def check_fields(others: dict[str, Any], kind: str) -> None:
    """Refuse by name whatever else a request holds, unless it is harmless or asks for nothing."""
    for name, value in others.items():
        if name in HARMLESS or value is None or value in NOTHING.get(name, ()):
            continue
        known = "is not supported here" if name in NOTHING else f"is not a field of a {kind} request"
        raise InvalidValue(f"`{name}` {known}. Leave it out.", param=name)


def invalid(error: ValidationError) -> InvalidValue:
    """The first thing wrong with a request, with its place as `param`."""
    errors = error.errors(include_url=False, include_context=False)
    first = next((e for e in errors if not e["type"].endswith("_type") and e["loc"][:1] == errors[0]["loc"][:1]), errors[0])  # of a union
    if first["type"] == "json_invalid" and "recursion" in first["msg"]:
        return InvalidValue("The body is nested too deep.")
    if first["type"] == "json_invalid":
        return InvalidValue("The body is not valid JSON. Send a JSON object with `model` and `messages`.")
    place = [part for part in first["loc"] if not (isinstance(part, str) and _BRANCH.match(part))]
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    if not param:
        return InvalidValue("The body must be a JSON object with `model` and `messages`.")
    if first["type"] == "missing":
        return InvalidValue(f"`{param}` is missing.", param=param)
    if first["type"] == "too_short":
        return InvalidValue(f"`{param}` is empty.", param=param)
    if first["type"] == "string_type" and param.endswith(".content"):
        return InvalidValue(f"`{param}` is a text, or a list of parts that each have a `type`.", param=param)
    return InvalidValue(f"`{param}`: {first['msg'][0].lower()}{first['msg'][1:]}.", param=param)
