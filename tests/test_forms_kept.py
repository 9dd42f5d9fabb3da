"""On the real engine: whatever the schema or the tools, the answer parses, validates and ends by itself."""

from __future__ import annotations

import datetime
import json
import re
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jsonschema
import openai
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from hypothesis.errors import NonInteractiveExampleWarning
from pydantic import BaseModel, Field
from random_schemas import SCALARS as FLAT
from random_schemas import SCHEMAS, objects
from serving import Served, serving

from gemma3n_sgl.settings import Settings

pytestmark = pytest.mark.engine

TALK: list[Any] = [{"role": "user", "content": "Tell me something."}]


@pytest.fixture(scope="module")
def served(engine: str) -> Iterator[Served]:
    with serving(Settings(runtime_url=engine)) as server:
        server.client = server.client.with_options(timeout=120)
        yield server


FORMATS = jsonschema.FormatChecker()
FORMATS.checks("time", raises=ValueError)(lambda text: bool(datetime.time.fromisoformat(text)) or True)  # its own is of a draft that knows no zones
FORMATS.checks("date-time", raises=ValueError)(lambda text: bool(datetime.datetime.fromisoformat(text)))


def drawn(strategy: Any, count: int) -> list[Any]:
    """`count` examples, the same every time."""
    found: list[Any] = []

    @seed(20_261)
    @settings(max_examples=count * 2, database=None, deadline=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def collect(value: Any) -> None:
        found.append(value)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NonInteractiveExampleWarning)
        collect()
    return found[-count:]


def answers(served: Served, requests: list[dict[str, Any]]) -> list[Any]:
    def ask(fields: dict[str, Any]) -> Any:
        return served.client.chat.completions.create(**{"model": "gemma-3n", "messages": TALK, "max_tokens": 400} | fields)

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(ask, requests))


def test_two_hundred_random_schemas_get_answers_that_validate_and_end(served: Served):
    schemas = drawn(SCHEMAS, 200)
    formats = [{"type": "json_schema", "json_schema": {"name": "x", "schema": schema}} for schema in schemas]
    for schema, answer in zip(schemas, answers(served, [{"response_format": format_} for format_ in formats]), strict=True):
        choice = answer.choices[0]
        assert choice.finish_reason == "stop", (schema, choice.message.content)
        jsonschema.validate(json.loads(choice.message.content), schema, format_checker=FORMATS)


def test_a_hundred_random_sets_of_tools_get_calls_that_validate(served: Served):
    names = st.from_regex(r"[a-z][a-z0-9_-]{0,12}", fullmatch=True)
    tool = st.builds(lambda name, parameters: {"type": "function", "function": {"name": name, "parameters": parameters}}, names, objects(FLAT))
    sets = drawn(st.lists(tool, min_size=1, max_size=4, unique_by=lambda each: each["function"]["name"]), 100)
    asked = [{"tools": tools, "tool_choice": "required", "parallel_tool_calls": i % 2 == 0} for i, tools in enumerate(sets)]
    for tools, answer in zip(sets, answers(served, asked), strict=True):
        calls = answer.choices[0].message.tool_calls
        assert calls and answer.choices[0].finish_reason == "tool_calls"
        known = {each["function"]["name"]: each["function"]["parameters"] for each in tools}
        for call in calls:
            jsonschema.validate(json.loads(call.function.arguments), known[call.function.name])


class Person(BaseModel):
    name: str
    age: int = Field(ge=0, le=130)
    friends: list[str] = []


def test_the_official_clients_parse_gives_a_model(served: Served):
    parsed = served.client.chat.completions.parse(model="gemma-3n", messages=TALK, response_format=Person).choices[0].message.parsed
    assert isinstance(parsed, Person)
    made = served.client.responses.parse(model="gemma-3n", input="Tell me something.", text_format=Person).output_parsed
    assert isinstance(made, Person)


def test_an_answer_in_json_streams_as_it_is_whole(served: Served):
    asked: Any = {"model": "gemma-3n", "messages": TALK, "response_format": {"type": "json_object"}, "seed": 7, "max_tokens": 100}
    whole = served.client.chat.completions.create(**asked).choices[0].message.content
    assert isinstance(json.loads(whole), dict)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in served.client.chat.completions.create(**asked, stream=True)) == whole


@pytest.mark.parametrize("model", ["gemma-3n", "gemma-3n:chat", "gemma-3n:vision"])
def test_every_program_whose_answer_is_generated_keeps_the_form(served: Served, model: str):
    fields = {"regex": r"[A-C]{2}-\d+"}
    text = served.client.chat.completions.create(model=model, messages=TALK, extra_body=fields).choices[0].message.content
    assert re.fullmatch(r"[A-C]{2}-\d+", text or "")


def test_a_grammar_of_ones_own_is_kept(served: Served):
    fields = {"ebnf": 'root ::= color (" and " color)?\ncolor ::= "red" | "blue"'}
    text = served.client.chat.completions.create(model="gemma-3n", messages=TALK, extra_body=fields).choices[0].message.content
    assert re.fullmatch(r"(red|blue)( and (red|blue))?", text or "")


@pytest.mark.parametrize(
    "grammar",
    [
        'root ::= root "a"',
        'root ::= x\nx ::= y "b"\ny ::= x',
        'root ::= "a" missing',
        'root ::= ("a"',
        'root ::= "a" root',
        'start ::= "a"',
        'root ::= "a"{5000}',
        "root ::= [z-a]",
        'root ::= ""* "a"',
        'root ::= ("a"*)* "b"',
        'root ::= "\\xZZ"',
    ],
)
def test_grammars_that_hurt_are_refused_or_survived(served: Served, grammar: str):
    """Whatever a grammar is, the engine answers the next request."""
    asked: Any = {"model": "gemma-3n", "messages": TALK, "max_tokens": 5}
    try:
        served.client.chat.completions.create(**asked, extra_body={"ebnf": grammar})
    except openai.BadRequestError as error:
        assert "grammar" in error.message
    assert served.client.chat.completions.create(**asked).choices[0].message.content
