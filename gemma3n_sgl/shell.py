"""What the routes share: the runs a request asks for, and the way of what they say to the client."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any, Protocol

from starlette.datastructures import UploadFile
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from gemma3n_sgl import running
from gemma3n_sgl.bridge import in_pool
from gemma3n_sgl.conversation import Conversation
from gemma3n_sgl.endpoint import Gemma3nEndpoint, served_name
from gemma3n_sgl.errors import Gemma3nError, InvalidValue, MediaError, RequestError
from gemma3n_sgl.events import Delta, Event
from gemma3n_sgl.media import Limits, open_recording
from gemma3n_sgl.openai.limits import check_amounts
from gemma3n_sgl.openai.reading import Reader
from gemma3n_sgl.openai.requests import ChatRequest
from gemma3n_sgl.openai.transcriptions import SpeechRequest
from gemma3n_sgl.openai.writing import bug
from gemma3n_sgl.registry import MODEL, Registry
from gemma3n_sgl.running import Budget
from gemma3n_sgl.sampling import Sampling
from gemma3n_sgl.serving.closing import Closing
from gemma3n_sgl.serving.doors import LEASE, Lease, give_back
from gemma3n_sgl.serving.exchange import Exchange
from gemma3n_sgl.serving.gate import STRAIGHT
from gemma3n_sgl.serving.metrics import GAPS, no_gaps
from gemma3n_sgl.serving.watching import Seen, seen
from gemma3n_sgl.settings import Settings

EVENT_STREAM = [(b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]

HEARERS = {"transcribe": "transcribe", "translate": "translate_speech"}
"""The program for each task."""

WHISPERS = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe")
"""Names by which clients of OpenAI's ask for speech; here they mean `gemma-3n`."""

Numbered = tuple[int, Event]


class Writer(Protocol):
    """Makes OpenAI's objects of what runs say."""

    def whole(self, runs: list[list[Event]]) -> dict[str, Any] | str:
        """The answer from all events of each run; a text where it is not JSON."""

    def frames(self, events: AsyncIterator[Numbered], count: int) -> AsyncIterator[bytes]:
        """The server-sent events of a stream, from the events of `count` runs, each with the index of its run."""

    def field(self, name: str) -> str:
        """What a field of the chat request, to which the client's amounts, is called in the client's own."""


