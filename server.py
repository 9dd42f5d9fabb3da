"""The thin HTTP shell: OpenAI's routes over programs. `create_app()` is the ASGI factory (`uvicorn --factory server:create_app`)."""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from gemma3n_sgl import running
from gemma3n_sgl.client import endpoint_of
from gemma3n_sgl.endpoint import Gemma3nEndpoint, served_name
from gemma3n_sgl.errors import EngineError, Gemma3nError, InvalidValue, MethodNotAllowed, NotFound
from gemma3n_sgl.events import Event
from gemma3n_sgl.openai.reading import Fetch, Reader
from gemma3n_sgl.openai.requests import ChatRequest
from gemma3n_sgl.openai.writing import Completion, bug, error_headers, error_object, model_object
from gemma3n_sgl.registry import MODEL, Registry
from gemma3n_sgl.running import Budget
from gemma3n_sgl.serving.exchange import Exchange, read_body
from gemma3n_sgl.serving.gate import Gate, Keys
from gemma3n_sgl.serving.origins import Origins
from gemma3n_sgl.settings import Settings

log = logging.getLogger("gemma3n")


@dataclass
class Shell:
    """What the routes share."""

    settings: Settings
    endpoint: Gemma3nEndpoint
    registry: Registry
    reader: Reader
    started: int

    @property
    def budget(self) -> Budget:
        return Budget(self.settings.run_timeout, self.settings.max_calls)

    async def engine_name(self) -> str:
        """The engine's own model name, which is another name of `gemma-3n`; "" where it has none."""
        return served_name(await self.endpoint.describe())


def create_app(settings: Settings | None = None, *, registry: Registry | None = None, fetch: Fetch | None = None) -> ASGIApp:
    """The application. Without arguments it reads `GEMMA3N_…` from the environment; `fetch` replaces the guarded fetching of URLs."""
    settings = settings or Settings.from_env(os.environ)
    registry = registry or Registry.discover(settings.programs)
    for problem in registry.problems:
        log.warning("program left out: %s", problem)
    shell = Shell(settings, endpoint_of(settings), registry, Reader(settings, fetch), int(time.time()))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        gc.freeze()  # what is here now stays; to search it for garbage over and over cost a tenth of all time under load
        yield
        await shell.endpoint.client.aclose()

    app = Starlette(
        routes=[
            Route("/v1/chat/completions", chat_completions, methods=["POST"]),
            Route("/v1/models", list_models),
            Route("/v1/models/{model:path}", show_model),
            Route("/health", health),
            Route("/livez", livez),
        ],
        exception_handlers={Gemma3nError: tell_error, HTTPException: tell_http_error, ClientDisconnect: tell_nobody, Exception: tell_bug},
        lifespan=lifespan,
    )
    app.state.shell = shell
    return guarded(app, settings)


def guarded(app: ASGIApp, settings: Settings) -> ASGIApp:
    """The application behind what every request passes, a page's preflight without a key."""
    keyed = Keys(app, settings.api_keys) if settings.api_keys else app
    return Gate(Origins(keyed, settings.cors_origins, guarded=bool(settings.api_keys)))


async def chat_completions(request: Request) -> Response:
    shell: Shell = request.app.state.shell
    body = await read_body(request, shell.settings.max_body_mb * 2**20)
    asked = ChatRequest.parse(body)

    async def work(scope: Scope, receive: Receive, send: Send) -> None:
        count = asked.n or 1
        async with aclosing(await events_of(shell, asked)) as events:
            completion = Completion(asked.model, include_usage=asked.include_usage, logprobs=bool(asked.logprobs))
            if not asked.stream:
                runs: list[list[Event]] = [[] for _ in range(count)]
                async for index, event in events:
                    runs[index].append(event)
                await JSONResponse(completion.whole(runs))(scope, receive, send)
                return
            first = await anext(events)  # so that what fails before it still has its own status
            await send({"type": "http.response.start", "status": 200, "headers": EVENT_STREAM})
            async for frame in completion.frames(_from(first, events), count):
                await send({"type": "http.response.body", "body": frame, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    return Exchange(work)


EVENT_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


async def events_of(shell: Shell, asked: ChatRequest) -> AsyncGenerator[tuple[int, Event]]:
    """The runs that a request asks for, bound and ready: the events of each with its index."""
    sampling, tools, count = asked.sampling(), asked.tool_options, asked.n or 1
    if count > shell.settings.max_choices:
        raise InvalidValue(f"`n` is at most {shell.settings.max_choices} here.", param="n")
    ours = shell.registry.models
    also = () if asked.model in ours else (await shell.engine_name(),)
    if asked.model not in (*ours, *also):
        shell.registry.named(asked.model)
    messages, prefix = asked.open_end()
    conversation = await shell.reader.read(messages)
    program, options = shell.registry.choose(asked.model, conversation, effort=asked.effort, tools=tools, also=also)
    arguments = program.bind(conversation, options | asked.options_for(frozenset(program.options.model_fields)))
    sampling = replace(sampling, prefix=prefix)
    streams = [running.stream(program, arguments, shell.endpoint, sampling.another(i), shell.budget) for i in range(count)]
    return running.side_by_side(streams) if count > 1 else _only(streams[0])


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
    if name == MODEL or (name not in shell.registry.models and name == await shell.engine_name()):
        return JSONResponse(model_object(name, shell.started))
    return JSONResponse(model_object(name, shell.started, shell.registry.named(name)))


async def health(request: Request) -> Response:
    """200 while the engine answers, 503 with the reason while it does not. Costs no generation."""
    shell: Shell = request.app.state.shell
    try:
        return JSONResponse({"status": "ok", "engine": await shell.engine_name()})
    except EngineError as error:
        return JSONResponse({"status": "unavailable", "reason": error.message}, 503, error_headers(error))


async def livez(request: Request) -> Response:
    """200 while this process answers, whatever the engine does."""
    return JSONResponse({"status": "ok"})


async def tell_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, Gemma3nError)
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
    return JSONResponse(error_object(told), told.status, dict(error.headers or {}))


async def tell_nobody(request: Request, error: Exception) -> Response:
    """The client left before its request was whole; the status is for the log alone."""
    return Response(status_code=499)


async def tell_bug(request: Request, error: Exception) -> Response:
    told = bug()
    return JSONResponse(error_object(told), told.status, error_headers(told))


async def _only(events: AsyncGenerator[Event]) -> AsyncGenerator[tuple[int, Event]]:
    async with aclosing(events):
        async for event in events:
            yield 0, event


async def _from(first: tuple[int, Event], rest: AsyncIterator[tuple[int, Event]]) -> AsyncIterator[tuple[int, Event]]:
    yield first
    async for event in rest:
        yield event
