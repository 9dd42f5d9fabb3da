"""The thin HTTP shell: OpenAI's routes over programs. `create_app()` is the ASGI factory (`uvicorn --factory server:create_app`)."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gemma3n_sgl.bridge import in_pool
from gemma3n_sgl.client import endpoint_of
from gemma3n_sgl.errors import EngineError, Gemma3nError, MethodNotAllowed, NotFound, ShuttingDown
from gemma3n_sgl.openai.completions import CompletionRequest, TextCompletion
from gemma3n_sgl.openai.limits import check_values
from gemma3n_sgl.openai.reading import Fetch, Reader
from gemma3n_sgl.openai.requests import ChatRequest
from gemma3n_sgl.openai.responding import Responding
from gemma3n_sgl.openai.responses import ResponsesRequest
from gemma3n_sgl.openai.transcriptions import Heard, SpeechRequest
from gemma3n_sgl.openai.writing import Completion, bug, error_headers, error_object, model_object
from gemma3n_sgl.registry import MODEL, Registry
from gemma3n_sgl.serving import logs
from gemma3n_sgl.serving.admission import Admission
from gemma3n_sgl.serving.closing import Closing
from gemma3n_sgl.serving.doors import Doors, give_back
from gemma3n_sgl.serving.exchange import read_body
from gemma3n_sgl.serving.gate import Gate
from gemma3n_sgl.serving.hosts import Hosts, is_loopback
from gemma3n_sgl.serving.keys import OPEN_PATHS, KeyRing, Keys
from gemma3n_sgl.serving.metrics import CONTENT_TYPE, Metrics
from gemma3n_sgl.serving.origins import Origins
from gemma3n_sgl.serving.traces import Traces, traces_of
from gemma3n_sgl.serving.upload import read_form
from gemma3n_sgl.serving.watchdog import Watchdog
from gemma3n_sgl.serving.watching import Watch, seen
from gemma3n_sgl.settings import Settings
from gemma3n_sgl.shell import Shell

ENGINE_LOOK = 2.0
"""Seconds the engine may take to answer before Prometheus is told that it does not."""

log = logging.getLogger("gemma3n")


def create_app(
    settings: Settings | None = None,
    *,
    registry: Registry | None = None,
    fetch: Fetch | None = None,
    closing: Closing | None = None,
    traces: Traces | None = None,
    ring: KeyRing | None = None,
) -> ASGIApp:
    """The application. Without arguments it reads `GEMMA3N_…` from the environment, and the log is its own; `fetch` replaces the guarded
    fetching of URLs, `traces` what OpenTelemetry's variables say; whoever serves it tells its requests of the end by `closing`, and gives the
    keys it has read as `ring`."""
    if settings is None:
        settings = Settings.from_env(os.environ)
        logs.set_up(settings)
    traces = traces or traces_of(os.environ)
    registry = registry or Registry.discover(settings.programs)
    for problem in registry.problems:
        log.warning("program left out: %s", problem)
    metrics = Metrics()
    reader = Reader(settings, fetch, lambda outcome: metrics.fetches[outcome,].inc())
    shell = Shell(settings, endpoint_of(settings), registry, reader, int(time.time()), closing or Closing())

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        gc.set_threshold(10_000, 20, 20)  # a search for every 700 objects cost some hundredths: hardly any of them are in a cycle
        gc.freeze()  # what is here now stays; to search it for garbage over and over cost a tenth of all time under load
        watchdog = Watchdog({program.function.func.__code__: name for name, program in registry.programs.items()}, settings.max_block)
        watchdog.start()
        yield
        watchdog.stop()
        await shell.endpoint.client.aclose()
        await in_pool(traces.close)

    app = Starlette(
        routes=[
            Route("/v1/chat/completions", Endpoint(chat_completions), methods=["POST"]),
            Route("/v1/completions", Endpoint(completions), methods=["POST"]),
            Route("/v1/responses", Endpoint(responses), methods=["POST"]),
            Route("/v1/audio/transcriptions", Endpoint(transcriptions), methods=["POST"]),
            Route("/v1/audio/translations", Endpoint(translations), methods=["POST"]),
            Route("/v1/models", list_models),
            Route("/v1/models/{model:path}", show_model),
            Route("/health", health),
            Route("/livez", livez),
            *([Route("/metrics", show_metrics)] if settings.metrics != "off" else []),
        ],
        exception_handlers={Gemma3nError: tell_error, HTTPException: tell_http_error, ClientDisconnect: tell_nobody, Exception: tell_bug},
        lifespan=lifespan,
    )
    app.state.shell = shell
    app.state.metrics = metrics
    shell.endpoint.client.carried = traces.headers
    routes = [route.path for route in app.routes if isinstance(route, Route)]
    return Watch(guarded(app, shell, ring or KeyRing(settings)), routes, metrics, traces, logs.tell, keeps_content=settings.log_content)


def guarded(app: ASGIApp, shell: Shell, ring: KeyRing) -> ASGIApp:
    """The application behind what every request passes: a page's preflight without a key, a place among the runs after it."""
    settings = shell.settings
    behind: ASGIApp = Doors(app, Admission(settings), shell.closing)
    if ring.is_set:
        behind = Keys(behind, ring, (*OPEN_PATHS, "/metrics") if settings.metrics == "open" else OPEN_PATHS)
    elif is_loopback(settings.host):
        behind = Hosts(behind, settings.hosts)
    return Gate(Origins(behind, settings.cors_origins, guarded=ring.is_set), shell.closing)