@dataclass
class Shell:
    settings: Settings
    endpoint: Gemma3nEndpoint
    registry: Registry
    reader: Reader
    started: int
    closing: Closing = field(default_factory=Closing)

    @property
    def budget(self) -> Budget:
        return Budget.of(self.settings)

    async def engine_name(self) -> str:
        """The engine's own model name, which is another name of `gemma-3n`; "" where it has none."""
        return served_name(await self.endpoint.describe())

    async def runs(self, asked: ChatRequest) -> list[AsyncGenerator[Event]]:
        """The runs that a request asks for, bound and ready: `n` of them."""
        seen().model = asked.model
        check_amounts(asked, self.settings)
        sampling, tools = await in_pool(asked.demands) if asked.has_schemas else asked.demands()
        count = asked.n or 1
        if count > self.settings.max_choices:
            raise InvalidValue(f"`n` is at most {self.settings.max_choices} here (GEMMA3N_MAX_CHOICES).", param="n")
        ours = self.registry.models
        also = () if asked.model in ours else (await self.engine_name(),)
        if asked.model not in (*ours, *also):
            self.registry.named(asked.model)
        messages, prefix = asked.open_end()
        conversation = await self.reader.read(messages)
        program, options = self.registry.choose(asked.model, conversation, effort=asked.effort, tools=tools, also=also)
        arguments = program.bind(conversation, options | asked.options_for(frozenset(program.options.model_fields)))
        seen().asks(program.name, conversation)
        sampling = replace(sampling, prefix=prefix)
        return [running.stream(program, arguments, self.endpoint, sampling.another(i), self.budget, seen()) for i in range(count)]

    async def hearing(self, asked: SpeechRequest, file: UploadFile, task: str) -> list[AsyncGenerator[Event]]:
        """The run of the program that transcribes or translates an uploaded file."""
        model = seen().model = asked.model
        if model in (MODEL, *WHISPERS) or (model not in self.registry.models and model == await self.engine_name()):
            model = HEARERS[task]
        program = self.registry.named(model)
        limits = replace(Limits.of(self.settings), max_audio_seconds=self.settings.max_upload_seconds)
        try:
            recording = await in_pool(lambda: open_recording(file.file, limits=limits, name="file"))
        except MediaError as error:
            error.param = "file"
            raise
        options = {"language": "English" if task == "translate" else asked.spoken, "prompt": asked.prompt, "timestamps": asked.timed}
        known = program.options.model_fields
        if missing := [name for name, value in options.items() if value and name not in known and name != "timestamps"]:
            raise InvalidValue(f"The program {program.name!r} takes no `{missing[0]}`. Leave it out.", param=missing[0])
        given = {name: value for name, value in options.items() if name in known and value}
        arguments = program.bind(Conversation.of(recording), given)
        seen().asks(program.name, Conversation.of(recording))
        return [running.stream(program, arguments, self.endpoint, Sampling(temperature=asked.temperature), self.budget, seen())]

    def answer(self, requests: Sequence[ChatRequest], writer: Writer, *, stream: bool) -> Exchange:
        """The response to `requests`, whose runs are numbered on."""

        async def runs() -> list[AsyncGenerator[Event]]:
            return [run for asked in requests for run in await self.runs(asked)]

        return self.respond(runs, writer, stream=stream)

    def respond(self, begin: Callable[[], Awaitable[list[AsyncGenerator[Event]]]], writer: Writer, *, stream: bool, media_type: str = "") -> Exchange:
        """The response that runs make; all of it ends when the client leaves."""

        async def work(scope: Scope, receive: Receive, send: Send) -> None:
            sight = seen()
            sight.whole = False
            try:
                with self.closing.telling():
                    runs = await begin()
                    if isinstance(lease := scope.get(LEASE), Lease):
                        with sight.waits():
                            await lease.widen(len(runs))
            except RequestError as error:
                error.param = writer.field(error.param) if error.param else None
                raise
            async with aclosing(running.side_by_side(runs) if len(runs) > 1 else _only(runs[0])) as saying:
                events = self.closing.told_in(saying)
                first = await anext(events)  # so that what fails before it still has its own status
                coming = _from(first, events, sight, alone=len(runs) == 1)
                if not stream:
                    said: list[list[Event]] = [[] for _ in runs]
                    async for index, event in coming:
                        said[index].append(event)
                    whole = writer.whole(said)
                    response = Response(whole, media_type=media_type) if isinstance(whole, str) else JSONResponse(whole)
                    give_back(scope)
                    await response(scope, receive, send)
                else:
                    await send({"type": "http.response.start", "status": 200, "headers": EVENT_STREAM})
                    straight: Send = scope.get(STRAIGHT, send)
                    async for frame in writer.frames(coming, len(runs)):
                        await straight({"type": "http.response.body", "body": frame, "more_body": True})
                    give_back(scope)
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
                sight.whole = True

        return Exchange(work, self.closing)


async def _only(events: AsyncGenerator[Event]) -> AsyncGenerator[Numbered]:
    async with aclosing(events):
        async for event in events:
            yield 0, event


async def _from(first: Numbered, rest: AsyncIterator[Numbered], sight: Seen, *, alone: bool) -> AsyncIterator[Numbered]:
    """All events. Seen are the times between the pieces of an answer that comes `alone`, and an error that ends them."""
    sight.begins()
    yield first
    gaps = sight.gaps if alone else no_gaps()
    began = last = perf_counter()
    try:
        async for event in rest:
            if type(event[1]) is Delta:
                now = perf_counter()
                gaps[bisect_left(GAPS, now - last)] += 1
                last = now
            yield event
    except Gemma3nError as error:
        sight.fails(error)
        raise
    except Exception:
        sight.fails(bug())
        raise
    finally:
        sight.gap_seconds = last - began if alone else 0
