"""Clients from before chat: a prompt in, its completion out, over the same programs."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from scripted_engine import Reply, ScriptedEngine
from serving import SHORT, Served, one_for_all

standing, scripted, served = one_for_all(Reply("one two three", meta={"prompt_tokens": 10}), **SHORT)


@pytest.fixture
def ask(standing: tuple[ScriptedEngine, Served], scripted: ScriptedEngine) -> Any:
    return lambda **fields: standing[1].client.completions.create(**{"model": "gemma-3n", "prompt": "Once"} | fields)


def test_a_prompt_gets_its_completion(ask: Any, scripted: ScriptedEngine):
    answer = ask(stop=["three"], temperature=0.5)
    assert (answer.object, answer.choices[0].text, answer.choices[0].finish_reason) == ("text_completion", "one two ", "stop")
    assert answer.id.startswith("cmpl-") and answer.usage.prompt_tokens == 10
    sent = scripted.requests[-1]
    assert (sent["sampling_params"]["max_new_tokens"], sent["sampling_params"]["temperature"]) == (16, 0.5)


def test_several_prompts_and_answers_are_numbered_on(ask: Any, scripted: ScriptedEngine):
    scripted.script = {"first": Reply("1", meta={"prompt_tokens": 5}), "second": Reply("2", meta={"prompt_tokens": 7})}
    answer = ask(prompt=["first", "second"], n=2, echo=True)
    assert [(choice.index, choice.text) for choice in answer.choices] == [(0, "first1"), (1, "first1"), (2, "second2"), (3, "second2")]
    assert answer.usage.prompt_tokens == 12, "each prompt once"


def test_places_of_tokens_are_counted_for_each_answer(ask: Any, scripted: ScriptedEngine):
    scripted.script = {"first": Reply(("1", "23"), delay=0.02), "second": Reply(("4", "5"), delay=0.02)}
    asked = {"prompt": ["first", "second"], "n": 2, "logprobs": 0}
    places: dict[int, list[int]] = {}
    for chunk in ask(**asked, stream=True):
        for choice in chunk.choices:
            places.setdefault(choice.index, []).extend(choice.logprobs.text_offset)
    assert places == {choice.index: choice.logprobs.text_offset for choice in ask(**asked).choices} == {index: [0, 1] for index in range(4)}


def test_a_stream_says_what_a_whole_answer_says(ask: Any):
    whole = ask(logprobs=1, echo=True)
    chunks = list(ask(logprobs=1, echo=True, stream=True, stream_options={"include_usage": True}))
    said = [chunk.choices[0] for chunk in chunks if chunk.choices]
    assert "".join(choice.text for choice in said) == whole.choices[0].text == "Onceone two three"
    streamed = [token for choice in said if choice.logprobs for token in choice.logprobs.tokens]
    assert streamed == whole.choices[0].logprobs.tokens == ["one", " two", " three"]
    places = [place for choice in said if choice.logprobs for place in choice.logprobs.text_offset]
    assert places == whole.choices[0].logprobs.text_offset == [4, 7, 11], "where each stands in all of the text"
    assert said[-1].finish_reason == "stop" and chunks[-1].usage == whole.usage
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"suffix": "end"}, "suffix"),
        ({"best_of": 3}, "best_of"),
        ({"prompt": [1, 2]}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"logprobs": 9}, "logprobs"),
        ({"extra_body": {"messages": [{"role": "user", "content": "x"}]}}, "messages"),
        ({"extra_body": {"nonsense": 1}}, "nonsense"),
    ],
)
def test_what_cant_be_kept_is_refused_by_name(ask: Any, fields: dict[str, Any], param: str):
    with pytest.raises(openai.BadRequestError) as told:
        ask(**fields)
    assert told.value.param is not None and told.value.param.startswith(param)