class Endpoint:
    """A route's function as an application of its own. Starlette makes one, too, and has it look after errors once more, which the application does
    for all routes."""

    def __init__(self, answer: Callable[[Request], Awaitable[Response]]) -> None:
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = await self._answer(Request(scope, receive, send))
        await response(scope, receive, send)


async def chat_completions(request: Request) -> Response:
    shell: Shell = request.app.state.shell
    asked = ChatRequest.parse(await body_of(request))
    writer = Completion(asked.model, include_usage=asked.include_usage, logprobs=bool(asked.logprobs))
    return shell.answer([asked], writer, stream=bool(asked.stream))


async def completions(request: Request) -> Response:
    shell: Shell = request.app.state.shell
    asked = CompletionRequest.parse(await body_of(request))
    return shell.answer(asked.chats(), TextCompletion(asked), stream=bool(asked.stream))


async def responses(request: Request) -> Response:
    shell: Shell = request.app.state.shell
    asked = ResponsesRequest.parse(await body_of(request))
    return shell.answer([asked.chat()], Responding(asked), stream=bool(asked.stream))


async def transcriptions(request: Request) -> Response:
    return await heard(request, "transcribe")


async def translations(request: Request) -> Response:
    return await heard(request, "translate")


async def heard(request: Request, task: str) -> Response:
    shell: Shell = request.app.state.shell
    with shell.closing.waiting():
        fields, file = await read_form(request, shell.settings.max_upload_mb * 2**20, shell.settings.body_timeout)
    asked = SpeechRequest.of(fields)
    return shell.respond(lambda: shell.hearing(asked, file, task), Heard(asked, task), stream=asked.stream, media_type=asked.media_type)


async def body_of(request: Request) -> bytes:
    shell: Shell = request.app.state.shell
    with shell.closing.waiting():
        body = await read_body(request, shell.settings.max_body_mb * 2**20, shell.settings.body_timeout)
    check_values(body, shell.settings)
    return body


async def list_models(request: Request) -> Response:
    shell: Shell = request.app.state.shell
    try:
        engine = await shell.engine_name()
    except EngineError:
        engine = ""
    names = [*shell.registry.models, *([engine] if engine else [])]
    return JSONResponse({"object": "list", "data": [model_object(name, shell.started) for name in names]})


async def show_model(request: Request) -> Response:
    shell: Shell = request.app.state.shell
    name = request.path_params["model"]
    if name == MODEL or (name not in shell.registry and name == await shell.engine_name()):
        return JSONResponse(model_object(name, shell.started))
    return JSONResponse(model_object(name, shell.started, shell.registry.named(name)))


async def health(request: Request) -> Response:
    """200 while the engine answers, 503 with the reason while it does not, or while the server ends. Costs no generation."""
    shell: Shell = request.app.state.shell
    try:
        if shell.closing.begun:
            raise ShuttingDown("The server is shutting down.")
        return JSONResponse({"status": "ok", "engine": await shell.engine_name()} | shell.endpoint.client.standing)
    except (EngineError, ShuttingDown) as error:
        return JSONResponse({"status": "unavailable", "reason": error.message}, 503, error_headers(error))


async def livez(request: Request) -> Response:
    """200 while this process answers, whatever the engine does."""
    return JSONResponse({"status": "ok"})


async def show_metrics(request: Request) -> Response:
    """What Prometheus reads; the engine is asked whether it answers."""
    metrics: Metrics = request.app.state.metrics
    metrics.engine_up.set(await engine_answers(request.app.state.shell))
    return Response(metrics.text(), media_type=CONTENT_TYPE)


async def engine_answers(shell: Shell) -> bool:
    try:
        async with asyncio.timeout(ENGINE_LOOK):
            await shell.endpoint.describe()
    except (EngineError, TimeoutError):
        return False
    return True


async def tell_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, Gemma3nError)
    give_back(request.scope)
    seen().fails(error)
    if error.status == 500:
        log.error("%s", error.message, exc_info=error)
    return JSONResponse(error_object(error), error.status, error_headers(error))


async def tell_http_error(request: Request, error: Exception) -> Response:
    """Starlette's own 404 and 405, in OpenAI's shape; and what OPTIONS asks for."""
    assert isinstance(error, HTTPException)
    told: Gemma3nError
    if error.status_code == 405:
        allow = (error.headers or {}).get("Allow", "")
        if request.method == "OPTIONS":
            return Response(status_code=204, headers={"allow": f"{allow}, OPTIONS"})
        told = MethodNotAllowed(f"{request.method} is not for {request.url.path}, which takes {allow}.")
    else:
        routes = ", ".join(route.path.replace(":path", "") for route in request.app.routes)
        told = NotFound(f"There is nothing at {request.url.path}. Routes: {routes}.")
    seen().fails(told)
    return JSONResponse(error_object(told), told.status, dict(error.headers or {}))


async def tell_nobody(request: Request, error: Exception) -> Response:
    """The client left before its request was whole; the status is for the log alone."""
    return Response(status_code=499)


async def tell_bug(request: Request, error: Exception) -> Response:
    told = bug()
    give_back(request.scope)
    seen().fails(told)
    return JSONResponse(error_object(told), told.status, error_headers(told))
