"""A client that is slow holds neither the engine nor memory: its head, its body and its reading each have an end."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections.abc import Iterator

import httpx
import pytest
from fault_cells import Cell, ask, cells
from scripted_engine import Hang, Reply, ScriptedEngine
from serving import Served, serving, until, within

from gemma3n_sgl.settings import Settings

pytestmark = pytest.mark.slow

CHAT = b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
SHORT = {"header_timeout": 0.3, "body_timeout": 0.3, "send_timeout": 0.4}
FLOOD = Reply(("w" * 4000 + " ") * 3000)
"""Twelve megabytes: more than the system's buffers hold of it."""


SILENT = Reply(fault=Hang())
SCRIPTS = {
    "before the first token": lambda engine: SILENT,
    "in the middle": lambda engine: Reply("word " * 200, delay=0.05),
    "in a later call": lambda engine: lambda prompt: Reply("Alpha beta.") if len(engine.requests) < 2 else SILENT,
}


@pytest.fixture
def served(scripted: ScriptedEngine) -> Iterator[Served]:
    scripted.incremental = True
    with serving(Settings(runtime_url=scripted.url, **SHORT)) as server:
        yield server


@pytest.fixture(autouse=True)
def no_complaints(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """A slow client is no error of ours."""
    yield
    assert not [record.getMessage() for record in caplog.get_records("call") if record.levelno >= logging.ERROR]


def client_of(served: Served, reads: int = 4096) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, reads)
    client.settimeout(30)
    client.connect(("127.0.0.1", served.port))
    return client


def request(stream: bool) -> bytes:
    body = json.dumps({"model": "gemma-3n", "messages": [{"role": "user", "content": "Hi."}], "stream": stream}).encode()
    return CHAT + b"content-length: %d\r\n\r\n" % len(body) + body


def closed_after(client: socket.socket) -> tuple[float, bytes]:
    """Seconds until the server ends the connection, and what it said before."""
    begin, said = time.monotonic(), b""
    try:
        while piece := client.recv(65536):
            said += piece
    except ConnectionResetError:
        said += b""
    return time.monotonic() - begin, said


def dripped(client: socket.socket, piece: bytes) -> float:
    """Seconds for which the server takes a drop now and then."""
    begin = time.monotonic()
    try:
        while time.monotonic() - begin < 20:
            client.sendall(piece)
            time.sleep(0.02)
    except OSError:
        return time.monotonic() - begin
    return time.monotonic() - begin


# Slow senders


@pytest.mark.parametrize("sent", [b"", b"P", CHAT, CHAT + b"x-more: "], ids=["nothing", "a letter", "half a head", "half a line"])
def test_a_head_that_does_not_come_is_waited_for_no_longer_than_its_time(served: Served, sent: bytes):
    with client_of(served) as client:
        client.sendall(sent)
        assert closed_after(client)[0] < 10


def test_a_head_that_comes_a_byte_at_a_time_is_cut_off_all_the_same(served: Served):
    with client_of(served) as client:
        assert dripped(client, b"P") < 10


