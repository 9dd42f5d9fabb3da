"""`/v1/completions`, for clients from before chat: a prompt is a user's turn, and the answer its completion."""

from __future__ import annotations

from itertools import accumulate
from typing import Annotated, Any

from pydantic import Field, ValidationError

from gemma3n_sgl.errors import Gemma3nError, InvalidValue
from gemma3n_sgl.events import Delta, Done, Event, Token
from gemma3n_sgl.openai.requests import ChatRequest, Message, check_fields, invalid
from gemma3n_sgl.openai.writing import DONE, HOLE, Head, error_object, frame, split, usage, used

DEFAULT_MAX_TOKENS = 16
"""OpenAI's own default for this route."""

_CHAT_ALONE = ("messages", "tools", "tool_choice", "parallel_tool_calls", "top_logprobs", "max_completion_tokens", "continue_final_message")


class CompletionRequest(ChatRequest):
    """One request to `/v1/completions`: what a chat request holds, but for its messages, and a `prompt`."""

    messages: list[Message] = Field(default_factory=list, exclude=True)
    prompt: str | Annotated[list[str], Field(min_length=1, max_length=16)] = Field("", description="one text, or up to 16")
    logprobs: Annotated[int, Field(ge=0, le=5)] | None = None  # type: ignore[assignment]  # a number here, a bool in a chat
    echo: bool | None = None
    best_of: int | None = None
    suffix: str | None = None

    @classmethod
    def parse(cls, body: bytes) -> CompletionRequest:
        try:
            request = cls.model_validate_json(body)
        except ValidationError as error:
            raise invalid(error) from None
        check_fields(request.model_extra or {}, "completion")
        for name in _CHAT_ALONE:
            if name in request.model_fields_set and getattr(request, name) is not None:
                raise InvalidValue(f"`{name}` is not a field of a completion request. Use /v1/chat/completions.", param=name)
        if request.suffix:
            raise InvalidValue("`suffix` is not supported: Gemma 3n does not fill in. Leave it out.", param="suffix")
        if request.best_of not in (None, request.n or 1):
            raise InvalidValue("`best_of` is not supported beyond `n`. Leave it out.", param="best_of")
        if "" in request.prompts:
            raise InvalidValue("`prompt` holds text; this one is empty.", param="prompt")
        return request

    @property
    def prompts(self) -> list[str]:
        return [self.prompt] if isinstance(self.prompt, str) else self.prompt

    def chats(self) -> list[ChatRequest]:
        """The chat request that each prompt amounts to."""
        fields = {name: getattr(self, name) for name in ChatRequest.model_fields if name not in ("messages", "logprobs")}
        fields["max_tokens"] = self.max_tokens if self.max_tokens is not None else DEFAULT_MAX_TOKENS
        if self.logprobs is not None:
            fields |= {"logprobs": True, "top_logprobs": self.logprobs}
        return [ChatRequest.model_construct(**fields, messages=[Message(role="user", content=prompt)]) for prompt in self.prompts]


class TextCompletion:
    """One answer of `/v1/completions` on its way out."""

    def __init__(self, asked: CompletionRequest) -> None:
        self._head = Head("cmpl", asked.model).fields | {"object": "text_completion"}
        self._each = asked.n or 1
        self._echoed = [prompt if asked.echo else "" for prompt in asked.prompts]
        self._logprobs = asked.logprobs is not None
        self._length: dict[int, int] = {}
        self._include_usage = asked.include_usage
        self._done: dict[int, list[Event]] = {}

    def field(self, name: str) -> str:
        return "prompt" if name.startswith("messages") else name

    def whole(self, runs: list[list[Event]]) -> dict[str, Any]:
        choices = []
        for index, events in enumerate(runs):
            done = events[-1]
            assert isinstance(done, Done)
            text = self._echoed[index // self._each] + done.answer
            choices.append(self._choice(index, text, done.tokens, done.finish_reason))
        return self._head | {"choices": choices, "usage": usage(used(runs, each=self._each))}

    def begin(self, count: int) -> bytes:
        echoed = [(index, self._echoed[index // self._each]) for index in range(count)]
        return b"".join([self._chunk(index, text) for index, text in echoed if text])

    def piece(self, index: int, event: Event) -> bytes:
        if isinstance(event, Delta):
            return self._chunk(index, event.text, event.tokens)
        if isinstance(event, Done):
            self._done[index] = [event]
            return self._chunk(index, "", finish_reason=event.finish_reason)
        return b""

    def around(self, index: int) -> tuple[bytes, bytes] | None:
        return None if self._logprobs else split(self._chunk(index, HOLE))

    def end(self) -> bytes:
        if self._include_usage:
            runs = [self._done[index] for index in sorted(self._done)]
            return frame(self._head | {"choices": [], "usage": usage(used(runs, each=self._each))}) + DONE
        return DONE

    def failed(self, error: Gemma3nError) -> bytes:
        return frame(error_object(error)) + DONE

    def _chunk(self, index: int, text: str, tokens: tuple[Token, ...] = (), finish_reason: str | None = None) -> bytes:
        none = {"usage": None} if self._include_usage else {}
        return frame(self._head | {"choices": [self._choice(index, text, tokens, finish_reason)]} | none)

    def _choice(self, index: int, text: str, tokens: tuple[Token, ...], finish_reason: str | None) -> dict[str, Any]:
        logprobs = self._told(index, tokens) if self._logprobs else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}

    def _told(self, index: int, tokens: tuple[Token, ...]) -> dict[str, Any]:
        """The next tokens of a choice, with their places in its text, of which an echoed prompt is the beginning."""
        begin = self._length.get(index, len(self._echoed[index // self._each]))
        *offsets, self._length[index] = accumulate([len(token.text) for token in tokens], initial=begin)
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [dict(token.top) for token in tokens],
            "text_offset": offsets,
        }
