"""Several engines behind one address of ours: a talk stays where it is known, what is down is gone round, and nobody is asked twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import PIL.Image
import pytest
import sglang as sgl
from listening_engine import wav
from scripted_engine import Die, Reply, ScriptedEngine
from serving import SHORT, serving, until

from gemma3n_sgl import Conversation, Gemma3nEndpoint, Recording, Turn, assistant, engines, hear, open_image, open_recording, running, user
from gemma3n_sgl.engines import Engines
from gemma3n_sgl.errors import EngineError, EngineUnavailable
from gemma3n_sgl.events import Done
from gemma3n_sgl.program import Program
from gemma3n_sgl.registry import Registry
from gemma3n_sgl.settings import Settings

CHAT = Registry.discover().named("chat")
PICTURE = open_image(Path(__file__).parent / "media/red-circle.png")


@pytest.fixture
def three() -> Iterator[list[ScriptedEngine]]:
    started = [ScriptedEngine(Reply("Yes.")).start() for _ in range(3)]
    yield started
    for engine in started:
        engine.stop()


def urls(started: list[ScriptedEngine]) -> str:
    return ",".join(engine.url for engine in started)


async def ask(endpoint: Gemma3nEndpoint, *turns: Any) -> Done:
    parts = tuple(Turn(("user", "assistant")[i % 2], turn if isinstance(turn, tuple) else (turn,)) for i, turn in enumerate(turns))
    return await running.run(CHAT, CHAT.bind(Conversation(parts), {}), endpoint)


def answered(started: list[ScriptedEngine]) -> list[int]:
    return [len(engine.requests) for engine in started]


async def test_a_talk_goes_on_where_it_began_and_talks_are_spread(three: list[ScriptedEngine]) -> None:
    endpoint = Gemma3nEndpoint(urls(three))
    for i in range(24):
        await ask(endpoint, f"Talk {i}")
    assert sum(answered(three)) == 24 and min(answered(three)) >= 2
    for i in range(24):
        await ask(endpoint, f"Talk {i}", "Yes.", (PICTURE, "And now?"))
    for engine in three:
        begun = [request["text"].split("<end_of_turn>")[0] for request in engine.requests]
        assert len(begun) == 2 * len(set(begun)), "both requests of a talk came to one engine"
    await endpoint.client.aclose()


async def test_the_picture_of_the_first_turn_is_part_of_what_is_known(three: list[ScriptedEngine]) -> None:
    endpoint = Gemma3nEndpoint(urls(three))
    for shade in range(20):
        picture = open_image(_flat(shade))
        await ask(endpoint, (picture, "What is it?"))
        await ask(endpoint, (picture, "What is it?"), "A shade.", "Which?")
    assert min(answered(three)) >= 2, "one question about twenty pictures"
    assert all(count % 2 == 0 for count in answered(three))
    await endpoint.client.aclose()


def _flat(shade: int) -> PIL.Image.Image:
    return PIL.Image.new("RGB", (32, 32), (shade * 12, 0, 0))


@sgl.function
def many(s, text: str):
    """Steps and forks."""
    s += user(text)
    s += assistant(sgl.gen("first"))
    forks = s.fork(3)
    for fork in forks:
        fork += user("Go on.")
        fork += assistant(sgl.gen("side"))
    forks.join()
    s += user("Sum up.")
    s += assistant(sgl.gen("answer"))


async def test_all_calls_of_a_run_go_to_one_engine(three: list[ScriptedEngine]) -> None:
    endpoint = Gemma3nEndpoint(urls(three))
    await running.run(Program.of(many), {"text": "Hello"}, endpoint)
    assert sorted(answered(three)) == [0, 0, 5]
    await endpoint.client.aclose()


@sgl.function
def listen(s, recording: Recording):
    """Write it down."""
    hear(s, "answer", recording, "Transcribe this audio.", clip_seconds=2)


async def test_the_clips_of_a_recording_are_heard_by_all(three: list[ScriptedEngine]) -> None:
    endpoint = Gemma3nEndpoint(urls(three))
    noise = (np.random.default_rng(0).normal(0, 3000, 16_000 * 40)).astype("<i2")
    await running.run(Program.of(listen), {"recording": open_recording(wav(noise.tobytes()))}, endpoint)
    assert min(answered(three)) >= 2
    await endpoint.client.aclose()


async def test_whoever_is_down_is_gone_round_and_comes_back_by_itself(three: list[ScriptedEngine], monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(engines, "time", SimpleNamespace(monotonic=lambda: now))
    endpoint = Gemma3nEndpoint(urls(three))
    client = endpoint.client
    assert isinstance(client, Engines)
    three[0].refuse()
    for i in range(12):
        assert (await ask(endpoint, f"Talk {i}")).answer == "Yes."
    assert client.up == 2 and sum(answered(three)) == 12 and not three[0].requests
    three[0].accept()
    now += engines.LONGEST_PAUSE
    for i in range(30):
        await ask(endpoint, f"Talk {i}")
    assert client.up == 3 and three[0].requests
    for engine in three:
        engine.refuse()
    told = [await _failure(endpoint) for _ in range(4)]
    assert isinstance(told[-1], EngineUnavailable), "at first connections break off that stood open"
    three[2].accept()
    assert (await ask(endpoint, "Talk")).answer == "Yes.", "when all are down, each may be asked"
    await client.aclose()


async def _failure(endpoint: Gemma3nEndpoint) -> EngineError:
    with pytest.raises(EngineError) as told:
        await ask(endpoint, "Talk")
    return told.value


async def test_what_killed_one_engine_is_not_offered_to_the_next(three: list[ScriptedEngine]) -> None:
    endpoint = Gemma3nEndpoint(urls(three))
    for engine in three:
        engine.script = Reply(fault=Die())
    with pytest.raises(EngineError):
        await ask(endpoint, "Poison")
    assert sum(answered(three)) == 1
    await endpoint.client.aclose()


async def test_an_engine_that_loads_is_gone_round(three: list[ScriptedEngine]) -> None:
    endpoint = Gemma3nEndpoint(urls(three))
    three[1].loading = True
    for i in range(9):
        await ask(endpoint, f"Talk {i}")
    assert answered(three)[1] == 0 and sum(answered(three)) == 9
    await endpoint.client.aclose()


async def test_after_the_first_token_nobody_else_is_asked(three: list[ScriptedEngine]) -> None:
    endpoint = Gemma3nEndpoint(urls(three))
    for engine in three:
        engine.script = Reply("one two three", fault=Die(after=1))
    with pytest.raises(EngineError):
        await ask(endpoint, "Hello")
    assert sum(answered(three)) == 1
    await endpoint.client.aclose()


async def test_where_one_has_far_more_to_do_others_help(three: list[ScriptedEngine]) -> None:
    endpoint = Gemma3nEndpoint(urls(three))
    for engine in three:
        engine.script = Reply("slow", delay=0.3)
    await asyncio.gather(*(ask(endpoint, "The same question") for _ in range(30)))
    assert min(answered(three)) >= 5 and max(answered(three)) <= 14
    await endpoint.client.aclose()


async def test_engines_of_different_models_are_told(three: list[ScriptedEngine]) -> None:
    three[1].info["served_model_name"] = "another"
    endpoint = Gemma3nEndpoint(urls(three))
    with pytest.raises(EngineError, match="don't serve the same model: another, gemma-3n-e4b"):
        await endpoint.describe()
    await endpoint.client.aclose()


def test_health_tells_how_many_are_up(three: list[ScriptedEngine]) -> None:
    with serving(Settings(runtime_url=urls(three), **SHORT)) as served:
        assert served.http.get("/health").json() == {"status": "ok", "engine": "gemma-3n-e4b", "engines": {"up": 3, "of": 3}}
        three[2].refuse()
        told = served.http.get("/health")
        assert (told.status_code, told.json()["engines"]) == (200, {"up": 2, "of": 3})
        for engine in three[:2]:
            engine.refuse()
        assert served.http.get("/health").status_code == 503
        three[2].accept()
        assert served.http.get("/health").json()["engines"] == {"up": 1, "of": 3}
        assert served.ask("Hello").json()["choices"][0]["message"]["content"] == "Yes."


def test_a_client_that_leaves_frees_the_engine_that_has_its_run(three: list[ScriptedEngine]) -> None:
    for engine in three:
        engine.script = Reply(" ".join(["word"] * 500), delay=0.02)
    with serving(Settings(runtime_url=urls(three), **SHORT)) as served:
        body = {"model": "gemma-3n", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
        with served.http.stream("POST", "/v1/chat/completions", json=body) as response:
            pieces = response.iter_bytes()  # kept, since httpx hangs up when it goes
            next(pieces)
            until(lambda: sum(engine.open for engine in three) == 1, 5)
        until(lambda: sum(engine.open for engine in three) == 0)


def test_a_setting_names_several() -> None:
    assert Settings(runtime_url="http://a:1/, http://b:2").runtime_url == "http://a:1,http://b:2"
    with pytest.raises(ValueError, match="with commas between"):
        Settings(runtime_url="http://a:1,b:2")
