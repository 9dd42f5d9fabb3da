"""Every fault of an engine × every moment × every program × every route, streaming or not, over real HTTP.

Each cell: the right status, or an error event in the stream; OpenAI's error object; no hang; asked no more often than an engine that answers;
and the same request is answered as soon as the engine is well again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from fault_cells import PROGRAMS, TOLD_IN_THE_TEXT, Answer, Cell, ask_all, cells
from scripted_engine import Die, Drip, Flood, Hang, Reply, Reset, Say, ScriptedEngine
from scripted_replies import Fault, Script
from serving import SHORT, Served, serving, until

from gemma3n_sgl import endpoint, hearing, transport
from gemma3n_sgl.settings import Settings

pytestmark = pytest.mark.slow

INNER = "/models/inner.py"
GOOD = Reply("Alpha beta.")
SECONDS = 60
STOP = {"type": "stop", "matched": 106}
GRAMMAR = {"type": "abort", "message": f"Failed to compile the grammar {INNER}", "status_code": 400, "err_type": "BadRequestError"}


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def said(text: Any, finish: Any = None, **meta: Any) -> bytes:
    counts = {"prompt_tokens": 1, "completion_tokens": 9}
    return event({"text": text, "output_ids": [1] * 9, "meta_info": {"finish_reason": finish} | counts | meta})


def told(status: int, **more: Any) -> Callable[[int | None], Fault]:
    """An error with this status: as HTTP says it, or in the stream where HTTP has said 200."""
    error = {"error": {"message": INNER, "type": "X", "code": status} | more}
    return lambda after: Say(None, json.dumps(error).encode(), status) if after is None else Say(after, event(error))


def bytes_(data: bytes) -> Callable[[int | None], Fault]:
    return lambda after: Say(after, data)


FAULTS: dict[str, tuple[Callable[[int | None], Fault], int, str]] = {
    "dies": (Die, 502, "engine_error"),
    "is reset": (Reset, 502, "engine_error"),
    "hangs": (Hang, 504, "engine_timeout"),
    "drips": (Drip, 504, "engine_timeout"),
    "fails": (told(500), 502, "engine_error"),
    "has too much to do": (told(429), 429, "overloaded"),
    "takes no requests": (told(503), 503, "engine_unavailable"),
    "asks for a key": (told(401), 502, "engine_error"),
    "is another server": (told(404), 502, "engine_error"),
    "sends elsewhere": (told(307), 502, "engine_error"),
    "refuses": (told(400), 400, "invalid_value"),
    "says garbage": (bytes_(b"data: \xff\xfe\x00garbage\n\n"), 502, "engine_error"),
    "says half a line": (bytes_(b'data: {"text": "Hi", "meta'), 502, "engine_error"),
    "says null": (bytes_(event(None)), 502, "engine_error"),
    "says a number": (bytes_(said(5, STOP)), 502, "engine_error"),
    "says words for counts": (bytes_(said("Alpha", STOP, prompt_tokens="many")), 502, "engine_error"),
    "says NaN": (bytes_(said("Alpha", STOP, prompt_tokens=float("nan"))), 502, "engine_error"),
    "says not how it ended": (bytes_(said("")), 502, "engine_error"),
    "aborts a grammar with a token of chance": (bytes_(said("junk", GRAMMAR)), 400, "invalid_value"),
    "says a line without end": (lambda after: Flood(after, b"x" * 65_536, head=b"data: "), 502, "engine_error"),
}
BEFORE, FIRST, MIDDLE, LATER = "before the headers", "before the first token", "after two tokens", "in a later call"
MOMENTS = {BEFORE: None, FIRST: 0, MIDDLE: 2, LATER: 0}


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transport, "_LONGEST", 2**18)
        patch.setattr(hearing, "RETURNS", (0.05,))
        scripted = ScriptedEngine(GOOD).start()
        yield scripted
        scripted.stop()


@pytest.fixture(scope="module")
def house(engine: ScriptedEngine) -> Iterator[Served]:
    with serving(Settings(runtime_url=engine.url)) as served:
        yield served


@pytest.fixture(scope="module")
def hasty(engine: ScriptedEngine) -> Iterator[Served]:
    """For an engine that is silent: no other fault is to be told as a late answer on a busy machine."""
    with serving(Settings(runtime_url=engine.url, **SHORT)) as served:
        yield served


@pytest.fixture(scope="module")
def calls(engine: ScriptedEngine, house: Served) -> dict[Cell, tuple[int, int]]:
    """How many calls each cell makes of an engine that answers: at first, and with what came of those."""
    counted = {}
    for cell in cells():
        engine.requests.clear()
        asyncio.run(well(house, [cell]))
        later = sum("Alpha" in body["text"] for body in engine.requests)
        counted[cell] = len(engine.requests) - later, later
    return counted


async def well(house: Served, asked: list[Cell]) -> None:
    for cell, answer in (await ask_all(str(house.http.base_url), asked, SECONDS)).items():
        assert (answer.status, answer.error) == (200, None), f"{cell}: {answer.raw}"
        assert "Alpha" in answer.text and TOLD_IN_THE_TEXT not in answer.text, f"{cell}: {answer.raw}"


def is_told(cell: Cell, answer: Answer, status: int, code: str, *, early: bool, heard: bool) -> None:
    """The fault is told as it should be: by the status where nothing has been said yet, else in the stream."""
    assert answer.ended, answer.raw
    assert INNER not in answer.raw and "junk" not in answer.raw and "Traceback" not in answer.raw
    if heard and cell.hears and answer.error is None:
        assert TOLD_IN_THE_TEXT in answer.text
        return
    assert answer.error is not None, answer.raw
    assert answer.error["code"] == code, answer.raw
    assert answer.error.keys() == {"message", "type", "param", "code"}
    assert answer.error["message"][0].isupper() and answer.error["message"].endswith(".")
    assert answer.status == (status if early or not cell.stream else answer.status)
    assert answer.status in (status, 200) and (answer.status == status or cell.stream)
    assert answer.headers["x-request-id"]
    if answer.status in (429, 503):
        assert int(answer.headers["retry-after"]) > 0


def script(fault: Fault, moment: str) -> Script:
    faulty = Reply("Once upon a time", delay=0.01, fault=fault)
    return (lambda prompt: faulty if "Alpha" in prompt else GOOD) if moment == LATER else faulty


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_and_the_next_request_is_answered(engine, house, hasty, calls, fault, moment):
    make, status, code = FAULTS[fault]
    asked = [cell for cell, (_, later) in calls.items() if later or moment != LATER]
    engine.requests.clear()
    engine.script = script(make(MOMENTS[moment]), moment)
    answers = asyncio.run(ask_all(str((hasty if fault in ("hangs", "drips") else house).http.base_url), asked, SECONDS))
    for cell, answer in answers.items():
        try:
            is_told(cell, answer, status, code, early=moment in (BEFORE, FIRST), heard=moment in (MIDDLE, LATER))
        except AssertionError as error:
            raise AssertionError(f"{cell}: {answer.status} {answer.raw[:2000]}") from error
    most = sum((first + later) * (2 if cell.hears else 1) for cell, (first, later) in calls.items() if cell in answers)
    assert len(engine.requests) <= most, "tried again"
    engine.script = GOOD
    asyncio.run(well(house, [cell for cell in asked if cell.stream]))
    until(lambda: engine.open == 0)


OF_ITSELF = {
    "dies": (Die(), 502, "engine_error"),
    "is reset": (Reset(), 502, "engine_error"),
    "hangs": (Hang(), 504, "engine_timeout"),
    "drips": (Drip(), 504, "engine_timeout"),
    "fails": (Say(status=500, data=b"Internal Server Error", content_type="text/plain"), 502, "engine_error"),
    "takes no requests": (Say(status=503), 503, "engine_unavailable"),
    "is another server": (Say(status=404, data=b'{"detail":"Not Found"}'), 502, "engine_error"),
    "says garbage": (Say(data=b"\xff\xfe{"), 502, "engine_error"),
    "says half a line": (Say(data=b'{"model_path": "/mod'), 502, "engine_error"),
    "says NaN": (Say(data=b'{"preferred_sampling_params": {"temperature": NaN}}'), 502, "engine_error"),
    "says a line without end": (Flood(data=b"x" * 65_536), 502, "engine_error"),
}


@pytest.mark.parametrize("fault", OF_ITSELF)
def test_an_engine_that_fails_when_it_is_asked_what_it_is_is_told_and_asked_again(engine, monkeypatch, fault):
    """As the first request finds it; nothing of that is remembered."""
    monkeypatch.setattr(endpoint, "INFO_TIMEOUT", 0.4)
    engine.script = GOOD
    engine.at_pages, status, code = OF_ITSELF[fault]
    asked = [cell for cell in cells() if cell.model in ("gemma-3n:chat", "gemma-3n:transcribe")]
    with serving(Settings(runtime_url=engine.url, **SHORT)) as served:
        for cell, answer in asyncio.run(ask_all(str(served.http.base_url), asked, SECONDS)).items():
            is_told(cell, answer, status, code, early=True, heard=False)
        assert served.http.get("/health").status_code == 503
        assert [model["id"] for model in served.http.get("/v1/models").json()["data"]][:1] == ["gemma-3n"]
        engine.at_pages = None
        asyncio.run(well(served, asked))
        assert served.http.get("/health").status_code == 200


def test_what_an_engine_could_not_say_once_is_not_taken_for_its_answer(engine):
    """That it is deterministic, and would die of `min_p`."""
    engine.script, engine.info = GOOD, engine.info | {"enable_deterministic_inference": True}
    with serving(Settings(runtime_url=engine.url)) as served:
        engine.at_pages, engine.faulty = Say(status=500), "server_info"
        assert served.ask(min_p=0.1).status_code == 502
        engine.at_pages, engine.faulty = None, ""
        assert served.ask(min_p=0.1).status_code == 400
        assert served.ask().status_code == 200
    engine.info.pop("enable_deterministic_inference")


def test_an_engine_that_is_not_there_yet_or_again_is_waited_for_by_nobody_and_used_as_soon_as_it_answers(engine):
    """Not there at start; there; gone with its connections; there again."""
    engine.script = GOOD
    engine.refuse()
    with serving(Settings(runtime_url=engine.url)) as served:
        for _ in range(2):
            for cell, answer in asyncio.run(ask_all(str(served.http.base_url), cells(), SECONDS)).items():
                is_told(cell, answer, 503, "engine_unavailable", early=True, heard=False)
            engine.accept()
            asyncio.run(well(served, cells()))
            engine.refuse()
    engine.accept()


def test_an_engine_that_ends_in_the_middle_of_all_answers_is_told_in_each(engine, house):
    engine.script = Reply("Once upon a time there was an end of it all, so they say", delay=0.05)

    async def killed() -> dict[Cell, Answer]:
        asking = asyncio.create_task(ask_all(str(house.http.base_url), cells(), SECONDS))
        await asyncio.to_thread(until, lambda: engine.open >= len(PROGRAMS), 5)
        await asyncio.sleep(0.2)
        await asyncio.to_thread(engine.refuse)
        try:
            return await asking
        finally:
            engine.accept()

    for cell, answer in asyncio.run(killed()).items():
        assert answer.error is None or answer.error["code"] in ("engine_error", "engine_unavailable"), f"{cell}: {answer.raw}"
        assert answer.error or (cell.hears and TOLD_IN_THE_TEXT in answer.text), f"{cell}: {answer.raw}"
        assert answer.ended
    engine.script = GOOD
    asyncio.run(well(house, cells()))


def test_endless_white_space_under_a_schema_ends_with_the_runs_time(engine):
    engine.script = Reply(tuple(" " * 2000), delay=0.005)
    schema = {"type": "json_schema", "name": "x", "schema": {"type": "object", "properties": {"a": {"type": "string"}}}}
    demands: dict[str, Any] = {
        "/v1/chat/completions": {"response_format": {"type": "json_schema", "json_schema": schema}},
        "/v1/responses": {"text": {"format": schema}},
    }
    chats = [cell for cell in cells() if cell.model == "gemma-3n:chat" and cell.route in demands]
    asked = [replace(cell, body=cell.body | demands[cell.route]) for cell in chats]
    with serving(Settings(runtime_url=engine.url, run_timeout=1)) as served:
        answers = asyncio.run(ask_all(str(served.http.base_url), asked, SECONDS))
        assert len(answers) == 4
        for cell, answer in answers.items():
            is_told(cell, answer, 504, "run_timeout", early=False, heard=False)
        until(lambda: engine.open == 0)
        engine.script = Reply("{}")
        assert served.ask().status_code == 200
