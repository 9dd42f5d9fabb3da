"""A client that leaves frees the engine within half a second, wherever its request was; and every wait has an end."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from scripted_engine import Hang, Reply, ScriptedEngine
from serving import SHORT, Served, serving, until, within

from gemma3n_sgl.settings import Settings

SLOW = Reply("word " * 200, delay=0.05)
SILENT = Reply(fault=Hang())
PROGRAMS = '''
import sglang as sgl
from gemma3n_sgl import assistant, user

@sgl.function
def sides(s, question: str):
    """Look at it from four sides."""
    s += user(question)
    forks = s.fork(4)
    for i, fork in enumerate(forks):
        fork += assistant(sgl.gen("side"))
    s += assistant(sgl.gen("answer"), " ".join(fork["side"] for fork in forks))

@sgl.function
def choose(s, question: str):
    """Yes or no."""
    s += user(question)
    s += assistant(sgl.select("answer", ["yes", "no"]))

@sgl.function
def steps(s, question: str):
    """One step after the other."""
    for i in range(100):
        s += user(question)
        s += assistant(sgl.gen(f"step{i}"))
    s += assistant(sgl.gen("answer"))
'''


@pytest.fixture
def house(scripted: ScriptedEngine, tmp_path: Path) -> Iterator[Served]:
    """Patient, so that only a client's leaving ends what it asked for."""
    (tmp_path / "extra.py").write_text(PROGRAMS)
    with serving(Settings(runtime_url=scripted.url, programs=(str(tmp_path),))) as served:
        yield served


@contextmanager
def asking(served: Served, model: str = "gemma-3n", content: Any = "Hi.", **fields: Any) -> Iterator[socket.socket]:
    """A client in the middle of a chat request, that leaves at the end of the block."""
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": content}]} | fields).encode()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # so that a client that does not read is felt
        client.settimeout(30)
        client.connect(("127.0.0.1", served.port))
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))
        yield client


