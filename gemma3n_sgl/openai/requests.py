"""The fields of a chat request that are honoured; any other is refused by name, so that nothing that changes an answer is dropped silently."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gemma3n_sgl.errors import InvalidValue
from gemma3n_sgl.running import Sampling

Penalty = Annotated[float, Field(ge=-2, le=2)]

EFFORTS = {"none": "none", "minimal": "none", "low": "low", "medium": "low", "high": "high", "xhigh": "high"}
"""OpenAI's `reasoning_effort` as a program's `effort`."""

HARMLESS = {"user", "store", "service_tier", "safety_identifier", "prompt_cache_key", "verbosity", "modalities", "parallel_tool_calls"}
"""Fields that never change an answer here; they are taken and not looked at."""

NOTHING: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "logprobs": (False,),
    "top_logprobs": (0,),
    "response_format": ({"type": "text"},),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "logit_bias": ({},),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
}
"""Fields of OpenAI's that are not honoured, with the values of theirs that ask for nothing (as null always does)."""


class Message(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    role: str
    content: str | list[dict[str, Any]] | None = None


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
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    frequency_penalty: Penalty | None = None
    presence_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(gt=0, le=2)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: str | Annotated[list[str], Field(max_length=4)] | None = None
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None = None
    program_options: dict[str, Any] | None = None
    metadata: dict[str, Any] | None = None

    @classmethod
    def parse(cls, body: bytes) -> ChatRequest:
        """A request from its JSON. Raises InvalidValue with the field as `param`."""
        try:
            request = cls.model_validate_json(body)
        except ValidationError as error:
            raise _invalid(error) from None
        for name, value in (request.model_extra or {}).items():
            if name in HARMLESS or value is None or value in NOTHING.get(name, ()):
                continue
            known = "is not supported here" if name in NOTHING else "is not a field of a chat request"
            raise InvalidValue(f"`{name}` {known}. Leave it out.", param=name)
        return request

    @property
    def effort(self) -> str | None:
        return EFFORTS[self.reasoning_effort] if self.reasoning_effort else None

    @property
    def include_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)

    def options_for(self, known: set[str] | frozenset[str]) -> dict[str, Any]:
        """Options for a program: all of `program_options`, and of the free-form `metadata` what the program knows."""
        named = {name: value for name, value in (self.metadata or {}).items() if name in known}
        return named | (self.program_options or {})

    def sampling(self) -> Sampling:
        stops = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())
        if "" in stops:
            raise InvalidValue("A stop string has at least one character.", param="stop")
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            min_p=self.min_p,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            repetition_penalty=self.repetition_penalty,
            seed=self.seed,
            max_tokens=self.max_completion_tokens or self.max_tokens,
            stop=stops,
        )


def _invalid(error: ValidationError) -> InvalidValue:
    errors = error.errors(include_url=False, include_context=False)
    first = next((e for e in errors if not e["type"].endswith("_type") and e["loc"][:1] == errors[0]["loc"][:1]), errors[0])  # of a union
    if first["type"] == "json_invalid":
        return InvalidValue("The body is not valid JSON. Send a JSON object with `model` and `messages`.")
    place = [part for part in first["loc"] if not (isinstance(part, str) and (part.startswith(("list[", "constrained-")) or part == "str"))]
    param = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).lstrip(".")
    if not param:
        return InvalidValue("The body must be a JSON object with `model` and `messages`.")
    if first["type"] == "missing":
        return InvalidValue(f"`{param}` is missing.", param=param)
    return InvalidValue(f"`{param}`: {first['msg'][0].lower()}{first['msg'][1:]}.", param=param)
