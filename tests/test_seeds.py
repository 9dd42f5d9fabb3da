"""On the real engine: what a request asks of sampling comes true in the answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from serving import Served, serving

from gemma3n_sgl.settings import Settings

pytestmark = pytest.mark.engine

WILD: dict[str, Any] = {"model": "gemma-3n", "messages": [{"role": "user", "content": "Tell me anything."}], "temperature": 2, "max_tokens": 24}


@pytest.fixture(scope="module")
def served(engine: str) -> Iterator[Served]:
    with serving(Settings(runtime_url=engine)) as server:
        server.client = server.client.with_options(timeout=60)
        yield server


def said(served: Served, **fields: Any) -> str:
    return served.client.chat.completions.create(**WILD | fields).choices[0].message.content or ""


def streamed(served: Served, **fields: Any) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in served.client.chat.completions.create(**WILD | fields, stream=True))


def test_a_seed_gives_the_same_answer_twice_and_streamed(served: Served):
    fields = {"extra_body": {"ignore_eos": True}}
    for seed in (1, 2, 3):
        assert said(served, seed=seed, **fields) == said(served, seed=seed, **fields) == streamed(served, seed=seed, **fields)
    assert len({said(served, seed=seed, **fields) for seed in range(5)}) > 1
    assert len({said(served, **fields) for _ in range(5)}) > 1, "without a seed each answer is drawn anew"


def test_several_answers_with_a_seed_are_several_and_come_again(served: Served):
    def three() -> list[str | None]:
        answer = served.client.chat.completions.create(**WILD, n=3, seed=11, extra_body={"ignore_eos": True})
        return [choice.message.content for choice in answer.choices]

    first = three()
    assert len(set(first)) > 1
    assert first == three()


def test_a_bias_forbids_a_token_and_forces_another(served: Served):
    greedy = served.client.chat.completions.create(**WILD | {"temperature": 0, "max_tokens": 1}, logprobs=True, top_logprobs=2)
    content = greedy.choices[0].logprobs
    assert content is not None and content.content is not None
    first, second = content.content[0].top_logprobs
    assert first.token == greedy.choices[0].message.content and first.logprob > second.logprob
    ids = served.http.post("/v1/chat/completions", json=WILD | {"logit_bias": {"600": 100}, "max_tokens": 3}).json()
    forced = ids["choices"][0]["message"]["content"]
    assert len(set(forced.split())) == 1 or len(forced) % 3 == 0, "one token, three times"


def test_min_tokens_and_min_p_are_survived(served: Served):
    answer = served.client.chat.completions.create(**WILD, extra_body={"min_tokens": 12, "min_p": 0.05})
    assert answer.usage is not None and answer.usage.completion_tokens >= 12


def test_a_token_beyond_the_vocabulary_is_refused_and_the_engine_lives(served: Served):
    for fields in (
        {"logit_bias": {"999999999": 1}},
        {"stop_token_ids": [999999999]},
        {"stop_token_ids": [999999999], "min_tokens": 1},
        {"stop_token_ids": [100_000], "min_tokens": 1, "logit_bias": {"7": 0.5}},
        {"top_k": 2**31},
        {"top_k": 2**30},
        {"max_tokens": 2**64},
        {"min_tokens": 2**40},
    ):
        assert served.http.post("/v1/chat/completions", json=WILD | fields).status_code in (200, 400)
    assert said(served)


def test_log_probabilities_are_the_answers_own(served: Served):
    answer = served.client.chat.completions.create(**WILD | {"temperature": 0}, logprobs=True, top_logprobs=3)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None and logprobs.content is not None
    assert "".join(token.token for token in logprobs.content) == answer.choices[0].message.content
    assert all(token.logprob == max(top.logprob for top in token.top_logprobs) for token in logprobs.content)


def test_an_answer_goes_on_from_given_words(served: Served):
    messages = [{"role": "user", "content": "Hello!"}, {"role": "assistant", "content": "Hello! Show me"}]
    answer = said(served, messages=messages, temperature=0, extra_body={"continue_final_message": True})
    assert answer.startswith(" a picture")
