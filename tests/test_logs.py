"""The log: a line for each request that says what became of it, and nothing of what clients sent."""

from __future__ import annotations

import base64
import io
import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sglang as sgl
from scripted_engine import Die, Hang, Reply, ScriptedEngine
from serving import SHORT, Served, serving, until

from gemma3n_sgl import Image, user
from gemma3n_sgl.program import Program
from gemma3n_sgl.registry import Registry
from gemma3n_sgl.serving.logs import Lines
from gemma3n_sgl.settings import Settings

CHAT = "/v1/chat/completions"
SECRET = "xyzzy"
"""Whatever clients send holds it."""

PIXEL = base64.b64encode((Path(__file__).parent / "media" / "red-circle.png").read_bytes()).decode()

Log = Callable[..., Any]


@sgl.function
def clumsy(s: Any, text: str) -> None:
    """Fails in words that quote its input."""
    s += user(text)
    raise KeyError(text)


class Written:
    """What the log has so far."""

    def __init__(self, stream: io.StringIO) -> None:
        self._stream = stream

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    def requests(self) -> list[dict[str, Any]]:
        """The lines about requests, which are JSON here."""
        return [line for line in map(json.loads, self.text.splitlines()) if line["logger"] == "gemma3n.requests"]


@pytest.fixture
def logged() -> Iterator[Callable[..., Written]]:
    """`logged(as_json=…, with_content=…)` begins to write the log."""
    logger, stream = logging.getLogger("gemma3n"), io.StringIO()
    handler, level = logging.StreamHandler(stream), logger.level

    def begin(*, as_json: bool = True, with_content: bool = False) -> Written:
        handler.setFormatter(Lines(as_json=as_json, with_content=with_content))
        logger.addHandler(handler)
        logger.setLevel("INFO")
        return Written(stream)

    yield begin
    logger.removeHandler(handler)
    logger.setLevel(level)


def with_clumsy() -> Registry:
    registry = Registry.discover()
    registry.programs["clumsy"] = Program.of(clumsy, file_doc=None)
    return registry


def secrets_in_every_way(served: Served) -> None:
    """Requests that end well and badly, with a secret wherever a client can put one."""
    picture = [{"type": "text", "text": SECRET}, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}]
    served.ask(SECRET)
    served.ask(SECRET, stream=True)
    served.ask(picture)  # type: ignore[arg-type]
    served.ask(SECRET, model="gemma-3n:clumsy")
    served.ask(SECRET, model="gemma-3n:clumsy", stream=True)
    served.ask(SECRET, temperature=SECRET)
    served.ask([{"type": "image_url", "image_url": {"url": f"http://127.0.0.1/{SECRET}.png"}}])  # type: ignore[arg-type]
    served.http.post(CHAT, content=f'{{"{SECRET}'.encode())
    served.http.post(CHAT, params={"token": SECRET}, json={"model": "gemma-3n", "messages": [{"role": "user", "content": SECRET}]})
    served.http.get("/v1/models", headers={"authorization": f"Bearer {SECRET}"})


@pytest.mark.parametrize("as_json", [True, False])
def test_nothing_that_a_client_sends_is_logged(scripted: ScriptedEngine, logged: Log, as_json: bool):
    """Neither prompts nor answers, nor queries, nor keys, right or wrong; not even in the words of an unexpected error."""
    written = logged(as_json=as_json)
    scripted.script = Reply(f"{SECRET}, said the engine")
    with serving(Settings(runtime_url=scripted.url, api_keys=("right-key",), **SHORT), registry=with_clumsy()) as served:
        secrets_in_every_way(served)
    assert SECRET not in written.text and "right-key" not in written.text and PIXEL[:40] not in written.text
    assert written.text.count(CHAT) == 9 and "KeyError" in written.text and "raise KeyError(text)" in written.text


def test_prompts_and_answers_are_logged_if_the_operator_asks_for_them(scripted: ScriptedEngine, logged: Log):
    written = logged(with_content=True)
    scripted.script = Reply("Grass is green.")
    with serving(Settings(runtime_url=scripted.url, log_content=True)) as served:
        served.ask("What is green?")
    assert [(line["prompt"], line["answers"]) for line in written.requests()] == [("What is green?", ["Grass is green."])]


def test_a_line_tells_what_was_asked_what_it_cost_and_how_long_it_took(scripted: ScriptedEngine, logged: Log):
    written = logged()
    scripted.script = Reply("A red circle.", delay=0.02)
    parts = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PIXEL}"}}]
    with serving(Settings(runtime_url=scripted.url, api_keys=("k",))) as served:
        served.http.headers["x-request-id"] = "mine"
        answer = served.ask(parts)  # type: ignore[arg-type]
    [line] = written.requests()
    usage = answer.json()["usage"]
    assert line["tokens"]["prompt"] == usage["prompt_tokens"] and line["tokens"]["completion"] == usage["completion_tokens"]
    assert 0 <= line["seconds"]["queue"] < line["seconds"]["first_token"] < line["seconds"]["total"]
    told = {name: line[name] for name in ("level", "id", "method", "path", "status", "outcome", "model", "program", "key", "images")}
    assert told == {
        "level": "info", "id": "mine", "method": "POST", "path": CHAT, "status": 200, "outcome": "ok",
        "model": "gemma-3n", "program": "vision", "key": "8254c329", "images": 1,
    }  # fmt: skip


