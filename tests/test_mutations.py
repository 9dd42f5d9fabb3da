"""Requests mutated from valid ones, by chance but the same every time: whatever is wrong with them, it is told as the caller's to mend.

`python tests/test_mutations.py SEED COUNT` tries others, and prints the statuses and each request that the server failed on.
"""

from __future__ import annotations

import copy
import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from scripted_engine import Reply, ScriptedEngine
from serving import Served, serving

from gemma3n_sgl.settings import Settings

PNG = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEklEQVR4nGP4z8CAFWEXHbQSACj/P8Fu7N9hAAAAAElFTkSuQmCC"
PARAMETERS = {"type": "object", "properties": {"a": {"type": "integer"}}}
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "string", "pattern": "a+"}, "b": {"anyOf": [{"type": "integer", "minimum": 1}, {"type": "null"}]}},
    "required": ["a"],
}
CALL = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TALK = [
    {"role": "system", "content": "s"},
    {"role": "user", "content": [{"type": "text", "text": "x"}, {"type": "image_url", "image_url": {"url": PNG}}]},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "c", "content": "r"},
]
ITEMS = [
    {"role": "user", "content": [{"type": "input_text", "text": "x"}, {"type": "input_image", "image_url": PNG}]},
    {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "call_id": "c", "output": "o"},
]
VALID: list[tuple[str, dict[str, Any]]] = [
    (
        "/v1/chat/completions",
        {"model": "gemma-3n", "messages": TALK, "tools": [{"type": "function", "function": {"name": "f", "parameters": PARAMETERS}}]}
        | {"tool_choice": "auto", "n": 2, "logprobs": True, "top_logprobs": 2, "logit_bias": {"1": 1}, "stop": ["a"], "seed": 1}
        | {"max_tokens": 5, "metadata": {"a": "b"}, "stream": False, "stream_options": {"include_usage": True}},
    ),
    (
        "/v1/chat/completions",
        {"model": "gemma-3n:vision", "messages": TALK[1:2], "reasoning_effort": "low", "program_options": {"effort": "high"}}
        | {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": SCHEMA}}},
    ),
    (
        "/v1/chat/completions",
        {"model": "gemma-3n", "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}
        | {"continue_final_message": True, "regex": "a+b{2}", "min_tokens": 1, "ignore_eos": True, "stop_token_ids": [1]},
    ),
    ("/v1/completions", {"model": "gemma-3n", "prompt": ["a", "b"], "n": 2, "echo": True, "logprobs": 1, "max_tokens": 3, "best_of": 2}),
    (
        "/v1/responses",
        {"model": "gemma-3n", "input": ITEMS, "instructions": "i", "tools": [{"type": "function", "name": "f", "parameters": PARAMETERS}]}
        | {"tool_choice": "auto", "text": {"format": {"type": "json_schema", "name": "x", "schema": SCHEMA}}, "reasoning": {"effort": "low"}},
    ),
]
JUNK: list[Any] = [
    *(None, True, False, 0, 1, -1, 10**30, 1.5, 1e308, "", "x", "\0", "😀", "<end_of_turn>", "(((", "a" * 5000),
    *([], {}, [None], [[]], {"a": None}, {"type": "x"}, [1] * 300, {"$ref": "#"}, {"type": "object"}, ["a"] * 5),
]


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if place:
        yield place
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(inner, (*place, key))


def mutated(body: dict[str, Any], chance: random.Random) -> dict[str, Any]:
    """The body with one to three things in it replaced, left out, added or doubled."""
    body = copy.deepcopy(body)
    for _ in range(chance.choice([1, 1, 1, 2, 3])):
        *way, last = chance.choice(list(places(body)))
        holder: Any = body
        for key in way:
            holder = holder[key]
        how = chance.random()
        if how < 0.6:
            holder[last] = copy.deepcopy(chance.choice(JUNK))
        elif how < 0.75:
            holder.pop(last)
        elif isinstance(holder, dict):
            holder[chance.choice(["foo", "type", "role", "content", "name", "stream"])] = copy.deepcopy(chance.choice(JUNK))
        else:
            holder.append(copy.deepcopy(holder[last]))
        if not body:
            break
    return body


def tried(seed: int, count: int) -> tuple[Counter[tuple[str, int]], list[tuple[str, str]]]:
    """The statuses of `count` requests, and those that the server failed on."""
    engine = ScriptedEngine(Reply("f none {} ok")).start()
    with serving(Settings(runtime_url=engine.url, run_timeout=5)) as served:
        outcome = tried_on(served, random.Random(seed), count)
        assert served.ask().status_code == 200
    engine.stop()
    return outcome


def tried_on(served: Served, chance: random.Random, count: int) -> tuple[Counter[tuple[str, int]], list[tuple[str, str]]]:
    statuses, failed = Counter[tuple[str, int]](), []
    for _ in range(count):
        path, body = chance.choice(VALID)
        content = json.dumps(mutated(body, chance))
        answer = served.http.post(path, content=content)
        statuses[path, answer.status_code] += 1
        if answer.status_code >= 500:
            failed.append((content, answer.text))
    return statuses, failed


@pytest.mark.slow
def test_whatever_is_wrong_with_a_request_is_told_as_the_callers_to_mend():
    statuses, failed = tried(seed=7, count=1500)
    assert failed == []
    assert {path for path, status in statuses if status == 200} == {path for path, _ in VALID}, "some are harmless"


@pytest.mark.engine
def test_the_real_engine_survives_a_sample_and_answers_right_afterwards(engine: str):
    """What is harmless reaches it; of the server's errors only the end of a run's time is borne, which a long answer may come to."""
    with serving(Settings(runtime_url=engine, run_timeout=15)) as served:
        served.http.timeout = 120
        asked = {"text": "What is in this image?", "max_tokens": 16, "temperature": 0}
        before = served.ask(**asked).json()["choices"][0]["message"]["content"]
        statuses, failed = tried_on(served, random.Random(11), 120)
        assert [told for _, told in failed if '"run_timeout"' not in told] == []
        assert len(failed) < 10 and sum(count for (_, status), count in statuses.items() if status == 200) > 10
        assert served.http.get("/health").status_code == 200
        assert served.ask(**asked).json()["choices"][0]["message"]["content"] == before


if __name__ == "__main__":
    found, wrong = tried(int(sys.argv[1]), int(sys.argv[2]))
    print(*sorted(found.items()), *wrong, sep="\n")
    sys.exit(bool(wrong))
