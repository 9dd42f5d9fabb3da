"""A program and its arguments in, events out (`gemma3n_sgl.events`), `Done` the last.

`stream` hands them out, `run` tells them; `gemma3n_sgl.client` gives both to callers without a loop. An error of the engine, of the program's
body or of a fork is raised here. Leaving `stream` early, or cancelling `run`, closes the run's engine streams at once.
"""

from __future__ import annotations

import asyncio
import secrets
import traceback
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

from sglang.lang.interpreter import ProgramState
from sglang.lang.ir import SglFunction, SglSamplingParams

from gemma3n_sgl.bridge import Escaped, Interrupted, spawn
from gemma3n_sgl.endpoint import Gemma3nEndpoint
from gemma3n_sgl.errors import Gemma3nError, InvalidValue, ProgramError, RunTimeout
from gemma3n_sgl.events import Arguments, Call, Delta, Done, Event, Segment, Step, Token, ToolCall, Usage, joined
from gemma3n_sgl.executor import ANSWER, LoopExecutor, Observer
from gemma3n_sgl.holdback import Holdback
from gemma3n_sgl.relay import Straight, TokenLog
from gemma3n_sgl.sampling import Sampling
from gemma3n_sgl.settings import Settings

Tell = Callable[[Event], None]
"""Takes what a run says. It is called where the program runs, so it may `bridge.wait`: the program then waits with it."""


@dataclass(frozen=True)
class Budget:
    """What one run may cost: seconds in all, engine calls, forks, and characters of text that it and its forks hold.

    A recording's parts come on top, since its own limit bounds their number: each allows for the calls it takes, and with each that is asked
    about or heard the seconds begin anew. So what is long takes long, and what gets no further is ended.
    """

    seconds: float = 600
    calls: int = 256
    forks: int = 1024
    text: int = 4_000_000

    @classmethod
    def of(cls, settings: Settings) -> Budget:
        """The budget an operator has set."""
        return cls(settings.run_timeout, settings.max_calls, settings.max_forks, settings.max_run_text)


class Runnable(Protocol):
    """What `running` needs of a program."""

    @property
    def name(self) -> str: ...

    @property
    def function(self) -> SglFunction: ...


class Onlooker:
    """Who looks on at runs from outside. This one looks away."""

    def run(self, program: str) -> AbstractContextManager[object]:
        """A run goes on within."""
        return nullcontext()

    def call(self, program: str, name: str) -> AbstractContextManager[object]:
        """An engine call of a run goes on within, for the variable `name`."""
        return nullcontext()

    def spent(self, program: str, usage: Usage, seconds: float, answer: str) -> None:
        """A run is over, however it ended: what it used, the length of the recording it heard, and its answer, if it came to one."""


async def stream(
    program: Runnable,
    arguments: dict[str, Any],
    endpoint: Gemma3nEndpoint,
    sampling: Sampling | None = None,
    budget: Budget | None = None,
) -> AsyncGenerator[Event]:
    """Run a program and yield what it says as it says it. Deltas that have piled up come as one."""
    mailbox = _Mailbox()
    task = asyncio.create_task(run(program, arguments, endpoint, sampling, budget, mailbox.put, mailbox.straight))
    task.add_done_callback(mailbox.end)
    try:
        while not task.done():
            await mailbox.filled()
            for event in mailbox.take():
                yield event
        for event in mailbox.take():
            yield event
        yield task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        del task  # it holds the error that holds this frame


async def run(
    program: Runnable,
    arguments: dict[str, Any],
    endpoint: Gemma3nEndpoint,
    sampling: Sampling | None = None,
    budget: Budget | None = None,
    tell: Tell | None = None,
    straight: Straight | None = None,
    onlooker: Onlooker | None = None,
) -> Done:
    """Run a program to its end, telling all it says before. A piece of the answer that `straight` takes where it arrives, `tell` is not told of:
    no program wakes for it."""
    ears = (tell, straight or _to_none) if tell else (_nobody, _to_nobody)
    return await _Run(program, endpoint, sampling or Sampling(), budget or Budget(), ears, onlooker or Onlooker()).drive(arguments)


def _nobody(event: Event) -> None:
    """Whom to tell where nobody listens."""