@pytest.fixture(autouse=True)
def no_complaints(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A client that leaves is no error, and leaves no task behind that somebody forgot."""
    yield
    assert not [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR]


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
@pytest.mark.parametrize(
    ("model", "script", "generations"),
    [("gemma-3n", SILENT, 1), ("gemma-3n", SLOW, 1), ("gemma-3n:sides", {"": SLOW}, 4), ("gemma-3n:steps", SLOW, 1)],
    ids=["before the first token", "in the middle", "in forks", "in a step"],
)
def test_a_client_that_leaves_frees_the_engine(scripted, house, stream, model, script, generations):

    def left() -> float:
        scripted.script, scripted.cut = script, 0
        with asking(house, model, stream=stream):
            until(lambda: scripted.open == generations)
            time.sleep(0.1)
        begin = time.monotonic()
        until(lambda: scripted.open == 0)
        assert scripted.cut == generations
        return time.monotonic() - begin

    within(0.5, left)
    asked = len(scripted.requests)
    scripted.script = Reply("All is well.")
    assert house.ask().json()["choices"][0]["message"]["content"] == "All is well."
    assert len(scripted.requests) == asked + 1, "what the client left behind goes on no more"


def test_a_client_that_leaves_while_choices_are_scored_frees_the_engine(scripted, house):
    scripted.script = lambda prompt: SILENT if prompt.endswith(("yes", "no")) else Reply()
    with asking(house, "gemma-3n:choose"):
        until(lambda: scripted.open == 1 and len(scripted.requests) == 2)
    until(lambda: scripted.open == 0)


@pytest.mark.parametrize("count", [50, pytest.param(500, marks=pytest.mark.slow)])
def test_many_clients_that_leave_at_once_free_the_engine(scripted, house, count):
    def leave() -> float:
        scripted.script, scripted.cut = {"well": Reply("All is well."), "": SLOW}, 0
        with ExitStack() as clients:
            for _ in range(count):
                clients.enter_context(asking(house, stream=True))
            until(lambda: scripted.open == count)
            start = time.monotonic()
        until(lambda: scripted.open == 0)
        assert scripted.cut == count, "none has come to its own end"
        taken = time.monotonic() - start
        assert house.ask("Is all well?").json()["choices"][0]["message"]["content"] == "All is well."
        return taken

    within(0.5 + count / 500, leave)


def test_a_client_that_leaves_while_its_picture_is_fetched_ends_the_fetching(scripted):
    begun, ended = threading.Event(), threading.Event()

    async def fetch(url: str) -> bytes:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return b""

    picture = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
    with serving(Settings(runtime_url=scripted.url), fetch=fetch) as served:
        with asking(served, content=[picture]):
            assert begun.wait(30)
        assert ended.wait(30)
    assert scripted.requests == []


def test_a_client_that_leaves_in_the_middle_of_its_own_request_is_no_error(scripted, house):
    with socket.create_connection(("127.0.0.1", house.port)) as client:
        client.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000\r\n\r\n{")
        time.sleep(0.1)
    assert house.ask().status_code == 200
    assert len(scripted.requests) == 1


def test_a_client_that_reads_nothing_delays_nobody(scripted, house):
    scripted.incremental = True
    scripted.script = Reply("word " * 3000)
    with asking(house, stream=True):
        until(lambda: scripted.open == 1)
        scripted.script = Reply("Hello.")
        assert house.ask().status_code == 200


# Deadlines


def test_an_engine_that_is_slow_but_never_silent_is_listened_to_the_end(scripted, served):
    scripted.script = Reply("one two three four five", delay=SHORT["token_timeout"] / 4)
    assert served.ask().json()["choices"][0]["message"]["content"] == "one two three four five"


@pytest.mark.parametrize("stream", [False, True], ids=["plain", "stream"])
def test_a_run_has_an_end_even_when_every_call_of_it_is_in_time(scripted, tmp_path, stream):
    (tmp_path / "extra.py").write_text(PROGRAMS)
    scripted.script = Reply("a b", delay=0.02)
    with serving(Settings(runtime_url=scripted.url, programs=(str(tmp_path),), run_timeout=0.4)) as served:
        text = served.ask(model="gemma-3n:steps", stream=stream).text
    assert '"code":"run_timeout"' in text
    until(lambda: scripted.open == 0)


@pytest.fixture
def deaf() -> Iterator[str]:
    """An address that takes connections and never answers, as of an engine whose process is stopped."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture
def full(deaf: str) -> Iterator[str]:
    """An address that does not even take connections any more."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        for _ in range(4):
            waiting.append(socket.socket())
            waiting[-1].setblocking(False)
            waiting[-1].connect_ex(listener.getsockname())
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        for client in waiting:
            client.close()


def test_an_engine_that_takes_connections_and_never_answers_is_too_late(deaf, monkeypatch):
    monkeypatch.setattr("gemma3n_sgl.endpoint.INFO_TIMEOUT", 0.3)
    with serving(Settings(runtime_url=deaf, **SHORT)) as served:
        assert served.http.get("/health").status_code == 503
        answer = served.ask()
        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "engine_timeout")
        assert served.http.get("/livez").status_code == 200


def test_an_engine_that_takes_no_connections_is_unavailable(full):
    with serving(Settings(runtime_url=full, **SHORT)) as served:
        answer = served.ask()
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_unavailable")
        assert answer.headers["retry-after"]


# An engine that comes and goes


def test_an_engine_that_is_not_there_is_said_so_until_it_comes(scripted, served):
    scripted.refuse()
    answer = served.ask()
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "engine_unavailable")
    assert answer.headers["retry-after"] == served.http.get("/health").headers["retry-after"]
    assert served.http.get("/health").status_code == 503
    scripted.accept()
    assert served.http.get("/health").status_code == 200
    assert served.ask().status_code == 200


def test_an_engine_that_is_loading_is_unavailable_until_it_has_loaded(scripted, served):
    scripted.loading = True
    assert served.ask().json()["error"]["code"] == "engine_unavailable"
    scripted.loading = False
    assert served.ask().status_code == 200


def test_an_engine_killed_during_streams_ends_them_all_and_the_next_is_answered(scripted, house):
    scripted.script = SLOW
    with asking(house, stream=True) as one, asking(house, stream=True) as other, asking(house) as plain:
        until(lambda: scripted.open == 3)
        assert b"word" in one.recv(4096) + one.recv(4096)
        scripted.refuse()
        for client in (one, other):
            assert b'"code":"engine_error"' in _rest(client)
        assert plain.recv(4096).startswith(b"HTTP/1.1 502")
    assert house.ask().status_code == 503
    scripted.script = Reply("Back again.")
    scripted.accept()
    assert house.ask().status_code == 200


def test_connections_that_the_engine_closed_while_idle_cost_no_request(scripted, house):
    for _ in range(5):
        assert house.ask().status_code == 200
        scripted.refuse()
        scripted.accept()
    assert scripted.connections >= 5


def _rest(client: socket.socket) -> bytes:
    data = b""
    while b"[DONE]" not in data:
        piece = client.recv(65536)
        assert piece, "the stream ended without [DONE]"
        data += piece
    return data
