"""The real server, on a loopback port, in a thread of the tests' process."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest
from scripted_engine import Reply, ScriptedEngine

from gemma3n_sgl.serving.closing import Closing
from gemma3n_sgl.serving.connection import config_of
from gemma3n_sgl.serving.ending import Server
from gemma3n_sgl.settings import Settings
from server import create_app

SHORT = {"connect_timeout": 1, "first_token_timeout": 1, "token_timeout": 1, "run_timeout": 20}
"""Deadlines (s) that a test can wait for, and that an engine keeps on a busy machine too."""


class Served:
    """A running server: `base_url` ends with /v1, as OpenAI's client wants it; `client` is that client, `http` a plain one at the root.

    Neither reads the world's certificates, which takes longer than starting the server.
    """

    def __init__(self, port: int, key: str = "none") -> None:
        root = f"http://127.0.0.1:{port}"
        self.port = port
        self.base_url = f"{root}/v1"
        self.http = httpx.Client(base_url=root, timeout=30, headers={"authorization": f"Bearer {key}"}, verify=False)
        self.client = openai.OpenAI(base_url=self.base_url, api_key=key, max_retries=0, timeout=30, http_client=httpx.Client(verify=False))

    def ask(self, text: str = "Hi.", **fields: Any) -> httpx.Response:
        """One chat request; a stream is read to its end."""
        body = {"model": "gemma-3n", "messages": [{"role": "user", "content": text}]} | fields
        return self.http.post("/v1/chat/completions", json=body)

    def ask_and(self, then: Callable[[], object], piece: str, **fields: Any) -> str:
        """One chat request as a stream; when it has come to `piece`, `then` is done."""
        body = {"model": "gemma-3n", "messages": [{"role": "user", "content": "Hi."}], "stream": True} | fields
        said = ""
        with self.http.stream("POST", "/v1/chat/completions", json=body) as answer:
            for text in answer.iter_text():
                said += text
                if piece in said:
                    then()
        return said


class Prompt(Server):
    """Looks every hundredth of a second whether it is to end, and not every tenth."""

    async def main_loop(self) -> None:
        while not await self.on_tick(0):  # noqa: ASYNC110 - it is told by a flag
            await asyncio.sleep(0.01)


@contextmanager
def serving(settings: Settings, **options: Any) -> Iterator[Served]:
    """Serve `create_app(settings, **options)` until the block ends."""
    listener = socket.create_server(("127.0.0.1", 0))
    closing = Closing()
    server = Prompt(config_of(create_app(settings, closing=closing, **options), settings, log_config=None), closing, settings)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, name="served", daemon=True)
    thread.start()
    served = Served(listener.getsockname()[1], *settings.api_keys[:1])
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.002)
        yield served
    finally:
        served.client.close()
        served.http.close()
        server.should_exit = server.force_exit = True
        thread.join(5)
        listener.close()


def until(true: Callable[[], object], seconds: float = 30) -> None:
    """Wait until `true()`; fails after `seconds`, which are no promise but an end for what hangs."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not so after {seconds} s"
        time.sleep(0.005)


def within(seconds: float, attempt: Callable[[], float], tries: int = 10) -> None:
    """Of several attempts, each of which tells how long it took, one takes less than `seconds`: a busy machine may hold up the others."""
    taken = [attempt()]
    while min(taken) >= seconds:
        assert len(taken) < tries, f"none within {seconds} s: {taken}"
        taken.append(attempt())


@pytest.fixture
def served(scripted: ScriptedEngine) -> Iterator[Served]:
    """Our server in front of the scripted engine, with short deadlines."""
    with serving(Settings(runtime_url=scripted.url, **SHORT)) as server:
        yield server


def one_for_all(says: Reply | None = None, **settings: Any) -> tuple[Any, Any, Any]:
    """The fixtures `standing`, `scripted` and `served` for a file whose tests share one engine and one server, as each of them starts a new talk."""

    @pytest.fixture(scope="module")
    def standing() -> Iterator[tuple[ScriptedEngine, Served]]:
        engine = ScriptedEngine().start()
        with serving(Settings(runtime_url=engine.url, **settings)) as server:
            yield engine, server
        engine.stop()

    @pytest.fixture
    def scripted(standing: tuple[ScriptedEngine, Served]) -> ScriptedEngine:
        standing[0].forget()
        if says:
            standing[0].script = says
        return standing[0]

    @pytest.fixture
    def served(standing: tuple[ScriptedEngine, Served], scripted: ScriptedEngine) -> Served:
        return standing[1]

    return standing, scripted, served
