"""The server as a person starts it: a port that is free, what is served and what to try, and an end without remains."""

from __future__ import annotations

import asyncio
import errno
import resource
import signal
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager
from types import FrameType

from starlette.types import ASGIApp

from gemma3n_sgl.client import endpoint_of
from gemma3n_sgl.endpoint import served_name
from gemma3n_sgl.engine import LocalEngine, LoggedProgress, Progress, choose, install, kept
from gemma3n_sgl.errors import EngineError, SettingsError
from gemma3n_sgl.registry import MODEL, Registry
from gemma3n_sgl.serving.closing import Closing
from gemma3n_sgl.serving.connection import BACKLOG, config_of
from gemma3n_sgl.serving.ending import Server
from gemma3n_sgl.serving.metrics import forget_process
from gemma3n_sgl.serving.workers import Workers, share_of
from gemma3n_sgl.settings import Settings, without_login
from gemma3n_sgl.terminal.showing import say

Make = Callable[[Settings, Closing], ASGIApp]
"""Makes the application."""

_SHARED = (socket.SOL_SOCKET, socket.SO_REUSEADDR)

MOST_FILES = 65_536
"""Open files to ask the system for: each run has a connection to its client and one to the engine."""


@contextmanager
def reserve(host: str, port: int) -> Iterator[socket.socket]:
    """A socket bound to the port, which nobody else can take, and which refuses clients until it is served. SettingsError says what is in the way."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        reserved = socket.socket(family, socket.SOCK_STREAM)
        reserved.setsockopt(*_SHARED, 1)  # with what is left of a server that has just ended
        reserved.bind(address)
        reserved.setsockopt(*_SHARED, 0)  # and with nobody else
    except OSError as error:
        raise SettingsError(_in_the_way(error, host, port)) from None
    with closing(reserved):
        yield reserved


def listen(reserved: socket.socket) -> None:
    """Clients may come; they wait until they are served."""
    reserved.setsockopt(*_SHARED, 1)  # so that what is left of them once this has ended is in nobody's way
    reserved.listen(BACKLOG)


def _in_the_way(error: OSError, host: str, port: int) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"Port {port} is taken by another program. Choose another: gemma3n serve --port {port + 1}"
    if error.errno == errno.EACCES:
        return f"Port {port} is not for ordinary users. Choose one above 1023: gemma3n serve --port 8000"
    return f"This machine has no address {host!r} to serve on. Try --host 127.0.0.1, or --host 0.0.0.0 for all that it has."


@contextmanager
def engine_beside(port: int | None, *, as_json: bool = False) -> Iterator[str | None]:
    """The URL of an engine on this machine, installed if need be, started again where it dies, gone with the block; None where no port is given."""
    if port is None:
        yield None
        return
    choice, progress = choose(), LoggedProgress() if as_json else Progress()
    install(choice.device, progress=progress)
    with kept(LocalEngine(choice, port=port, progress=progress), progress) as engine:
        yield engine.url


def serve_on(reserved: socket.socket, make: Make, settings: Settings, registry: Registry) -> None:
    """Serve what `make` makes until SIGTERM, or SIGINT, which is then raised again; in several processes, if the settings say so."""
    _allow_files()
    listen(reserved)
    if settings.workers == 1:
        _serve(reserved, make, settings, lambda: _tell_start(reserved, settings, registry))
        return
    asyncio.run(_tell_start(reserved, settings, registry))
    own = share_of(settings)
    Workers(settings.workers, lambda: _serve(reserved, make, own, _say_nothing), reserved, forget_process).run()


def _serve(reserved: socket.socket, make: Make, settings: Settings, tell_start: Callable[[], Awaitable[None]]) -> None:
    closing = Closing()
    server = _Server(config_of(make(settings, closing), settings, loop="uvloop", log_config=None), closing, settings)
    server.tell_start = tell_start
    server.run(sockets=[reserved])


async def _say_nothing() -> None:
    """It was said already, for all of them."""


class _Server(Server):
    """With a word once it listens."""

    tell_start: Callable[[], Awaitable[None]]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            await self.tell_start()


def _allow_files() -> None:
    """Lift the limit of open files, as far as it may be lifted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_FILES if hard == resource.RLIM_INFINITY else min(MOST_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def _tell_start(reserved: socket.socket, settings: Settings, registry: Registry) -> None:
    """Say where it is served, what is served, and what to try."""
    host, port = reserved.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
    url = f"http://{shown}:{port}"
    say(f"Gemma 3n is served at {url}/v1 (Ctrl-C ends it).", "bold", stderr=False)
    say(f"  engine  {without_login(settings.runtime_url)}, {await _engine(settings)}", stderr=False)
    say(f"  models  {MODEL}, and {MODEL}:NAME for {', '.join(registry.programs)}", stderr=False)
    if not (settings.api_keys or settings.api_keys_file) and host not in ("127.0.0.1", "::1"):
        say("  Open to all who reach this machine: GEMMA3N_API_KEYS sets keys.", "yellow")
    key = "-H 'Authorization: Bearer KEY' " if settings.api_keys or settings.api_keys_file else ""
    message = f'{{"model": "{MODEL}", "messages": [{{"role": "user", "content": "Hello!"}}]}}'
    say(f"Try it: curl {url}/v1/chat/completions {key}-d '{message}'", stderr=False, whole=True)
    sys.stdout.flush()


async def _engine(settings: Settings) -> str:
    endpoint = endpoint_of(settings)
    try:
        return f"which serves {served_name(await endpoint.describe()) or 'a model without a name'}"
    except EngineError:
        return "which does not answer yet; `gemma3n engine start` starts one here"
    finally:
        await endpoint.client.aclose()


@contextmanager
def ended_by_sigterm() -> Iterator[None]:
    """SIGTERM as SystemExit, so that what was started is also ended."""

    def end(number: int, frame: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