def _to_nobody(text: str) -> bool:
    return True


def _to_none(text: str) -> bool:
    """Whom there is no straight way to."""
    return False


async def side_by_side(jobs: Sequence[Awaitable[None]]) -> None:
    """Do several things at once. The first error ends them all."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in tasks:
            if task.done():
                task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        del tasks, task  # they hold the error that holds this frame


class _Run(Observer):
    """One run of one program."""

    def __init__(
        self, program: Runnable, endpoint: Gemma3nEndpoint, sampling: Sampling, budget: Budget, ears: tuple[Tell, Straight], onlooker: Onlooker
    ) -> None:
        super().__init__()
        self._onlooker = onlooker
        self._program, self._endpoint, self._budget = program, endpoint, budget
        self._tell, self._straight = ears
        self._sampling = sampling
        self._usage = Usage()
        self._engine_calls = self._forks = self._characters = 0
        self._granted = False
        self._streamed = False
        self._finish_reason = "stop"
        self._joined = Holdback(sampling.stop)
        self._emitted: list[str] = []
        self._segments: list[Segment] = []
        self._tokens: list[Token] = []
        self._seconds = 0.0
        self._deadline = asyncio.Timeout(None)
        self._called: list[tuple[Call, list[str]]] = []

    async def drive(self, arguments: dict[str, Any]) -> Done:
        answer = ""
        with self._onlooker.run(self._program.name):
            try:
                done = await self._drive(arguments)
                answer = done.answer
                return done
            except BaseException as error:
                _let_go(error)
                raise
            finally:
                del self._deadline  # it holds the task that holds the error that holds this frame
                self._onlooker.spent(self._program.name, self._usage, self._seconds, answer)

    async def _drive(self, arguments: dict[str, Any]) -> Done:
        defaults = self._sampling.defaults(await self._endpoint.preferred_sampling())
        if await self._endpoint.is_deterministic():
            if defaults.min_p:
                raise InvalidValue("This engine is deterministic and can't keep to `min_p`. Leave it out.", param="min_p")
            self._sampling = self._sampling.with_a_seed()
        try:
            async with self._deadline:
                self._begin_anew()
                return await spawn(self._body, arguments, defaults)
        except TimeoutError:
            idle = " without hearing more of the recording" if self._granted else ""
            raise RunTimeout(f"The program ran for {self._budget.seconds:g} s{idle} and was ended. Ask for less at once.") from None
        except Gemma3nError:
            raise
        except Exception as error:
            cause = error.__cause__ if isinstance(error, Escaped) else error
            raise ProgramError(f"The program {self._program.name!r} failed with {type(cause).__name__}.") from cause
        finally:
            await self.stop()

    def _body(self, arguments: dict[str, Any], defaults: SglSamplingParams) -> Done:
        arguments = arguments | self._program.function.bind_arguments
        executor = LoopExecutor(self._endpoint, arguments, defaults, self)
        self._program.function.func(ProgramState(executor), **arguments)
        executor.finish()
        return self._done(executor)

    def plan(self, params: dict[str, Any], *, product: bool, streams: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
        return self._sampling.plan(params, product=product, streams=streams)

    def log(self) -> TokenLog | None:
        return None if self._sampling.top_logprobs is None else TokenLog(self._sampling.top_logprobs)

    def prefix(self) -> str:
        return self._sampling.prefix

    def joining(self) -> None:
        if demand := self._sampling.demand:
            raise InvalidValue(
                f"The program {self._program.name!r} puts its answer together from several; that can't be held to `{demand}`. Leave it out.",
                param=demand,
            )

    def watched(self, name: str) -> AbstractContextManager[object]:
        return self._onlooker.call(self._program.name, name)

    def begin_call(self) -> None:
        if (task := asyncio.current_task()) is not None and task.cancelling():
            raise asyncio.CancelledError  # once more: a program may have caught the first with a bare `except`, and go on
        self._engine_calls += 1
        if self._engine_calls > self._budget.calls:
            raise self._spent(f"made more than {self._budget.calls} engine calls")

    def _spent(self, what: str) -> Interrupted:
        """No Exception, so that a program which tries again whatever happens does not go on."""
        return Interrupted(ProgramError(f"The program {self._program.name!r} {what} and was ended."))

    def begin_forks(self, count: int) -> None:
        self._forks += count
        if self._forks > self._budget.forks:
            raise self._spent(f"made more than {self._budget.forks} forks")

    def grow(self, characters: int) -> None:
        self._characters += characters
        if self._characters > self._budget.text:
            raise self._spent(f"wrote more than {self._budget.text} characters")

    def grant(self, calls: int) -> None:
        self._engine_calls -= calls
        self._forks -= calls
        self._granted = True
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._deadline.reschedule(asyncio.get_running_loop().time() + self._budget.seconds)

    def count(self, meta: dict[str, Any], *, product: bool) -> None:
        self._usage.add(meta, product=product)
        if product and (meta.get("finish_reason") or {}).get("type") == "length":
            self._finish_reason = "length"

    @property
    def straight(self) -> Straight:
        return self._straight

    def delta(self, text: str, tokens: tuple[Token, ...] = ()) -> None:
        self._streamed = True
        self._tokens += tokens
        if text or tokens:
            self._tell(Delta(text, tokens))

    def emit(self, text: str) -> None:
        if told := self._joined.feed(text):
            self._emitted.append(told)
            self._tell(Delta(told))

    def step(self, name: str, text: str) -> None:
        self._tell(Step(name, text))

    def segment(self, segment: Segment) -> None:
        self._begin_anew()
        self._segments.append(segment)
        self._tell(segment)

    def heard(self, seconds: float) -> None:
        self._seconds = max(self._seconds, seconds)

    def call(self, tool: str) -> None:
        call = Call(len(self._called), f"call_{secrets.token_hex(12)}", tool)
        self._called.append((call, []))
        self._tell(call)

    def arguments(self, text: str) -> None:
        call, pieces = self._called[-1]
        pieces.append(text)
        self._tell(Arguments(call.index, text))

    def _done(self, executor: LoopExecutor) -> Done:
        calls = tuple(ToolCall(call.id, call.name, "".join(pieces)) for call, pieces in self._called)
        if calls and self._finish_reason == "stop":
            self._finish_reason = "tool_calls"
        return Done(
            self._answer(executor.variables),
            self._finish_reason,
            Usage(**vars(self._usage)),
            dict(executor.variables),
            calls,
            tuple(self._segments),
            tuple(self._tokens),
            self._seconds,
        )

    def _answer(self, variables: dict[str, Any]) -> str:
        if ANSWER not in variables:
            if self._called:
                return ""
            raise ProgramError(f"The program {self._program.name!r} ended without an `answer`.")
        value = variables[ANSWER]
        answer = "\n".join(map(str, value)) if isinstance(value, list) else str(value)
        if self._streamed:
            return answer
        if not self._emitted:
            self.joining()
            self.emit(answer)  # set by the program at its end
        if rest := self._joined.flush():
            self._emitted.append(rest)
            self._tell(Delta(rest))
        return "".join(self._emitted)


def _let_go(error: BaseException | None) -> None:
    """Empty the frames of an error, which, in circles with it, would keep a run's sound until the garbage collector comes round. Those of a program's
    own fault are left for whoever looks for it."""
    while error is not None and not isinstance(error, ProgramError):
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


class _Mailbox:
    """Between the greenlet that makes events and the coroutine that hands them on, on one loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()  # asked once: asking costs a system call
        self._events: deque[Event] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def put(self, event: Event) -> None:
        if self._events and (both := joined(self._events[-1], event)):
            self._events[-1] = both
        else:
            self._events.append(event)
        self.wake()

    def straight(self, text: str) -> bool:
        self.put(Delta(text))
        return True

    def wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    def end(self, run: asyncio.Task[Done]) -> None:
        """No more will come. An error of a run whose reader has left is nobody's, and no news."""
        if not run.cancelled():
            run.exception()
        self.wake()

    async def filled(self) -> None:
        """Wait until there is something to take, or until somebody wakes us."""
        if not self._events:
            self._waiter = self._loop.create_future()
            await self._waiter

    def take(self) -> list[Event]:
        events = list(self._events)
        self._events.clear()
        return events
