"""A program and its arguments in, events out: `Step`… `Delta`… `Done`.

`stream` and `run` are coroutines; `gemma3n_sgl.client` gives them to callers without a loop. An error of the engine, of the program's body or
of a fork is raised here. Leaving `stream` early, or cancelling `run`, closes the run's engine streams at once.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Protocol

from sglang.lang.interpreter import ProgramState
from sglang.lang.ir import SglFunction, SglSamplingParams

from gemma3n_sgl.bridge import spawn
from gemma3n_sgl.endpoint import Gemma3nEndpoint
from gemma3n_sgl.errors import Gemma3nError, ProgramError, RunTimeout
from gemma3n_sgl.executor import ANSWER, LoopExecutor, Observer
from gemma3n_sgl.holdback import Holdback


@dataclass(frozen=True)
class Sampling:
    """What a request says of sampling; None leaves it to Gemma's defaults (temperature 1.0, top_k 64, top_p 0.95, no hidden limit of length).

    The first group reaches every call of a program that does not set its own; the second only the call that makes `answer`.
    """

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None

    max_tokens: int | None = None
    stop: tuple[str, ...] = ()


GEMMA = Sampling(temperature=1.0, top_p=0.95, top_k=64, min_p=0.0)
"""Google's recommendation for Gemma 3n (its generation_config)."""

@dataclass(frozen=True)
class Budget:
    """What one run may cost: seconds in all, and engine calls."""

    seconds: float = 600
    calls: int = 256


