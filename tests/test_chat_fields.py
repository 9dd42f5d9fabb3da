"""Every promise a chat request can ask for is kept, streaming or not: several answers, log probabilities, tools, an open end, an answer's form."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from scripted_engine import Reply, ScriptedEngine
from serving import SHORT, Served, one_for_all, serving

from gemma3n_sgl.settings import Settings

TALK: list[Any] = [{"role": "user", "content": "Hi"}]


standing, scripted, served = one_for_all(**SHORT)


def whole(served: Served, **fields: Any) -> ChatCompletion:
    return served.client.chat.completions.create(**{"model": "gemma-3n", "messages": TALK} | fields)


def chunks(served: Served, **fields: Any) -> list[ChatCompletionChunk]:
    asked = {"model": "gemma-3n", "messages": TALK, "stream": True, "stream_options": {"include_usage": True}} | fields
    return list(served.client.chat.completions.create(**asked))


def refused(served: Served, param: str, says: str, **fields: Any) -> None:
    with pytest.raises(openai.BadRequestError, match=says) as told:
        whole(served, **fields)
    assert told.value.param == param


# Several answers


def test_several_answers_have_an_index_each_and_the_prompt_is_counted_once(served: Served, scripted: ScriptedEngine):
    scripted.script = Reply("one two three", meta={"prompt_tokens": 10})
    answer = whole(served, n=3)
    assert [(choice.index, choice.message.content) for choice in answer.choices] == [(i, "one two three") for i in range(3)]
    assert answer.usage is not None and (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (10, 12)


def test_several_answers_stream_interleaved_and_count_as_without_a_stream(served: Served, scripted: ScriptedEngine):
    scripted.script = Reply("one two three", delay=0.02)
    got = chunks(served, n=2)
    for index in (0, 1):
        mine = [chunk.choices[0] for chunk in got if chunk.choices and chunk.choices[0].index == index]
        assert (mine[0].delta.role, mine[-1].finish_reason) == ("assistant", "stop")
        assert "".join(choice.delta.content or "" for choice in mine) == "one two three"
    order = [chunk.choices[0].index for chunk in got if chunk.choices and chunk.choices[0].delta.content]
    assert order != sorted(order), "side by side, not one after the other"
    assert got[-1].usage == whole(served, n=2).usage


def test_a_seed_gives_each_of_several_answers_its_own(served: Served, scripted: ScriptedEngine):
    whole(served, n=3, seed=2**63 - 2)
    seeds = sorted(request["sampling_params"]["sampling_seed"] for request in scripted.requests[-3:])
    assert seeds == [-(2**63), 2**63 - 2, 2**63 - 1]


def test_more_answers_than_the_limit_are_refused(served: Served):
    refused(served, "n", "at most 16", n=17)


# Log probabilities


@pytest.mark.parametrize("incremental", [False, True])
def test_log_probabilities_cover_the_answer_token_by_token(served: Served, scripted: ScriptedEngine, incremental: bool):
    scripted.script, scripted.incremental = Reply("one two three"), incremental
    logprobs = whole(served, logprobs=True, top_logprobs=2).choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert [token.token for token in logprobs.content] == ["one", " two", " three"], "what ends the turn is no part of it"
    assert [rival.token for rival in logprobs.content[1].top_logprobs] == [" two", " TWO"]
    assert bytes(logprobs.content[2].bytes or []) == b" three"
    streamed = [chunk.choices[0].logprobs for chunk in chunks(served, logprobs=True, top_logprobs=2) if chunk.choices]
    assert [token for part in streamed if part for token in part.content or []] == logprobs.content
    scripted.incremental = False


def test_log_probabilities_end_where_a_stop_string_ends_the_answer(served: Served, scripted: ScriptedEngine):
    scripted.script = Reply(("one ", "two ", "ST", "OP", " more"))
    choice = whole(served, logprobs=True, stop=["STOP"]).choices[0]
    assert choice.message.content == "one two "
    assert choice.logprobs is not None and [token.token for token in choice.logprobs.content or []] == ["one ", "two "]


def test_rivals_without_log_probabilities_are_refused(served: Served):
    refused(served, "top_logprobs", "needs `logprobs`", top_logprobs=3)


# What goes to the engine as it is


def test_further_parameters_reach_the_call_that_answers_and_no_other(served: Served, scripted: ScriptedEngine):
    fields = {"min_tokens": 3, "ignore_eos": True, "stop_token_ids": [7], "regex": "[ab]{2}"}
    picture = {"type": "image_url", "image_url": {"url": PNG}}
    messages = [{"role": "user", "content": [picture, {"type": "text", "text": "What?"}]}]
    whole(served, messages=messages, reasoning_effort="low", logit_bias={"5": -100}, extra_body=fields)
    *steps, answer = [request["sampling_params"] for request in scripted.requests]
    assert (answer["min_new_tokens"], answer["ignore_eos"], answer["stop_token_ids"]) == (3, True, [7])
    assert answer["logit_bias"] == {"7": 0.0, "5": -100}, "so that the engine looks whether it has the token that ends the answer"
    assert len(steps) == 2 and not any("logit_bias" in step or step.get("ignore_eos") for step in steps)


PNG = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9hAAAAAElFTkSuQmCC"
)


def test_what_only_one_call_can_keep_is_refused_for_an_answer_joined_from_several(served: Served, scripted: ScriptedEngine):
    data = base64.b64encode((Path(__file__).parent / "media/314.mp3").read_bytes()).decode()
    messages = [{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": data, "format": "mp3"}}]}]
    refused(served, "logit_bias", "puts its answer together", model="gemma-3n:transcribe", messages=messages, logit_bias={"5": 1})


# Open end


def test_the_answer_goes_on_from_the_assistants_last_words(served: Served, scripted: ScriptedEngine):
    scripted.script = Reply("Paris.")
    messages = [*TALK, {"role": "assistant", "content": "The capital is "}]
    answer = whole(served, messages=messages, extra_body={"continue_final_message": True})
    assert answer.choices[0].message.content == "Paris."
    assert scripted.requests[-1]["text"].endswith("<start_of_turn>model\nThe capital is ")


def test_an_open_end_needs_words_of_the_assistants(served: Served):
    refused(served, "continue_final_message", "last message of the assistant", extra_body={"continue_final_message": True})


# Tools

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string", "maxLength": 20}}, "required": ["city"]},
    },
}
CLOCK = {"type": "function", "function": {"name": "get_time"}}
NAMED = {"type": "function", "function": {"name": "get_weather"}}


def calls_paris(prompt: str) -> Reply:
    """A model that calls get_weather for Paris once, then no more, and answers when it knows."""
    if prompt.endswith("Arguments: "):
        return Reply(('{"ci', 'ty": "Pa', 'ris"}'))
    if prompt.endswith("Tool: none\n"):
        return Reply("It is sunny.")
    return Reply("none" if "Result of get_weather" in prompt or 'Paris"}' in prompt else "get_weather")


def test_a_call_comes_with_id_name_and_arguments(served: Served, scripted: ScriptedEngine):
    scripted.script = calls_paris
    choice = whole(served, tools=[WEATHER, CLOCK]).choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    (call,) = choice.message.tool_calls or []
    assert call.type == "function" and call.id.startswith("call_")
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", {"city": "Paris"})
    told = scripted.requests[0]["text"]
    assert "The weather of a city" in told and '"get_time"' in told


def test_a_call_streams_its_name_then_its_arguments_piece_by_piece(served: Served, scripted: ScriptedEngine):
    def slowly(prompt: str) -> Reply:
        reply = calls_paris(prompt)
        return Reply(reply.text, delay=0.02)

    scripted.script = slowly
    got = chunks(served, tools=[WEATHER])
    deltas = [call for chunk in got if chunk.choices for call in chunk.choices[0].delta.tool_calls or []]
    assert deltas[0].id and deltas[0].function and (deltas[0].function.name, deltas[0].function.arguments) == ("get_weather", "")
    assert len(deltas) > 2 and all(delta.index == 0 and delta.id is None for delta in deltas[1:])
    assert "".join(delta.function.arguments or "" for delta in deltas if delta.function) == '{"city": "Paris"}'
    assert got[-2].choices[0].finish_reason == "tool_calls"
    assert got[-1].usage == whole(served, tools=[WEATHER]).usage


def test_the_result_of_a_call_leads_to_an_answer(served: Served, scripted: ScriptedEngine):
    scripted.script = calls_paris
    call = (whole(served, tools=[WEATHER]).choices[0].message.tool_calls or [])[0]
    messages = [*TALK, {"role": "assistant", "content": None, "tool_calls": [call.model_dump()]}]
    messages.append({"role": "tool", "tool_call_id": call.id, "content": "sunny"})
    choice = whole(served, messages=messages, tools=[WEATHER]).choices[0]
    assert (choice.message.content, choice.message.tool_calls, choice.finish_reason) == ("It is sunny.", None, "stop")
    prompt = scripted.requests[-1]["text"]
    assert '<start_of_turn>model\nTool: get_weather\nArguments: {"city": "Paris"}<end_of_turn>' in prompt
    assert "<start_of_turn>user\nResult of get_weather:\nsunny<end_of_turn>" in prompt


def test_a_tool_may_give_a_picture_back(served: Served, scripted: ScriptedEngine):
    picture = base64.b64encode((Path(__file__).parent / "media" / "red-circle.png").read_bytes()).decode()
    call = {"id": "1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
    content = [{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{picture}"}}, {"type": "text", "text": "the sky"}]
    messages = [*TALK, {"role": "assistant", "content": "", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "1", "content": content}]
    scripted.script = calls_paris
    whole(served, messages=messages, tools=[WEATHER])
    assert "<start_of_turn>user\nResult of get_weather:<image_soft_token>the sky<end_of_turn>" in scripted.requests[-1]["text"]
    content[0]["image_url"] = {"url": "data:image/png;base64,aGk="}
    refused(served, "messages[2].content[0]", "no picture", messages=messages)


def test_the_choice_is_constrained_and_required_leaves_no_way_out(served: Served, scripted: ScriptedEngine):
    scripted.script = calls_paris
    whole(served, tools=[WEATHER, CLOCK])
    assert scripted.requests[0]["sampling_params"]["regex"] == "(get_weather|get_time|none)"
    scripted.requests.clear()
    whole(served, tools=[WEATHER, CLOCK], tool_choice="required")
    assert scripted.requests[0]["sampling_params"]["regex"] == "(get_weather|get_time)"


def test_a_named_tool_is_called_once_without_a_choice(served: Served, scripted: ScriptedEngine):
    scripted.script = calls_paris
    choice = whole(served, tools=[WEATHER, CLOCK], tool_choice=NAMED).choices[0]
    assert [call.function.name for call in choice.message.tool_calls or []] == ["get_weather"]
    assert len(scripted.requests) == 1


def test_calls_go_on_side_by_side_unless_forbidden(served: Served, scripted: ScriptedEngine):
    def two(prompt: str) -> Reply:
        if prompt.endswith("Arguments: "):
            return Reply("{}")
        return Reply("none" if prompt.count("Arguments: {}") == 2 else "get_time")

    scripted.script = two
    names = [call.function.name for call in whole(served, tools=[CLOCK]).choices[0].message.tool_calls or []]
    assert names == ["get_time", "get_time"]
    assert len(whole(served, tools=[CLOCK], parallel_tool_calls=False).choices[0].message.tool_calls or []) == 1


def test_without_a_call_the_answer_is_an_answer(served: Served, scripted: ScriptedEngine):
    scripted.script = {"none\n": Reply("Just so."), "": Reply("none")}
    choice = whole(served, tools=[WEATHER]).choices[0]
    assert (choice.message.content, choice.message.tool_calls, choice.finish_reason) == ("Just so.", None, "stop")


def test_tools_that_may_not_be_called_are_not_told(served: Served, scripted: ScriptedEngine):
    whole(served, tools=[WEATHER], tool_choice="none")
    assert "get_weather" not in scripted.requests[-1]["text"]


def test_arguments_cut_by_max_tokens_are_told_as_cut(served: Served, scripted: ScriptedEngine):
    scripted.script = calls_paris
    choice = whole(served, tools=[WEATHER], tool_choice=NAMED, max_tokens=2).choices[0]
    assert choice.finish_reason == "length"


@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"tool_choice": "required"}, "tool_choice", "not among"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice", "'x'"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "auto"}}}, "tool_choice", "'auto'"),
        ({"tools": [WEATHER, WEATHER]}, "tools", "same name"),
        ({"tools": [WEATHER, {"type": "function", "function": {"name": "none"}}]}, "tools[1].function.name", "Rename it"),
        ({"tools": [{"type": "function", "function": {"name": "none"}}], "tool_choice": "none"}, "tools[0].function.name", "Rename it"),
        ({"tools": [WEATHER], "model": "gemma-3n:chat"}, "tools", "calls no tools"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools[0].function.name", "pattern"),
    ],
)
def test_tools_that_cant_be_called_are_refused(served: Served, fields: dict[str, Any], param: str, says: str):
    refused(served, param, says, **fields)


@pytest.mark.parametrize("tools", [{"tools": [WEATHER], "tool_choice": "required"}, {"model": "gemma-3n:tools"}], ids=["tools", "none"])
def test_metadata_takes_no_field_of_the_requests_place(served: Served, scripted: ScriptedEngine, tools: dict[str, Any]):
    """It is for the client's own notes, whatever those are called."""
    scripted.script = calls_paris
    notes = {"tools": "weather", "tool_choice": "none", "parallel_tool_calls": "maybe"}
    plain, noted = whole(served, **tools).choices[0], whole(served, metadata=notes, **tools).choices[0]
    assert noted.finish_reason == plain.finish_reason == ("tool_calls" if "tools" in tools else "stop")


def test_the_effort_a_request_asks_for_is_not_changed_by_its_metadata(served: Served, scripted: ScriptedEngine):
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": PNG}}]}]
    for fields, calls in (({"reasoning_effort": "none"}, 1), ({}, 2 + 1)):
        scripted.forget()
        whole(served, messages=messages, metadata={"effort": "low"}, **fields)
        assert len(scripted.requests) == calls


# An engine that is deterministic


def test_a_deterministic_engine_gets_a_seed_each_time_and_never_min_p(scripted: ScriptedEngine):
    scripted.info["enable_deterministic_inference"] = True
    with serving(Settings(runtime_url=scripted.url, **SHORT)) as served:
        whole(served), whole(served)
        first, second = (request["sampling_params"]["sampling_seed"] for request in scripted.requests[-2:])
        assert first != second
        refused(served, "min_p", "deterministic", extra_body={"min_p": 0.1})
