"""However the engine fails, the client is told in OpenAI's terms, within the deadlines, and the next good request is answered."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from scripted_engine import Die, Hang, Reply, Say, ScriptedEngine
from serving import Served, serving, until

from gemma3n_sgl.settings import Settings

INNER = "/models/inner.py"
"""Stands in every message of the engine here, and must not reach a client."""


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def page(status: int, body: Any) -> Say:
    return Say(data=json.dumps(body).encode(), status=status)


def said(text: Any = "Hi", finish: Any = None, **meta: Any) -> dict[str, Any]:
    """An event as the engine would send it, but for what a test puts into it."""
    return {"text": text, "output_ids": [1], "meta_info": {"finish_reason": finish, "prompt_tokens": 1, "completion_tokens": 1} | meta}


TOO_LONG = "The input (9000 tokens) is longer than the model's context length (4096 tokens)."
STOP = {"type": "stop", "matched": 106}

INSTEAD_OF_HEADERS = {
    "it closes the connection": (Die(), 502, "engine_error"),
    "it is silent": (Hang(), 504, "engine_timeout"),
    "500 in plain text": (Say(data=INNER.encode(), status=500, content_type="text/plain"), 502, "engine_error"),
    "400 with an object": (page(400, {"error": {"message": INNER}}), 400, "invalid_value"),
    "400 with a string": (page(400, {"error": f"Unexpected keyword argument {INNER}"}), 400, "invalid_value"),
    "400 flat": (page(400, {"object": "error", "message": INNER}), 400, "invalid_value"),
    "400 without a word": (Say(status=400), 400, "invalid_value"),
    "400 with null": (page(400, None), 400, "invalid_value"),
    "400 with a list": (page(400, [INNER]), 400, "invalid_value"),
    "400 too long": (page(400, {"error": {"message": TOO_LONG}}), 400, "context_length_exceeded"),
    "401": (page(401, {"error": "Unauthorized"}), 502, "engine_error"),
    "404, being another server": (page(404, {"detail": "Not Found"}), 502, "engine_error"),
    "405, being another server": (page(405, {"detail": "Method Not Allowed"}), 502, "engine_error"),
    "429": (Say(status=429), 429, "overloaded"),
    "503": (Say(status=503), 503, "engine_unavailable"),
    "a page that is no stream": (Say(data=b"<html>Welcome</html>", content_type="text/html"), 502, "engine_error"),
    "not HTTP": (Say(data=b"", status=99), 502, "engine_error"),
}

INSTEAD_OF_TOKENS = {
    "the socket closes": (Die(0), 502, "engine_error"),
    "silence": (Hang(0), 504, "engine_timeout"),
    "an error": (Say(0, event({"error": {"message": INNER, "type": "X", "code": 500, "retryable": False}})), 502, "engine_error"),
    "an error of ours": (Say(0, event({"error": {"message": INNER, "code": 400}})), 400, "invalid_value"),
    "an error for length": (Say(0, event({"error": {"message": TOO_LONG, "code": 400}})), 400, "context_length_exceeded"),
    "an error in a word": (Say(0, event({"error": INNER})), 502, "engine_error"),
    "an error without a word": (Say(0, event({"error": None})), 502, "engine_error"),
    "an error whose code is a word": (Say(0, event({"error": {"message": INNER, "code": "bad"}})), 502, "engine_error"),
    "an abort": (Say(0, event(said("", finish={"type": "abort", "message": INNER}))), 502, "engine_error"),
    "an abort with a status": (Say(0, event(said("", finish={"type": "abort", "message": INNER, "status_code": 400}))), 400, "invalid_value"),
    "an abort with a status in words": (Say(0, event(said("", finish={"type": "abort", "status_code": "BAD"}))), 502, "engine_error"),
    "[DONE] alone": (Say(0, b""), 502, "engine_error"),
    "half a line": (Say(0, b'data: {"text": "Hi", "meta'), 502, "engine_error"),
    "garbage": (Say(0, b"\xff\xfe\x00garbage\n\n"), 502, "engine_error"),
    "garbage as an event": (Say(0, b"data: \xff\xfe\x00\n\n"), 502, "engine_error"),
    "a list": (Say(0, event([1])), 502, "engine_error"),
    "null": (Say(0, event(None)), 502, "engine_error"),
    "an empty object": (Say(0, event({})), 502, "engine_error"),
    "a number for text": (Say(0, event(said(5, STOP))), 502, "engine_error"),
    "null for text": (Say(0, event(said(None, STOP))), 502, "engine_error"),
    "a list for text": (Say(0, event(said(["Hi"], STOP))), 502, "engine_error"),
    "null for meta_info": (Say(0, event(said() | {"meta_info": None})), 502, "engine_error"),
    "a list for meta_info": (Say(0, event(said() | {"meta_info": []})), 502, "engine_error"),
    "a word for finish_reason": (Say(0, event(said("", finish="stop"))), 502, "engine_error"),
    "no finish_reason": (Say(0, event(said(""))), 502, "engine_error"),
    "words for counts": (Say(0, event(said("", finish=STOP, prompt_tokens="many"))), 502, "engine_error"),
    "a list for a count": (Say(0, event(said("", finish=STOP, completion_tokens=[1]))), 502, "engine_error"),
    "NaN for a count": (Say(0, event(said("", finish=STOP, prompt_tokens=float("nan")))), 502, "engine_error"),
    "text that is not Unicode": (Say(0, b'data: {"text": "\\ud800", "meta_info": {}}\n\n'), 502, "engine_error"),
}

AFTER_TWO_TOKENS = {
    "the socket closes": (Die(2), 502, "engine_error"),
    "silence": (Hang(2), 504, "engine_timeout"),
    "an error": (Say(2, event({"error": {"message": INNER, "code": 500}})), 502, "engine_error"),
    "half a line": (Say(2, b'data: {"text": "Hi'), 502, "engine_error"),
    "garbage": (Say(2, b"data: \xff\x00\n\n"), 502, "engine_error"),
    "[DONE]": (Say(2, b""), 502, "engine_error"),
    "wrong types": (Say(2, event(said(5))), 502, "engine_error"),
    "another type of ids": (Say(2, event(said() | {"output_ids": 7})), 502, "engine_error"),
    "an abort": (Say(2, event(said(finish={"type": "abort", "message": INNER}))), 502, "engine_error"),
}


@pytest.fixture(scope="module")
def engine() -> Iterator[ScriptedEngine]:
    scripted = ScriptedEngine().start()
    yield scripted
    scripted.stop()


@pytest.fixture(scope="module")
def patient(engine: ScriptedEngine) -> Iterator[Served]:
    with serving(Settings(runtime_url=engine.url)) as served:
        yield served


@pytest.fixture(scope="module")
def hasty(engine: ScriptedEngine) -> Iterator[Served]:
    with serving(Settings(runtime_url=engine.url, first_token_timeout=0.7, token_timeout=0.7)) as served:
        yield served


@pytest.fixture
def house(patient: Served, hasty: Served, fault: Any) -> Served:
    """Short deadlines only where the engine is silent: no other fault is to be told as a late answer on a busy machine."""
    return hasty if isinstance(fault, Hang) else patient


def table(faults: dict[str, Any]) -> Any:
    return pytest.mark.parametrize(("fault", "status", "code"), faults.values(), ids=faults)


def answers_again(engine: ScriptedEngine, house: Served) -> None:
    engine.script = Reply("All is well.")
    assert house.ask().json()["choices"][0]["message"]["content"] == "All is well."
    until(lambda: engine.open == 0)


def error_of(response: httpx.Response, status: int, code: str) -> None:
    """The response is OpenAI's error object, and says nothing of the engine's inside."""
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code), response.text
    assert error.keys() == {"message", "type", "param", "code"}
    assert error["message"][0].isupper() and error["message"].endswith(".")
    assert INNER not in response.text
    assert response.headers["x-request-id"]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@table(INSTEAD_OF_HEADERS | {f"then {name}": fault for name, fault in INSTEAD_OF_TOKENS.items()})
def test_what_fails_before_the_first_token_has_its_own_status(engine, house, stream, fault, status, code):
    engine.script = Reply(fault=fault)
    before = len(engine.requests)
    error_of(house.ask(stream=stream), status, code)
    assert len(engine.requests) == before + 1, "asked once"
    answers_again(engine, house)


@pytest.mark.parametrize("incremental", [False, True], ids=["cumulative", "incremental"])
@table(AFTER_TWO_TOKENS)
def test_what_fails_in_the_middle_is_told_in_the_stream_and_not_tried_again(engine, house, incremental, fault, status, code):
    engine.incremental = incremental
    heard = threading.Event()
    engine.script = Reply("Once upon a time there was", fault=fault, held=heard)
    before = len(engine.requests)
    frames = [line.removeprefix("data: ") for line in house.ask_and(heard.set, "Once").split("\n\n") if line]
    *chunks, error, done = frames
    text = "".join(json.loads(chunk)["choices"][0]["delta"].get("content", "") for chunk in chunks)
    assert text.startswith("Once")
    assert json.loads(error)["error"]["code"] == code
    assert INNER not in error
    assert done == "[DONE]"
    assert len(engine.requests) == before + 1, "not tried again"
    error_of(house.ask(), status, code)
    engine.incremental = False
    answers_again(engine, house)


SCORED = {"finish_reason": {"type": "length", "length": 0}, "prompt_tokens": 3}
CHOOSE = '''
"""Choose."""
import sglang as sgl
from gemma3n_sgl import assistant, user

@sgl.function
def choose(s, question: str):
    """Yes or no."""
    s += user(question)
    s += assistant(sgl.select("answer", ["yes", "no"]))
'''


@pytest.mark.parametrize(
    "reply",
    [
        Reply("yes", logprob=None),
        Reply(fault=Say(0, event(said("", STOP) | {"index": 0}))),
        Reply(fault=Say(0, event({"text": "", "index": 0, "meta_info": SCORED}) + event({"text": "", "index": 1, "meta_info": SCORED}))),
        Reply(fault=Say(0, event({"text": "", "index": [0], "meta_info": SCORED}))),
        Reply(meta={"input_token_logprobs": [[-1, 5, "yes"]], "prompt_tokens": "many"}),
        Reply(meta={"input_token_logprobs": 7}),
        Reply(meta={"input_token_logprobs": []}),
        Reply(meta={"input_token_logprobs": [["likely", 5, "yes"]]}),
    ],
    ids=["NaN", "one score for two", "no scores", "odd index", "words for counts", "a number for scores", "empty scores", "words for scores"],
)
def test_choices_that_the_engine_can_not_score_are_its_failure(scripted, tmp_path, reply):
    (tmp_path / "choose.py").write_text(CHOOSE)
    scripted.script = Reply("yes")
    with serving(Settings(runtime_url=scripted.url, programs=(str(tmp_path),))) as served:
        assert served.ask(model="gemma-3n:choose").json()["choices"][0]["message"]["content"] == "yes"
        scripted.script = reply
        error_of(served.ask(model="gemma-3n:choose"), 502, "engine_error")


@pytest.mark.parametrize("info", [[], {}, {"served_model_name": 5}, {"preferred_sampling_params": "hot"}, {"preferred_sampling_params": [1]}])
def test_an_engine_that_says_odd_things_of_itself_is_used_all_the_same(scripted, served, info):
    scripted.info = info
    assert [served.http.get(path).status_code for path in ("/health", "/v1/models", "/v1/models/gemma-3n")] == [200, 200, 200]
    assert served.ask().status_code == 200


def test_a_bug_of_ours_costs_one_answer_and_is_in_the_log_by_its_request_id(scripted, caplog):
    async def fetch(url: str) -> bytes:
        raise ZeroDivisionError(INNER)

    picture = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
    with serving(Settings(runtime_url=scripted.url), fetch=fetch) as served:
        for _ in range(3):
            answer = served.ask([picture])
            error_of(answer, 500, "program_error")
            assert answer.headers["x-should-retry"] == "false"
            until(lambda request_id=answer.headers["x-request-id"]: request_id in caplog.text)
            assert served.ask().status_code == 200, "on the same connection"


def test_nobody_is_sent_elsewhere_with_the_engines_key(scripted):
    scripted.script = Reply("Elsewhere.")
    here = ScriptedEngine(Reply(fault=Say(status=307, content_type=f"text/plain\r\nlocation: {scripted.url}/generate"))).start()
    with serving(Settings(runtime_url=here.url, runtime_api_key="secret")) as served:
        error_of(served.ask(), 502, "engine_error")
    here.stop()
    assert scripted.paths == []


def test_a_probability_that_is_no_number_is_the_engines_failure(scripted, served):
    meta = {"output_token_logprobs": [[float("nan"), 5, "Hi"]], "output_token_logprobs_length": 1}
    scripted.script = Reply(fault=Say(0, event(said("Hi", STOP, **meta))))
    error_of(served.ask(logprobs=True), 502, "engine_error")
    scripted.script = Reply("Hi")
    assert served.ask(logprobs=True).status_code == 200
