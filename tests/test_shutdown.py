"""The end of a server loses nothing: what is under way is finished or told, nothing new is begun, and nothing is left in the log."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import PIL.Image
import psutil
import pytest
from scripted_engine import Reply, ScriptedEngine
from serving import until

from gemma3n_sgl.serving.closing import Closing
from gemma3n_sgl.serving.connection import config_of
from gemma3n_sgl.serving.ending import Server
from gemma3n_sgl.settings import Settings
from server import create_app

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
BODY = {"model": "gemma-3n", "messages": [{"role": "user", "content": "Hi."}]}
CHAT = "/v1/chat/completions"
LONG = Reply("word " * 400, delay=0.05)


class Process:
    """`gemma3n serve` as an operator starts it."""

    def __init__(self, engine: ScriptedEngine, log: Path, port: int = 0, **settings: Any) -> None:
        env = os.environ | {f"GEMMA3N_{name.upper()}": str(value) for name, value in settings.items()}
        command = [sys.executable, str(ROOT / "cli.py"), "serve", "--port", str(port), "--runtime-url", engine.url]
        self.log = log
        with log.open("a") as output:
            self.process = subprocess.Popen(command, env=env, cwd=ROOT, stdout=output, stderr=output)
        until(lambda: "Try it: " in log.read_text())
        self.port = int(log.read_text().split("http://127.0.0.1:")[1].split("/v1")[0])
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=30, verify=False)

    def told(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def ended(self, seconds: float = 30) -> int:
        return self.process.wait(seconds)


Start = Callable[..., Process]


@pytest.fixture
def start(scripted: ScriptedEngine, tmp_path: Path) -> Iterator[Start]:
    """Starts servers; at the end none may have left a traceback or an error in its log."""
    started: list[Process] = []

    def begin(**settings: Any) -> Process:
        started.append(Process(scripted, tmp_path / f"{len(started)}.log", **settings))
        return started[-1]

    yield begin
    for each in started:
        each.http.close()
        if each.process.poll() is None:
            each.process.kill()
            each.process.wait()
        said = each.log.read_text()
        assert "Traceback" not in said and "Error" not in said and "ERROR" not in said, said


def refuses(port: int) -> bool:
    """Whether nobody takes connections there any more."""
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) != 0


def streaming(server: Process, into: list[str], begun: threading.Event) -> None:
    """Read a stream to its end, however it comes."""
    with httpx.Client(base_url=server.http.base_url, timeout=30) as client, client.stream("POST", CHAT, json=BODY | {"stream": True}) as answer:
        for line in answer.iter_lines():
            begun.set()
            into.append(line)


def in_the_middle(server: Process, pool: ThreadPoolExecutor, count: int) -> tuple[list[list[str]], list[Any]]:
    """So many streams under way: what each has said, and what is done when it has ended."""
    said: list[list[str]] = [[] for _ in range(count)]
    begun = [threading.Event() for _ in range(count)]
    ends = [pool.submit(streaming, server, lines, event) for lines, event in zip(said, begun, strict=True)]
    assert all(event.wait(30) for event in begun)
    return said, ends


def test_streams_under_way_are_finished_and_the_server_ends_with_0(scripted: ScriptedEngine, start: Start):
    server = start()
    scripted.script = Reply("word " * 40, delay=0.05)
    with ThreadPoolExecutor() as pool:
        said, ends = in_the_middle(server, pool, 5)
        plain = pool.submit(lambda: httpx.post(f"{server.http.base_url}{CHAT}", json=BODY, timeout=20))
        until(lambda: scripted.open == 6)
        server.told()
        until(lambda: refuses(server.port))
        for end in ends:
            end.result(20)
        assert plain.result(20).status_code == 200 and plain.result().headers["connection"] == "close"
    assert all(lines[-2] == "data: [DONE]" and "error" not in "".join(lines) for lines in said)
    assert server.ended() == 0


def test_streams_that_take_too_long_are_told_so_and_then_end(scripted: ScriptedEngine, start: Start):
    server = start(shutdown_timeout=0.5)
    scripted.script = LONG
    with ThreadPoolExecutor() as pool:
        said, ends = in_the_middle(server, pool, 5)
        plain = pool.submit(lambda: httpx.post(f"{server.http.base_url}{CHAT}", json=BODY, timeout=20))
        until(lambda: scripted.open == 6)
        begin = time.monotonic()
        server.told()
        for end in ends:
            end.result(30)
        assert (plain.result(20).status_code, plain.result().json()["error"]["code"]) == (503, "shutting_down")
        assert plain.result().headers["retry-after"] == "1"
        assert server.ended() == 0 and time.monotonic() - begin < 15, "of the 20 s that they would have taken"
    for lines in said:
        *_, error, _, done, _ = lines
        assert done == "data: [DONE]" and json.loads(error.removeprefix("data: "))["error"]["code"] == "shutting_down"
    until(lambda: scripted.open == 0)


def test_those_that_still_wait_for_a_place_or_send_their_body_are_told_so(scripted: ScriptedEngine, start: Start):
    server = start(shutdown_timeout=0.5, max_runs=1)
    scripted.script = LONG
    half = json.dumps(BODY).encode()
    with ThreadPoolExecutor() as pool, socket.create_connection(("127.0.0.1", server.port), timeout=20) as slow:
        _, ends = in_the_middle(server, pool, 1)
        slow.sendall(b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n" % (CHAT.encode(), len(half)) + half[:9])
        url = f"{server.http.base_url}{CHAT}"
        waiting = [pool.submit(httpx.post, url, json=BODY | {"stream": stream}, timeout=20) for stream in (False, True)]
        until(lambda: "gemma3n_queue_depth 3.0" in server.http.get("/metrics").text)
        server.told()
        for answer in waiting:
            assert (answer.result(20).status_code, answer.result().json()["error"]["code"]) == (503, "shutting_down")
        assert b"503" in slow.recv(4000).partition(b"\r\n")[0]
        for end in ends:
            end.result(20)
    assert server.ended() == 0 and len(scripted.requests) == 1, "none of them is begun"


@pytest.mark.parametrize(("first", "second", "status"), [(signal.SIGTERM, signal.SIGTERM, 0), (signal.SIGINT, signal.SIGINT, 130)])
def test_a_second_signal_ends_it_at_once(scripted: ScriptedEngine, start: Start, first: int, second: int, status: int):
    server = start(shutdown_timeout=60)
    scripted.script = LONG
    with ThreadPoolExecutor() as pool:
        _, ends = in_the_middle(server, pool, 5)
        server.told(first)
        time.sleep(0.5)
        assert server.process.poll() is None
        begin = time.monotonic()
        server.told(second)
        assert server.ended() == status and time.monotonic() - begin < 15, "of the 20 s that they would have taken"
        for end in ends:
            end.exception(5)
    until(lambda: scripted.open == 0)


def slow_picture() -> str:
    """A JPEG that takes seconds to decode: a hundred passes over 25 megapixels of white."""
    out = io.BytesIO()
    PIL.Image.new("L", (5000, 5000), "white").save(out, "JPEG", progressive=True)
    whole, scan = out.getvalue(), out.getvalue().rindex(b"\xff\xda")
    repeated = whole[:-2] + whole[scan:-2] * (100 - whole.count(b"\xff\xda")) + whole[-2:]
    return f"data:;base64,{base64.b64encode(repeated).decode()}"


def test_a_second_signal_waits_for_no_picture_that_is_being_decoded(start: Start):
    server = start(decode_timeout=60)
    content = [{"type": "image_url", "image_url": {"url": slow_picture()}}] * 4
    body = BODY | {"messages": [{"role": "user", "content": content}]}
    with ThreadPoolExecutor() as pool:
        asking = pool.submit(lambda: server.http.post(CHAT, json=body))
        until(lambda: any("media.worker" in " ".join(child.cmdline()) for child in psutil.Process(server.process.pid).children()), 10)
        time.sleep(1)
        for _ in range(2):
            server.told()
            time.sleep(0.2)
        begin = time.monotonic()
        assert server.ended(20) == 0 and time.monotonic() - begin < 2.5
        assert asking.exception(5) or asking.result().json()["error"]["code"] == "shutting_down"


def test_a_balancer_is_told_before_the_door_is_closed(scripted: ScriptedEngine, start: Start):
    server = start(shutdown_delay=3)
    assert server.http.get("/health").status_code == 200
    server.told()
    until(lambda: server.http.get("/health").status_code == 503)
    assert not refuses(server.port)
    assert server.http.get("/livez").status_code == 200
    answer = server.http.post(CHAT, json=BODY)
    assert answer.status_code == 200 and answer.headers["connection"] == "close", "until then all is answered"
    assert server.ended() == 0


def test_a_reader_who_has_stopped_does_not_keep_the_server(scripted: ScriptedEngine, start: Start):
    server = start(shutdown_timeout=0.5)
    scripted.incremental = True
    scripted.script = Reply(("w" * 2000 + " ") * 3000)
    body = json.dumps(BODY | {"stream": True}).encode()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(("127.0.0.1", server.port))
        client.sendall(b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body))
        until(lambda: scripted.open == 1)
        time.sleep(0.5)
        server.told()
        assert server.ended() == 0


def asked(client: socket.socket) -> bytes:
    body = json.dumps(BODY).encode()
    client.settimeout(20)
    client.sendall(b"POST %b HTTP/1.1\r\nhost: localhost\r\ncontent-length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body))
    return client.recv(65536)


def test_a_client_that_has_connected_and_not_yet_asked_is_answered(scripted: ScriptedEngine, start: Start):
    server = start(shutdown_delay=0.1)
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        server.told()
        until(lambda: not connects(server.port))
        assert asked(client).startswith(b"HTTP/1.1 200")
    assert server.ended() == 0


def connects(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


async def test_a_client_whom_the_system_has_let_in_and_nobody_has_taken_is_answered(scripted: ScriptedEngine):
    settings = Settings(runtime_url=scripted.url)
    closing = Closing()
    server = Server(config_of(create_app(settings, closing=closing), settings), closing, settings)
    with socket.create_server(("127.0.0.1", 0)) as door:
        serving = asyncio.create_task(server.serve([door]))
        while not server.started:  # noqa: ASYNC110 - uvicorn has nothing to wait for
            await asyncio.sleep(0.01)
        with socket.create_connection(door.getsockname()) as client:
            server._forced.set()  # so that the door closes before the loop looks at it again
            ending = server.shutdown([door])
            answer = asyncio.get_running_loop().run_in_executor(None, asked, client)
            await ending
            assert (await answer).startswith(b"HTTP/1.1 200")
        serving.cancel()
        await asyncio.wait({serving})


def test_a_rolling_restart_loses_no_request(scripted: ScriptedEngine, start: Start):
    """Two servers, one after the other started anew, and a client that tries the other one where a connection is refused, and only there."""
    scripted.script = Reply("A short answer.", delay=0.01)
    servers = [start(shutdown_delay=0.3), start(shutdown_delay=0.3)]
    ports = [server.port for server in servers]
    over, statuses = threading.Event(), []

    def ask_on(first: int) -> None:
        while not over.is_set():
            for port in (ports[first], ports[1 - first]):
                try:
                    answer = httpx.post(f"http://127.0.0.1:{port}{CHAT}", json=BODY, timeout=20)
                except httpx.ConnectError:
                    continue
                statuses.append(answer.status_code if answer.json()["choices"] else 0)
                break
            else:
                statuses.append(-1)

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask_on, i % 2) for i in range(4)]
        for i in (0, 1):
            time.sleep(0.5)
            servers[i].told()
            assert servers[i].ended() == 0
            servers[i] = start(port=ports[i], shutdown_delay=0.3)
        time.sleep(0.5)
        over.set()
        for each in asking:
            each.result(20)
    assert set(statuses) == {200} and len(statuses) > 10
