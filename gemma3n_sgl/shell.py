"""What the routes share: the runs a request asks for, and the way of what they say to the client."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from pydantic_core import to_json
from starlette.datastructures import UploadFile
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from gemma3n_sgl import running
from gemma3n_sgl.bridge import in_pool
from gemma3n_sgl.conversation import Conversation, Recording
from gemma3n_sgl.endpoint import Gemma3nEndpoint, served_name
from gemma3n_sgl.errors import InvalidValue, MediaError, RequestError
from gemma3n_sgl.events import Done
from gemma3n_sgl.media import Limits, open_recording
from gemma3n_sgl.openai.limits import check_amounts
from gemma3n_sgl.openai.reading import Reader
from gemma3n_sgl.openai.requests import ChatRequest
from gemma3n_sgl.openai.transcriptions import SpeechRequest
from gemma3n_sgl.program import Program
from gemma3n_sgl.registry import MODEL, Registry
from gemma3n_sgl.relay import Straight
from gemma3n_sgl.running import Budget, Tell
from gemma3n_sgl.sampling import Sampling
from gemma3n_sgl.serving.closing import Closing
from gemma3n_sgl.serving.connection import LINE
from gemma3n_sgl.serving.doors import LEASE, Lease, give_back
from gemma3n_sgl.serving.exchange import Exchange
from gemma3n_sgl.serving.gate import STRAIGHT
from gemma3n_sgl.serving.outlet import Outlet, Stream, Whole, Writer
from gemma3n_sgl.serving.upload import room_on_disk
from gemma3n_sgl.serving.watching import seen
from gemma3n_sgl.settings import Settings

HEARERS = {"transcribe": "transcribe", "translate": "translate_speech"}
"""The program for each task."""

WHISPERS = ("whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe")
"""Names by which clients of OpenAI's ask for speech; here they mean `gemma-3n`."""

Run = Callable[[Tell, Straight | None], Awaitable[Done]]
"""A program with its arguments, ready to run."""


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

    async def runs(self, asked: ChatRequest) -> list[Run]:
        """The runs that a request asks for, bound and ready: `n` of them."""
        seen().model = asked.model
        check_amounts(asked, self.settings)
        sampling, tools = await in_pool(asked.demands) if asked.has_schemas else asked.demands()
        count = asked.n or 1
        if count > self.settings.max_choices:
            raise InvalidValue(f"`n` is at most {self.settings.max_choices} here (GEMMA3N_MAX_CHOICES).", param="n")
        also = () if asked.model in self.registry else (await self.engine_name(),)
        if also and asked.model not in also:
            self.registry.named(asked.model)
        messages, prefix = asked.open_end()
        conversation = await self.reader.read(messages, seen().client)
        program, options = self.registry.choose(asked.model, conversation, effort=asked.effort, tools=tools, also=also)
        arguments = program.bind(conversation, options | asked.options_for(frozenset(program.options.model_fields)))
        seen().asks(program.name, conversation)
        sampling = replace(sampling, prefix=prefix) if prefix else sampling
        return [self._run(program, arguments, sampling.another(i)) for i in range(count)]

    async def hearing(self, asked: SpeechRequest, file: UploadFile, task: str) -> list[Run]:
        """The run of the program that transcribes or translates an uploaded file."""
        model = seen().model = asked.model
        if model in (MODEL, *WHISPERS) or (model not in self.registry and model == await self.engine_name()):
            model = HEARERS[task]
        program = self.registry.named(model)
        limits = Limits.of(self.settings, sound_setting="max_upload_seconds")
        try:
            with room_on_disk():
                recording = await in_pool(lambda: open_recording(file.file, limits=limits, name="file"))
        except MediaError as error:
            error.param = "file"
            raise
        finally:
            await file.close()
        options = {"language": "English" if task == "translate" else asked.spoken, "prompt": asked.prompt, "timestamps": asked.timed}
        known = program.options.model_fields
        if missing := [name for name, value in options.items() if value and name not in known and name != "timestamps"]:
            raise InvalidValue(f"The program {program.name!r} takes no `{missing[0]}`. Leave it out.", param=missing[0])
        given = {name: value for name, value in options.items() if name in known and value}
        arguments = program.bind(Conversation.of(recording), given)
        seen().asks(program.name, Conversation.of(recording))
        return [_letting_go(recording, self._run(program, arguments, Sampling(temperature=asked.temperature)))]

    def _run(self, program: Program, arguments: dict[str, Any], sampling: Sampling) -> Run:
        return partial(running.run, program, arguments, self.endpoint, sampling, self.budget, onlooker=seen())

    def answer(self, requests: Sequence[ChatRequest], writer: Writer, *, stream: bool) -> Exchange:
        """The response to `requests`, whose runs are numbered on."""

        async def runs() -> list[Run]:
            return [run for asked in requests for run in await self.runs(asked)]

        return self.respond(runs, writer, stream=stream)

    def respond(self, begin: Callable[[], Awaitable[list[Run]]], writer: Writer, *, stream: bool, media_type: str = "") -> Exchange:
        """The response that runs make; all of it ends when the client leaves."""

        async def work(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal begin
            sight = seen()
            sight.whole = False
            with self.closing.telling(), _named_by(writer):
                runs = await begin()
                del begin  # with all that the request holds: its answer may take long
                if isinstance(lease := scope.get(LEASE), Lease):
                    await lease.widen(len(runs))
            if stream:
                outlet = Stream(writer, len(runs), sight, send, scope.get(STRAIGHT, send), scope.get(LINE))
                try:
                    await self._make(runs, outlet, writer)
                except Exception as error:
                    if not outlet.begun:
                        raise  # it still has its own status
                    give_back(scope)
                    await outlet.fail(error)
                else:
                    give_back(scope)
                    await outlet.end()
            else:
                whole = Whole(writer, len(runs), sight)
                await self._make(runs, whole, writer)
                give_back(scope)
                answer = whole.answer
                body = answer if isinstance(answer, str) else to_json(answer)
                await Response(body, media_type=media_type or "application/json")(scope, receive, send)
            sight.whole = True

        return Exchange(work, self.closing)

    async def _make(self, runs: list[Run], outlet: Outlet, writer: Writer) -> None:
        """Have runs tell all they say, side by side."""

        async def make(index: int, run: Run) -> None:
            await outlet.done(index, await run(partial(outlet.tell, index), outlet.straight(index)))

        with self.closing.telling(), _named_by(writer):
            if len(runs) == 1:
                await make(0, runs[0])
            else:
                await running.side_by_side([make(index, run) for index, run in enumerate(runs)])


@contextmanager
def _named_by(writer: Writer) -> Iterator[None]:
    """Has an error name its field as the client's own request does."""
    try:
        yield
    except RequestError as error:
        error.param = writer.field(error.param) if error.param else None
        raise


def _letting_go(recording: Recording, run: Run) -> Run:
    """The run, after which nothing of the recording is left on disk, also where an error still holds on to it."""

    async def whole(tell: Tell, straight: Straight | None) -> Done:
        with recording.keeper if isinstance(recording.keeper, AbstractContextManager) else nullcontext():
            return await run(tell, straight)

    return whole
