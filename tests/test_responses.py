"""The Responses API, without state: text, pictures and tools in, items and events out, as the official client reads them."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from scripted_engine import Die, Reply, Say, ScriptedEngine
from serving import SHORT, Served, one_for_all

PNG = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9hAAAAAElFTkSuQmCC"
TOOL = {"type": "function", "name": "get_time", "parameters": {"type": "object", "properties": {}}, "strict": True}


standing, scripted, served = one_for_all(Reply("one two three", meta={"prompt_tokens": 10, "cached_tokens": 4}), **SHORT)


@pytest.fixture
def client(standing: tuple[ScriptedEngine, Served], scripted: ScriptedEngine) -> openai.OpenAI:
    return standing[1].client


def asks(**fields: Any) -> Any:
    return {"model": "gemma-3n", "input": "Hi"} | fields


def test_a_text_gets_an_answer_with_usage(client: openai.OpenAI, scripted: ScriptedEngine):
    response = client.responses.create(**asks(instructions="Be brief.", temperature=0.5, max_output_tokens=9))
    assert (response.object, response.status, response.output_text) == ("response", "completed", "one two three")
    assert response.usage is not None and (response.usage.input_tokens, response.usage.input_tokens_details.cached_tokens) == (10, 4)
    sent = scripted.requests[-1]
    assert sent["text"].startswith("<start_of_turn>user\nBe brief.\n\nHi<end_of_turn>")
    assert (sent["sampling_params"]["temperature"], sent["sampling_params"]["max_new_tokens"]) == (0.5, 9)


def test_an_answer_that_is_cut_is_incomplete(client: openai.OpenAI):
    response = client.responses.create(**asks(max_output_tokens=2))
    assert response.status == "incomplete" and response.incomplete_details is not None
    assert (response.incomplete_details.reason, response.output_text) == ("max_output_tokens", "one two")


def test_what_is_cut_is_incomplete_in_every_event_that_tells_of_it(client: openai.OpenAI, scripted: ScriptedEngine):
    *_, done, last = client.responses.create(**asks(max_output_tokens=2, stream=True))
    assert (done.type, done.item.status) == ("response.output_item.done", "incomplete")
    assert (last.type, last.response.status, last.response.output[0].status) == ("response.incomplete", "incomplete", "incomplete")
    scripted.script = calls_once
    call = client.responses.create(**asks(max_output_tokens=1, tools=[TOOL], tool_choice="required")).output[-1]
    assert (call.type, call.status) == ("function_call", "incomplete")


@pytest.mark.parametrize("asked", [{"include": ["message.output_text.logprobs"], "top_logprobs": 2}, {"top_logprobs": 2}])
def test_log_probabilities_stand_beside_the_text_whole_and_streamed(client: openai.OpenAI, asked: dict[str, Any]):
    [part] = client.responses.create(**asks(**asked)).output[-1].content  # type: ignore[union-attr]
    assert [token.token for token in part.logprobs] == ["one", " two", " three"]
    assert [rival.token for rival in part.logprobs[1].top_logprobs] == [" two", " TWO"]
    events = list(client.responses.create(**asks(**asked, stream=True)))
    told = [token.token for event in events if event.type == "response.output_text.delta" for token in event.logprobs]
    assert told == ["one", " two", " three"]
    [done] = [event for event in events if event.type == "response.output_text.done"]
    assert [token.token for token in done.logprobs] == told
    assert events[-1].response.output[-1].content[0].logprobs == part.logprobs


def test_log_probabilities_that_nobody_asks_for_are_none(client: openai.OpenAI):
    response = client.responses.create(**asks(include=["reasoning.encrypted_content"]))
    assert response.output[-1].content[0].logprobs == [] and response.output_text == "one two three"  # type: ignore[union-attr]


def test_pictures_and_earlier_turns_go_in_order(client: openai.OpenAI, scripted: ScriptedEngine):
    talk = [
        {"role": "user", "content": [{"type": "input_text", "text": "Look:"}, {"type": "input_image", "image_url": PNG, "detail": "auto"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "A square.", "annotations": []}]},
        {"role": "user", "content": "Sure?"},
    ]
    client.responses.create(**asks(input=talk))
    prompt = scripted.requests[-1]["text"]
    assert prompt.startswith("<start_of_turn>user\nLook:<image_soft_token><end_of_turn>\n<start_of_turn>model\nA square.<end_of_turn>")
    assert len(scripted.requests[-1]["image_data"]) == 1


def test_steps_are_reasoning_items(client: openai.OpenAI, scripted: ScriptedEngine):
    content = [{"type": "input_image", "image_url": PNG, "detail": "auto"}, {"type": "input_text", "text": "What?"}]
    response = client.responses.create(**asks(input=[{"role": "user", "content": content}], reasoning={"effort": "low"}))
    assert [item.type for item in response.output] == ["reasoning", "message"]
    assert response.output[0].summary[0].text.startswith("observation: one two three")  # type: ignore[union-attr]
    assert response.usage is not None and response.usage.output_tokens_details.reasoning_tokens > 0


def calls_once(prompt: str) -> Reply:
    if prompt.endswith("Arguments: "):
        return Reply(("{", "}"), delay=0.02)
    if prompt.endswith("Tool: none\n"):
        return Reply("Noon.")
    return Reply("none" if "Arguments: {}" in prompt else "get_time")


def test_a_call_and_its_result_lead_to_an_answer(client: openai.OpenAI, scripted: ScriptedEngine):
    scripted.script = calls_once
    first = client.responses.create(**asks(tools=[TOOL]))
    (call,) = first.output
    assert call.type == "function_call" and (call.name, json.loads(call.arguments)) == ("get_time", {})
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "12:00"}
    talk = [{"role": "user", "content": "What time is it?"}, call.model_dump(), result]
    assert client.responses.create(**asks(input=talk, tools=[TOOL])).output_text == "Noon."
    assert "Result of get_time:\n12:00" in scripted.requests[-1]["text"]


@pytest.mark.parametrize("tools", [False, True])
def test_a_stream_adds_up_to_the_response_it_ends_with(client: openai.OpenAI, scripted: ScriptedEngine, tools: bool):
    scripted.script = calls_once if tools else Reply("one two three", delay=0.02)
    with client.responses.stream(**asks(**({"tools": [TOOL]} if tools else {}))) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    assert events[-1].type == "response.completed" and final.status == "completed"
    numbers = [event.sequence_number for event in events]
    assert numbers == sorted(set(numbers))
    if tools:
        assert "".join(event.delta for event in events if event.type == "response.function_call_arguments.delta") == "{}"
    else:
        assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == final.output_text == "one two three"
    opened = [event.item.id for event in events if event.type == "response.output_item.added"]
    closed = [event.item.id for event in events if event.type == "response.output_item.done"]
    assert opened == closed == [item.id for item in final.output]


def test_an_engine_that_dies_in_the_middle_fails_the_response_in_the_stream(client: openai.OpenAI, scripted: ScriptedEngine):
    scripted.script = Reply("one two three", delay=0.02, fault=Die(after=2))
    *_, error, failed = client.responses.create(**asks(stream=True))
    assert error.type == "error" and "broke off" in error.message
    assert failed.type == "response.failed" and failed.response.status == "failed" and failed.response.error is not None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
        ({"input": []}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": [{"type": "input_file", "file_id": "x"}]}]}, "input[0].content[0].type"),
        ({"input": [{"role": "king", "content": "x"}]}, "input[0].role"),
        ({"text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "nonsense"}}}}, "text.format"),
        ({"tool_choice": {"type": "function", "name": "absent"}}, "tool_choice"),
        ({"tools": [{"type": "function", "name": "a b"}]}, "tools[0].name"),
        ({"tools": [TOOL, TOOL | {"name": "none"}]}, "tools[1].name"),
    ],
)
def test_what_cant_be_kept_is_refused_by_name(client: openai.OpenAI, fields: dict[str, Any], param: str):
    with pytest.raises(openai.BadRequestError) as told:
        client.responses.create(**asks(**fields))
    assert told.value.param is not None and told.value.param.startswith(param)


def calls(**fields: Any) -> dict[str, Any]:
    return {"type": "function_call", "call_id": "1", "name": "get_time", "arguments": "{}"} | fields


THOUGHT = {"type": "reasoning", "id": "rs_1", "summary": []}
NO_PICTURE = {"type": "input_image", "image_url": "data:image/png;base64,aGk="}


@pytest.mark.parametrize("instructions", [None, "Be brief."])
@pytest.mark.parametrize(
    ("items", "param"),
    [
        ([{"role": "user", "content": [NO_PICTURE]}], "input[0].content[0]"),
        ([{"role": "user", "content": "x"}, {"role": "user", "content": [NO_PICTURE]}], "input[1].content[0]"),
        ([THOUGHT, {"role": "user", "content": [{"type": "input_text", "text": "x"}, NO_PICTURE]}], "input[1].content[1]"),
        ([calls(), calls(call_id="2"), {"role": "user", "content": [NO_PICTURE]}], "input[2].content[0]"),
        ([calls(), THOUGHT, {"type": "function_call_output", "call_id": "1", "output": [NO_PICTURE]}], "input[2].output[0]"),
        ([calls(), calls(name=None)], "input[1].name"),
        ([calls(), calls(call_id=None)], "input[1].call_id"),
        ([THOUGHT, {"role": "user", "content": 5}], "input[1].content"),
    ],
)
def test_an_error_names_the_item_it_is_about(client: openai.OpenAI, items: list[Any], param: str, instructions: str | None):
    """However many messages the items amount to."""
    with pytest.raises(openai.BadRequestError) as told:
        client.responses.create(**asks(input=items, instructions=instructions))
    assert told.value.param == param and "messages[" not in told.value.message


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("path", "asked"), [("chat/completions", "messages"), ("completions", "prompt"), ("responses", "input")])
def test_an_engine_that_finds_it_too_long_leads_to_the_field_the_client_sent(
    served: Served, scripted: ScriptedEngine, path: str, asked: str, stream: bool
):
    words = "The input (99999 tokens) is longer than the model's context length (32768 tokens)."
    scripted.script = Reply(fault=Say(status=400, data=json.dumps({"error": {"message": words}}).encode()))
    content: Any = [{"role": "user", "content": "Hi"}] if asked == "messages" else "Hi"
    told = served.http.post(f"/v1/{path}", json={"model": "gemma-3n", "stream": stream, asked: content})
    error = told.json()["error"]
    assert (told.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", asked)

