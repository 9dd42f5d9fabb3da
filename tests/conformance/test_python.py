"""OpenAI's client for Python, with all its helpers, against our server and the real engine."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import openai
import pytest
from openai.lib.streaming.chat import ChunkEvent, ContentDeltaEvent, FunctionToolCallArgumentsDeltaEvent
from pydantic import BaseModel, Field
from scripted_engine import ScriptedEngine
from serving import SHORT, Served, serving

from gemma3n_sgl.settings import Settings

MEDIA = Path(__file__).parent.parent / "media"
KEY = "a-key"


class Weather(BaseModel):
    """The weather in a city."""

    city: str = Field(max_length=20)
    days: int = Field(ge=1, le=7)
    unit: Literal["C", "F"]


TOOLS = [openai.pydantic_function_tool(Weather, name="get_weather")]
ASKED: list[Any] = [{"role": "user", "content": "What is the weather in Paris?"}]


@pytest.fixture(scope="module")
def client(engine: str) -> Iterator[openai.OpenAI]:
    with serving(Settings(runtime_url=engine, api_keys=(KEY,))) as served:
        yield served.client.with_options(timeout=60)


def media(kind: str, name: str) -> dict[str, Any]:
    data = base64.b64encode((MEDIA / name).read_bytes()).decode()
    if kind == "image_url":
        return {"type": kind, kind: {"url": f"data:image/png;base64,{data}", "detail": "low"}}
    return {"type": kind, kind: {"data": data, "format": "wav"}}


@pytest.mark.engine
def test_a_pydantic_model_comes_back_as_one_also_from_a_stream(client: openai.OpenAI):
    asked: dict[str, Any] = {"model": "gemma-3n", "messages": ASKED, "response_format": Weather, "max_tokens": 200}
    answer = client.chat.completions.parse(**asked)
    assert isinstance(answer.choices[0].message.parsed, Weather) and answer.choices[0].finish_reason == "stop"
    with client.chat.completions.stream(**asked) as stream:
        assert any(isinstance(event, ContentDeltaEvent) for event in stream)
        assert isinstance(stream.get_final_completion().choices[0].message.parsed, Weather)


@pytest.mark.engine
def test_a_tools_arguments_come_back_as_its_model_and_its_result_is_taken(client: openai.OpenAI):
    asked: dict[str, Any] = {"model": "gemma-3n", "messages": ASKED, "tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False}
    answer = client.chat.completions.parse(**asked).choices[0]
    [call] = answer.message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Weather) and answer.finish_reason == "tool_calls"
    told = {"role": "tool", "tool_call_id": call.id, "content": "Sunny, 21 C."}
    messages = [*ASKED, answer.message.model_dump(exclude_none=True), told]
    last = client.chat.completions.create(**asked | {"messages": messages, "tool_choice": "none"})  # type: ignore[call-overload]
    assert last.choices[0].message.content


@pytest.mark.engine
def test_a_tools_arguments_come_in_pieces_that_are_the_whole(client: openai.OpenAI):
    with client.chat.completions.stream(model="gemma-3n", messages=ASKED, tools=TOOLS, tool_choice="required") as stream:
        pieces = [event.arguments_delta for event in stream if isinstance(event, FunctionToolCallArgumentsDeltaEvent) and event.index == 0]
        [call, *_] = stream.get_final_completion().choices[0].message.tool_calls or []
    assert "".join(pieces) == call.function.arguments and isinstance(call.function.parsed_arguments, Weather)


@pytest.mark.engine
@pytest.mark.parametrize(
    ("part", "question", "answer"),
    [
        (("image_url", "red-circle.png"), "What is in this image?", "A red circle."),
        (("input_audio", "314.wav"), "Transcribe this audio.", "3 1 4"),
    ],
    ids=["picture", "sound"],
)
async def test_the_client_with_async_streams_what_it_sees_and_hears(client: openai.OpenAI, part: tuple[str, str], question: str, answer: str):
    messages: Any = [{"role": "user", "content": [media(*part), {"type": "text", "text": question}]}]
    async with openai.AsyncOpenAI(base_url=str(client.base_url), api_key=KEY, max_retries=0) as other:
        asked: dict[str, Any] = {"model": "gemma-3n", "messages": messages, "temperature": 0, "stream_options": {"include_usage": True}}
        async with other.chat.completions.stream(**asked) as stream:
            chunks = [event.chunk async for event in stream if isinstance(event, ChunkEvent)]
            final = await stream.get_final_completion()
    assert final.choices[0].message.content == answer
    assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1) and final.usage is not None
    assert final.usage.total_tokens == final.usage.prompt_tokens + final.usage.completion_tokens


@pytest.mark.engine
def test_a_stream_that_is_closed_in_the_middle_leaves_the_client_whole(client: openai.OpenAI):
    asked: dict[str, Any] = {"model": "gemma-3n", "messages": ASKED, "max_tokens": 2000, "extra_body": {"ignore_eos": True}}
    with client.chat.completions.create(**asked, stream=True) as stream:
        first, second, *_ = (next(stream) for _ in range(3))
    assert first.id == second.id
    assert client.chat.completions.create(model="gemma-3n", messages=ASKED, max_tokens=5).choices[0].message.content is not None


@pytest.fixture
def keyed(scripted: ScriptedEngine) -> Iterator[Served]:
    with serving(Settings(runtime_url=scripted.url, api_keys=(KEY,), **SHORT)) as served:
        yield served


@pytest.mark.parametrize(
    ("fields", "kind", "code", "param"),
    [
        ({"temperature": 3}, openai.BadRequestError, "invalid_value", "temperature"),
        ({"model": "gpt-4o"}, openai.NotFoundError, "model_not_found", "model"),
        ({"extra_headers": {"authorization": "Bearer wrong"}}, openai.AuthenticationError, "invalid_api_key", None),
    ],
    ids=["400", "404", "401"],
)
def test_an_error_is_raised_by_its_class_with_code_param_and_request_id(
    keyed: Served, fields: dict[str, Any], kind: type[Exception], code: str, param: str | None
):
    with pytest.raises(kind) as caught:
        keyed.client.chat.completions.create(**{"model": "gemma-3n", "messages": ASKED} | fields)  # type: ignore[call-overload]
    error = caught.value
    assert isinstance(error, openai.APIStatusError) and error.request_id is not None and error.request_id.startswith("req_")
    assert (error.code, error.param) == (code, param) and error.type == "invalid_request_error"


@pytest.mark.slow
def test_an_engine_that_is_not_there_is_tried_again_and_what_is_in_vain_is_not(scripted: ScriptedEngine, keyed: Served):
    times: list[str] = []
    patient = keyed.client.with_options(max_retries=1)
    patient._client.event_hooks = {"request": [lambda request: times.append(request.url.path)]}
    with pytest.raises(openai.BadRequestError):
        patient.chat.completions.create(model="gemma-3n", messages=ASKED, temperature=3)
    assert len(times) == 1
    scripted.loading = True
    began = time.monotonic()
    with pytest.raises(openai.InternalServerError) as caught:
        patient.chat.completions.create(model="gemma-3n", messages=ASKED)
    assert (len(times), caught.value.response.headers["retry-after"]) == (3, "5")
    assert time.monotonic() - began > 4, "it waits as long as it is told to"