@dataclass
class Usage:
    """Tokens over all engine calls of a run. `reasoning_tokens`, those of the steps, are part of `completion_tokens`."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    cached_tokens: int = 0
    image_tokens: int = 0
    audio_tokens: int = 0

    def add(self, name: str | None, meta: dict[str, Any]) -> None:
        for entry in fields(self):
            if entry.name != "reasoning_tokens":
                setattr(self, entry.name, getattr(self, entry.name) + int(meta.get(entry.name) or 0))
        if name != ANSWER:
            self.reasoning_tokens += int(meta.get("completion_tokens") or 0)


@dataclass(frozen=True)
class Step:
    """A step on the way to the answer is complete."""

    name: str
    text: str


@dataclass(frozen=True)
class Delta:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True)
class Done:
    """The end of a run. `finish_reason` is "stop" or "length"; `variables` are all the program made."""

    answer: str
    finish_reason: str
    usage: Usage
    variables: dict[str, Any] = field(default_factory=dict, repr=False)


Event = Step | Delta | Done


class Runnable(Protocol):
    """What `running` needs of a program."""

    @property
    def name(self) -> str: ...

    @property
    def function(self) -> SglFunction: ...


async def stream(
    program: Runnable, arguments: dict[str, Any], endpoint: Gemma3nEndpoint, sampling: Sampling | None = None, budget: Budget | None = None
) -> AsyncGenerator[Event]:
    """Run a program and yield what it says as it says it. Deltas that have piled up come as one."""
    mailbox = _Mailbox()
    run = _Run(program, endpoint, sampling or Sampling(), budget or Budget(), mailbox.put)
    task = asyncio.create_task(run.drive(arguments))
    task.add_done_callback(lambda _: mailbox.wake())
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


async def run(
    program: Runnable, arguments: dict[str, Any], endpoint: Gemma3nEndpoint, sampling: Sampling | None = None, budget: Budget | None = None
) -> Done:
    """Run a program to its end."""
    return await _Run(program, endpoint, sampling or Sampling(), budget or Budget(), lambda _: None).drive(arguments)


class _Run:
    """One run of one program."""

    def __init__(
        self, program: Runnable, endpoint: Gemma3nEndpoint, sampling: Sampling, budget: Budget, tell: Callable[[Event], None]
    ) -> None:
        self._program, self._endpoint, self._budget, self._tell = program, endpoint, budget, tell
        self._sampling = sampling
        self._usage = Usage()
        self._calls = 0
        self._streamed = 0
        self._finish_reason = "stop"

    async def drive(self, arguments: dict[str, Any]) -> Done:
        observer = Observer(plan=self._plan, delta=self._delta, step=self._step, count=self._count, begin_call=self._begin_call)
        defaults = await self._defaults()
        try:
            async with asyncio.timeout(self._budget.seconds):
                executor = await spawn(self._body, arguments, defaults, observer)
        except TimeoutError:
            raise RunTimeout(f"The program ran for {self._budget.seconds:g} s and was ended. Ask for less at once.") from None
        except Gemma3nError:
            raise
        except Exception as error:
            raise ProgramError(f"The program {self._program.name!r} failed with {type(error).__name__}.") from error
        finally:
            await observer.stop()
        return self._done(executor)

    def _body(self, arguments: dict[str, Any], defaults: SglSamplingParams, observer: Observer) -> LoopExecutor:
        arguments = arguments | self._program.function.bind_arguments
        executor = LoopExecutor(self._endpoint, arguments, defaults, observer)
        self._program.function.func(ProgramState(executor), **arguments)
        executor.finish()
        return executor

    async def _defaults(self) -> SglSamplingParams:
        """The request's own values, else what the engine was told to prefer, else Gemma's."""
        preferred = await self._endpoint.preferred_sampling()
        chosen = {}
        for name in ("temperature", "top_p", "top_k", "min_p", "frequency_penalty", "presence_penalty"):
            asked = getattr(self._sampling, name)
            chosen[name] = asked if asked is not None else preferred.get(name, getattr(GEMMA, name))
        given = {name: value for name, value in chosen.items() if value is not None}
        return SglSamplingParams(
            max_new_tokens=None, stop=[], stop_token_ids=[], logprob_start_len=None, top_logprobs_num=None, return_text_in_logprobs=None, **given
        )

    def _plan(self, answers: bool, streams: bool, params: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The sampling parameters of one engine call, and the strings it stops at."""
        asked = self._sampling
        if asked.seed is not None:
            params["sampling_seed"] = asked.seed
        if asked.repetition_penalty is not None:
            params["repetition_penalty"] = asked.repetition_penalty
        stops = (params["stop"],) if isinstance(params["stop"], str) else tuple(params["stop"] or ())
        if streams:
            stops += asked.stop
        if answers:
            limits = [limit for limit in (params["max_new_tokens"], asked.max_tokens) if limit is not None]
            params["max_new_tokens"] = min(limits, default=None)
        params["stop"] = list(stops)
        params["no_stop_trim"] = bool(stops)
        return params, stops

    def _begin_call(self) -> None:
        self._calls += 1
        if self._calls > self._budget.calls:
            raise ProgramError(f"The program {self._program.name!r} made more than {self._budget.calls} engine calls and was ended.")

    def _delta(self, text: str) -> None:
        self._streamed += 1
        self._tell(Delta(text))

    def _step(self, name: str, text: str) -> None:
        self._tell(Step(name, text))

    def _count(self, name: str | None, meta: dict[str, Any]) -> None:
        self._usage.add(name, meta)
        if name == ANSWER and (meta.get("finish_reason") or {}).get("type") == "length":
            self._finish_reason = "length"

    def _done(self, executor: LoopExecutor) -> Done:
        if ANSWER not in executor.variables:
            raise ProgramError(f"The program {self._program.name!r} ended without an `answer`.")
        value = executor.variables[ANSWER]
        answer = "\n".join(map(str, value)) if isinstance(value, list) else str(value)
        if not self._streamed:
            answer = Holdback(self._sampling.stop).feed_all(answer)  # set, or joined from forks
            self._tell(Delta(answer))
        return Done(answer, self._finish_reason, replace(self._usage), dict(executor.variables))


class _Mailbox:
    """Between the greenlet that makes events and the coroutine that hands them on, on one loop."""

    def __init__(self) -> None:
        self._events: deque[Event] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def put(self, event: Event) -> None:
        last = self._events[-1] if self._events else None
        if isinstance(event, Delta) and isinstance(last, Delta):
            self._events[-1] = Delta(last.text + event.text)
        else:
            self._events.append(event)
        self.wake()

    def wake(self) -> None:
        if self._waiter and not self._waiter.done():
            self._waiter.set_result(None)

    async def filled(self) -> None:
        """Wait until there is something to take, or until somebody wakes us."""
        if not self._events:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def take(self) -> list[Event]:
        events = list(self._events)
        self._events.clear()
        return events