def test_a_second_request_on_a_connection_has_the_same_time(served: Served):
    with client_of(served) as client:
        client.sendall(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
        time.sleep(0.5)  # idle, which is no offence
        client.sendall(b"GET /livez HTTP/1.1\r\n")
        assert closed_after(client)[0] < 10


@pytest.mark.parametrize("line", [b"x-a: " + b"a" * 100_000, b"x-a: b\r\n" * 20_000], ids=["one", "many"])
def test_a_head_without_end_is_refused_before_it_fills_the_memory(scripted: ScriptedEngine, line: bytes):
    """By its size, not by its time."""
    with serving(Settings(runtime_url=scripted.url, header_timeout=3600)) as served, client_of(served) as client:
        client.sendall(CHAT + line)
        _, said = closed_after(client)
        assert said[:12] in (b"HTTP/1.1 431", b""), "which a client that goes on sending may not hear"


UPGRADE = b"connection: Upgrade\r\nupgrade: h2c\r\n"


@pytest.mark.parametrize("more", [b"", UPGRADE], ids=["plain", "upgrade"])
def test_a_body_that_goes_on_after_its_refusal_has_an_end(served: Served, more: bytes):
    with client_of(served) as client:
        client.sendall(CHAT + more + b"content-length: 99999999999\r\n\r\n")
        assert client.recv(65536).startswith(b"HTTP/1.1 413")
        assert dripped(client, b" ") < 10


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/audio/transcriptions"])
def test_a_body_that_does_not_come_is_told_408_and_gives_its_place_back(scripted: ScriptedEngine, path: str):
    with serving(Settings(runtime_url=scripted.url, max_runs=1, **SHORT)) as served, client_of(served) as client:
        kind = b"application/json" if "chat" in path else b"multipart/form-data; boundary=x"
        client.sendall(b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-type: %b\r\ncontent-length: 100\r\n\r\n--x" % (path.encode(), kind))
        taken, said = closed_after(client)
        assert said.startswith(b"HTTP/1.1 408") and b"GEMMA3N_BODY_TIMEOUT" in said and b"connection: close" in said
        assert taken < 10
        assert served.ask().status_code == 200


@pytest.mark.parametrize("more", [b"", UPGRADE], ids=["plain", "upgrade"])
def test_a_body_that_drips_is_ended_and_one_that_is_large_has_its_time(served: Served, more: bytes):
    """At 50 kB a second a body may take as long as it is."""
    with client_of(served) as client:
        client.sendall(CHAT + more + b"content-length: 100000\r\n\r\n")
        assert dripped(client, b" ") < 10
    with client_of(served) as client:
        body = request(stream=False).partition(b"\r\n\r\n")[2] + b" " * 120_000
        client.sendall(CHAT + more + b"content-length: %d\r\n\r\n" % len(body))
        for i in range(0, len(body), 15_000):
            client.sendall(body[i : i + 15_000])
            time.sleep(0.1)
        assert client.recv(65536).startswith(b"HTTP/1.1 200"), "in 0.9 s, three times the time for a small one"


# Slow readers


@pytest.mark.parametrize("stream", [True, False], ids=["stream", "plain"])
def test_a_reader_who_stops_is_cut_off_and_frees_the_engine_and_its_place(scripted: ScriptedEngine, stream: bool):
    scripted.incremental = True
    scripted.script = FLOOD
    with serving(Settings(runtime_url=scripted.url, max_runs=1, max_queue=0, **SHORT)) as served, client_of(served) as client:
        client.sendall(request(stream))
        until(lambda: scripted.requests)
        time.sleep(0.2)
        scripted.script = Reply("Hello.")
        until(lambda: served.ask().status_code == 200)
        until(lambda: scripted.open == 0)
        assert b"[DONE]" not in closed_after(client)[1], "what it reads now is what the system still held for it"


def test_a_reader_who_stops_is_noticed_within_an_ordinary_answer(scripted: ScriptedEngine, served: Served):
    """The system would hold megabytes of it, as of one who reads on."""
    scripted.script = Reply("word " * 2000, delay=0.0005)
    with client_of(served) as client:
        client.sendall(request(stream=True))
        until(lambda: scripted.open == 1)
        until(lambda: scripted.open == 0)
        assert scripted.cut == 1


def test_a_reader_who_pauses_for_less_gets_all_of_it(scripted: ScriptedEngine):
    """Nor is the engine blamed for the time in which nobody took what it said."""
    scripted.incremental = True
    scripted.script = FLOOD
    settings = Settings(runtime_url=scripted.url, token_timeout=1, **SHORT | {"send_timeout": 10})
    with serving(settings) as served, client_of(served, reads=2**18) as client:
        client.sendall(request(stream=True))
        time.sleep(1.5)
        said = bytearray()
        while b"[DONE]" not in said[-100:]:
            piece = client.recv(2**20)
            assert piece, "it was cut off"
            said += piece
    assert said.count(b"w" * 4000) == 3000


# Whatever a client asked, and whenever it leaves


@pytest.mark.parametrize("moment", ["before the first token", "in the middle", "in a later call"])
def test_a_client_that_leaves_any_program_at_any_moment_frees_the_engine_within_half_a_second(scripted: ScriptedEngine, moment: str):
    reached = set()
    with serving(Settings(runtime_url=scripted.url)) as served:
        for cell in cells():

            def freed(cell: Cell = cell) -> float:
                scripted.requests.clear()
                scripted.script = SCRIPTS[moment](scripted)
                if asyncio.run(left(served, scripted, cell, 2 if moment == "in a later call" else 1)):
                    reached.add(cell)
                begin = time.monotonic()
                until(lambda: scripted.open == 0)
                return time.monotonic() - begin

            within(0.5, freed)
    assert len(reached) >= (len(cells()) if moment != "in a later call" else 8)


async def left(served: Served, engine: ScriptedEngine, cell: Cell, call: int) -> bool:
    """Ask, and leave during the so many-th call of the engine; whether there was one."""
    async with httpx.AsyncClient(base_url=str(served.http.base_url), timeout=30, verify=False) as client:
        asked = asyncio.ensure_future(ask(client, cell))
        while not asked.done() and not (engine.open and len(engine.requests) >= call):  # noqa: ASYNC110 - the engine is another thread
            await asyncio.sleep(0.01)
        if asked.done():
            return False
        await asyncio.sleep(0.1)
        asked.cancel()
        await asyncio.wait({asked})
        return True
