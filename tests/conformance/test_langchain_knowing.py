"""What LangChain's suite asks of a model that knows, played by the scripted engine: the server's part of it is right."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any

import pytest
from langchain_openai import ChatOpenAI
from langchain_suite import OUT_OF_REACH, SKIPPED, Suite
from scripted_engine import Reply, ScriptedEngine
from serving import Served, serving

from gemma3n_sgl.settings import Settings

pytestmark = pytest.mark.slow  # to import

ARGUMENTS = {
    "magic_function(3)": '{"input": 3}',
    "San Francisco": '{"location": "San Francisco, CA"}',
    "你好啊集团": '{"customer_name": "你好啊集团", "description": "A technology company"}',
    "こんにちは株式会社": '{"customer_name": "こんにちは株式会社", "description": "A company"}',
}
JOKE = '{"setup": "Why do cats sit on keyboards?", "punchline": "To keep an eye on the mouse."}'
PARAMS: list[dict[str, Any]] = [{}, {"output_version": "v1"}]


def knowing(prompt: str) -> Reply:
    """A model that calls the tool that helps, once, with the right arguments; letter by letter, so that streams break where it hurts."""
    last = prompt.rpartition("<start_of_turn>model\n")[2]
    if prompt.endswith("Arguments: "):
        return Reply(tuple(next(text for question, text in ARGUMENTS.items() if question in prompt)))
    if prompt.endswith("Tool: "):
        done = "Arguments: " in last or "Result of" in prompt
        return Reply("none" if done else re.search(r'"name": "(\w+)"', prompt)[1])  # type: ignore[index]
    return Reply(tuple(JOKE if "joke" in prompt else "It is sunny."))


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    engine = ScriptedEngine(knowing).start()
    with serving(Settings(runtime_url=engine.url)) as served:
        yield served
    engine.stop()


@pytest.mark.parametrize("params", PARAMS, ids=["v0", "v1"])
@pytest.mark.parametrize("name", OUT_OF_REACH)
async def test_it_passes_with_a_model_that_knows(served: Served, one_loop: None, name: str, params: dict[str, Any]):
    suite = Suite()
    suite.base_url = served.base_url
    done = getattr(suite, name)(ChatOpenAI(**suite.chat_model_params, **params))
    if inspect.isawaitable(done):
        await done


def test_what_is_left_out_or_out_of_reach_is_a_test_of_the_suite():
    assert all(hasattr(Suite, name) for name in (*SKIPPED, *OUT_OF_REACH))