def test_an_error_within_a_stream_is_one_in_the_log_though_http_has_said_200(scripted: ScriptedEngine, logged: Log):
    written = logged()
    heard = threading.Event()
    scripted.script = Reply("Once upon a time", fault=Die(after=2), held=heard)
    with serving(Settings(runtime_url=scripted.url)) as served:
        served.ask_and(heard.set, "Once")
    assert [(line["status"], line["outcome"], line["error"]) for line in written.requests()] == [(200, "error", "engine_error")]


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_is_told_from_one_that_was_answered(scripted: ScriptedEngine, logged: Log, stream: bool):
    written = logged()
    scripted.script = Reply("Once upon", fault=Hang(after=1))
    with serving(Settings(runtime_url=scripted.url)) as served:
        body = json.dumps({"model": "gemma-3n", "messages": [{"role": "user", "content": "Hi."}], "stream": stream}).encode()
        with socket.create_connection(("127.0.0.1", served.port)) as client:
            client.sendall(b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body))
            until(lambda: scripted.open, 5)
        until(lambda: written.requests(), 5)
    assert [line["outcome"] for line in written.requests()] == ["client_gone"]


def test_a_bug_is_logged_once_with_its_traceback_and_the_id_that_the_client_is_told(
    scripted: ScriptedEngine, logged: Log, monkeypatch: pytest.MonkeyPatch
):
    def buggy(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError(SECRET)

    monkeypatch.setattr("gemma3n_sgl.shell.running.run", buggy)
    written = logged()
    with serving(Settings(runtime_url=scripted.url)) as served:
        answer = served.ask()
    lines = [json.loads(line) for line in written.text.splitlines()]
    [bug] = [line for line in lines if "traceback" in line]
    assert bug["level"] == "error" and bug["traceback"].endswith("ZeroDivisionError") and "in buggy" in bug["traceback"]
    assert bug["id"] == answer.headers["x-request-id"] and answer.status_code == 500
    assert "ZeroDivision" not in answer.text and "server.py" not in answer.text
    assert [(line["outcome"], line["id"]) for line in written.requests()] == [("error", bug["id"])]


def test_an_error_that_is_its_own_cause_is_logged_and_keeps_nobody():
    try:
        raise_from_itself()
    except KeyError as error:
        told = Lines(as_json=False, with_content=False)._trace(error)
    assert told.count("KeyError") == 1


def raise_from_itself() -> None:
    try:
        {}["x"]
    except KeyError as error:
        raise error from error


@pytest.mark.parametrize("model", ["x\n2026-01-01T00:00:00.000Z info    POST / 200 ok", "\x1b[2J", "x" * 100_000])
@pytest.mark.parametrize("as_json", [True, False])
def test_no_client_can_write_lines_of_its_own_into_the_log(
    scripted: ScriptedEngine, logged: Log, model: str, as_json: bool, caplog: pytest.LogCaptureFixture
):
    written = logged(as_json=as_json)
    with serving(Settings(runtime_url=scripted.url)) as served:
        served.ask(model=model)
        served.http.get("/%0a%1b[2J" + "y" * 1000)
    assert len(written.text.splitlines()) == len(caplog.records) >= 2 and "\x1b" not in written.text
    assert max(map(len, written.text.splitlines())) < 1500


def test_what_machines_ask_every_few_seconds_is_told_only_where_it_fails(scripted: ScriptedEngine, logged: Log):
    written = logged()
    with serving(Settings(runtime_url=scripted.url, **SHORT)) as served:
        for path in ("/health", "/livez", "/metrics"):
            served.http.get(path)
        assert written.text == ""
        scripted.refuse()
        served.http.get("/health")
    assert [(line["path"], line["status"]) for line in written.requests()] == [("/health", 503)]


def exchange(served: Served, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", served.port)) as client:
        client.sendall(sent)
        return client.recv(65536)


def test_what_is_no_request_is_one_plain_line_that_says_whose_it_was(scripted: ScriptedEngine, logged: Log, caplog: pytest.LogCaptureFixture):
    written = logged()
    with serving(Settings(runtime_url=scripted.url)) as served:
        assert exchange(served, b"\x16\x03\x01 " + SECRET.encode() + b"\r\n\r\n").startswith(b"HTTP/1.1 400")
        until(lambda: written.text, 5)
    [line] = [line for line in map(json.loads, written.text.splitlines()) if "no HTTP request" in line.get("message", "")]
    assert (line["level"], line["logger"]) == ("info", "gemma3n") and "127.0.0.1" in line["message"] and SECRET not in written.text
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]


def test_a_request_to_speak_websocket_is_a_request_like_any_other(scripted: ScriptedEngine, logged: Log, caplog: pytest.LogCaptureFixture):
    """Nobody is advised to install what would not help."""
    written = logged()
    head = b"GET /v1/models HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\r\n"
    with serving(Settings(runtime_url=scripted.url)) as served:
        assert exchange(served, head).startswith(b"HTTP/1.1 200")
        until(lambda: written.text, 5)
    assert [(line["path"], line["status"]) for line in written.requests()] == [("/v1/models", 200)]
    assert not [record for record in caplog.records if record.name.startswith("uvicorn")]


def test_a_picture_is_logged_by_its_size_alone():
    """With GEMMA3N_LOG_CONTENT a prompt holds pictures in words."""
    assert str(Image(b"secret bytes", width=2, height=1, media_type="image/png")).count("secret") == 0
