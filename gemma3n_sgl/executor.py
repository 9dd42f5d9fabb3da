"""The executor that runs programs on an event loop: no thread, forks side by side, errors where they happen, everything cancelled with the run.

Inside `bridge.spawn` the program's own expressions run in its greenlet; each fork has a worker greenlet of its own, which the loop runs beside it.
"""

from __future__ import annotations

import asyncio
import copy
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from hashlib import sha256
from typing import Any

from sglang.lang.interpreter import ProgramState, StreamExecutor
from sglang.lang.ir import (
    SglConstantText,
    SglExpr,
    SglExprList,
    SglGen,
    SglRoleBegin,
    SglRoleEnd,
    SglSamplingParams,
    SglSelect,
    SglSeparateReasoning,
    SglVarScopeBegin,
)

from gemma3n_sgl.bridge import Interrupted, spawn, wait
from gemma3n_sgl.calling import SglArguments
from gemma3n_sgl.endpoint import CountingExecutor, Gemma3nEndpoint
from gemma3n_sgl.errors import Gemma3nError, ProgramError
from gemma3n_sgl.events import Segment, Token
from gemma3n_sgl.holdback import neutralise
from gemma3n_sgl.relay import Ear, Straight, TokenLog, relay

ANSWER = "answer"
"""The variable that is a program's product; every other generated variable is a step on the way."""


READ_BY_EACH = 1000
"""Characters of new text that forks read each for itself: that costs an engine less than one request more before they begin."""


class Observer(ABC):
    """Who follows a run: it plans each engine call and is told what comes of it."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[None]] = set()

    async def stop(self) -> None:
        """End all that still runs, and wait until it has let go of the engine."""
        for task in self.tasks:
            task.cancel()
        if self.tasks:
            await asyncio.wait(self.tasks)

    @abstractmethod
    def plan(self, params: dict[str, Any], *, product: bool, streams: bool) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Sampling parameters and stop strings of a call, from the program's own and the request's."""

    @abstractmethod
    def begin_call(self) -> None:
        """An engine call is about to be made."""

    @abstractmethod
    def watched(self, name: str) -> AbstractContextManager[object]:
        """An engine call for the variable `name` is made within."""

    @abstractmethod
    def begin_forks(self, count: int) -> None:
        """So many forks are about to be made."""

    @abstractmethod
    def grow(self, characters: int) -> None:
        """The program writes so much more, or has it copied for a fork."""

    @abstractmethod
    def grant(self, calls: int) -> None:
        """So many calls more may be made, and the time for the run begins anew."""

    @abstractmethod
    def count(self, meta: dict[str, Any], *, product: bool) -> None:
        """An engine call was made; `meta` is its last `meta_info`."""

    @abstractmethod
    def log(self) -> TokenLog | None:
        """What takes the log probabilities of the answer, if they were asked for."""

    @abstractmethod
    def prefix(self) -> str:
        """How the answer begins, before the model goes on."""

    @abstractmethod
    def joining(self) -> None:
        """The answer is not made by one call; raises where the request's demands can't be kept then."""

    @property
    @abstractmethod
    def straight(self) -> Straight:
        """What takes a piece of the answer outside of the program, where nobody need wait for that."""

    @abstractmethod
    def delta(self, text: str, tokens: tuple[Token, ...] = ()) -> None: ...

    @abstractmethod
    def emit(self, text: str) -> None:
        """A piece of an answer that is put together."""

    @abstractmethod
    def step(self, name: str, text: str) -> None: ...

    @abstractmethod
    def segment(self, segment: Segment) -> None: ...

    @abstractmethod
    def heard(self, seconds: float) -> None:
        """A recording of this length has been heard to its end."""

    @abstractmethod
    def call(self, tool: str) -> None:
        """A call of `tool` begins."""

    @abstractmethod
    def arguments(self, text: str) -> None:
        """A piece of the arguments of the call that was begun last."""


class Signal:
    """`threading.Event` for greenlets of one loop."""

    def __init__(self) -> None:
        self._on = False
        self._waiters: list[asyncio.Future[None]] = []

    def set(self) -> None:
        self._on = True
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._waiters.clear()

    def clear(self) -> None:
        self._on = False

    def is_set(self) -> bool:
        return self._on

    def wait(self, timeout: float | None = None) -> bool:
        """Wait in a greenlet; `timeout` is there for SGLang's signature and unused, since every run has a deadline."""
        if not self._on:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            wait(waiter)
        return True


class LoopExecutor(CountingExecutor):
    """SGLang's `StreamExecutor` on an event loop. The first one executes where it is called; forks queue and work for themselves.

    A fork's `on_delta`, where it is set, is called with every piece the fork generates, `on_made` with the name of each variable that is whole.
    """

    # beside SGLang's own: an object of 30 attributes and more takes five times the memory of a smaller one
    __slots__ = ("_error_seen", "_idle", "_queue", "_read", "_steps", "_working", "forks", "is_fork", "observer", "on_delta", "on_made")

    def __init__(
        self, backend: Gemma3nEndpoint, arguments: dict[str, Any], sampling: SglSamplingParams, observer: Observer, *, is_fork: bool = False
    ) -> None:
        self.observer = observer
        self.is_fork = is_fork
        self._queue: list[SglExpr | str] = []
        self._idle = Signal()
        self._idle.set()
        self._working = False
        self._error_seen = False
        self._steps: list[tuple[str, str]] = []
        self.on_delta: Callable[[str], None] | None = None
        self.on_made: Callable[[str], None] | None = None
        self.forks: list[LoopExecutor] = []
        self._read = (0, 0)  # how much text and how many media the engine has read so far
        super().__init__(backend, arguments, sampling, None, stream=False, use_thread=False)

    # Expressions in, results out

    def submit(self, expr: SglExpr | str) -> None:
        self._raise()
        self._init_var_event(expr)
        if not self.is_fork:
            self._execute(expr)
            return
        self._queue.append(expr)
        if not self._working:
            self._working = True
            self._idle.clear()
            task = asyncio.get_running_loop().create_task(spawn(self._work))
            self.observer.tasks.add(task)
            task.add_done_callback(self.observer.tasks.discard)

    def _work(self) -> None:
        try:
            while self._queue:
                taken, self._queue = self._queue, []
                for expr in taken:
                    self._execute(expr)
        except BaseException as error:
            interrupted = error.error if isinstance(error, Interrupted) else ProgramError(f"A fork ended with {type(error).__name__}.")
            self.error_ = _bare(error) if isinstance(error, Exception) else interrupted
            self._queue.clear()
            for event in self.variable_event.values():
                event.set()
            if isinstance(error, asyncio.CancelledError):
                raise
        finally:
            self._working = False
            self._idle.set()

    def sync(self) -> None:
        self._idle.wait()
        self.tell_steps()
        self._raise()

    def get_var(self, name: str) -> Any:
        if name in self.variable_event:
            self.variable_event[name].wait()
        self._raise()  # before its steps are told: who asks again would have them told twice
        self.tell_steps()
        return self.variables[name]

    def get_meta_info(self, name: str, timeout: float | None = None) -> Any:
        if name in self.variable_event:
            self.variable_event[name].wait()
        return self.meta_info.get(name)

    def end(self) -> None:
        """SGLang calls this when a fork is joined and when an executor is dropped; there is nothing to end here."""

    def _raise(self) -> None:
        if self.error_ is not None:
            self._error_seen = True
            raise _bare(self.error_)

    def _init_var_event(self, expr: SglExpr | str) -> None:
        if isinstance(expr, SglGen | SglSelect | SglVarScopeBegin | SglSeparateReasoning):
            self.variable_event[expr.name] = Signal()
        elif isinstance(expr, SglExprList):
            for part in expr.expr_list:
                if type(part) not in _NAMELESS:
                    self._init_var_event(part)

    def _execute(self, other: SglExpr | str) -> None:
        """SGLang asks of each expression whether it is this, or that, or the next; of those every prompt is made of, its type tells."""
        if do := _BY_TYPE.get(type(other)):
            do(self, other)
        else:
            super()._execute(other)

    # Forks

    def fork(self, size: int = 1, position_ids_offset: list[int] | None = None) -> list[StreamExecutor]:
        size = int(size)
        self.observer.begin_forks(size)
        self.observer.grow(size * len(self.text_))
        if size > 1 and not self.is_fork and self._has_news():
            self.backend.commit_lazy_operations(self)
            self._read = (len(self.text_), len(self.images_))
        self.sync()
        return [self._fork() for _ in range(size)]

    def _has_news(self) -> bool:
        """Whether what forks are about to share is worth a request of its own, so that it is read once."""
        text, media = self._read
        return len(self.images_) > media or len(self.text_) - text > READ_BY_EACH

    def _fork(self) -> LoopExecutor:
        fork = LoopExecutor(self.backend, self.arguments, self.default_sampling_para, self.observer, is_fork=True)
        fork.variables = dict(self.variables)
        fork.meta_info = dict(self.meta_info)
        fork.text_ = self.text_
        fork.messages_ = list(self.messages_)
        fork.cur_role = self.cur_role
        fork.cur_role_begin_pos = self.cur_role_begin_pos
        fork.fork_start_text_pos = len(self.text_)
        fork.images_ = list(self.images_)
        fork.cur_images = list(self.cur_images)
        self.forks.append(fork)
        return fork

    def finish(self) -> None:
        """At the end of the program: wait for its forks, and raise an error of theirs that the program has not met."""
        for fork in self.forks:
            if not fork._error_seen:
                fork.sync()
            fork.finish()

    # Text of the program's own

    def _execute_fill(self, value: Any, prefix: bool = False) -> None:
        text = str(value)
        self.observer.grow(len(text))
        self.text_ += text  # SGLang's own also looks for what a chat API was made to say ahead of its time

    # Engine calls

    def _execute_gen(self, expr: SglGen) -> None:
        name = expr.name
        params = self._resolve_sampling_params(expr.sampling_params)
        if (params.n or 1) > 1:
            raise ProgramError("`n` makes several answers of one call, which a run can't take. Use s.fork(n).")
        self.backend._handle_dtype_to_regex(params)
        streams = self._answers(name)
        tell = self._called(expr.tool.name) if isinstance(expr, SglArguments) else self.observer.delta if streams else self.on_delta
        sampling, stops = self.observer.plan(params.to_srt_kwargs(), product=_is_product(expr), streams=streams)
        log = self.observer.log() if streams else None
        self.text_ += neutralise(self.observer.prefix()) if streams else ""
        self.observer.begin_call()
        said: list[str] = []  # joined at the end: a long prompt is not copied for each token
        meta: dict[str, Any] = {}

        def hear(text: str) -> None:
            said.append(text)
            if log is not None:
                self.observer.delta(text, log.told(text))
            elif tell is not None and text:
                tell(text)

        ear = Ear(said, self.observer.straight if streams else None) if log is None and (streams or tell is None) else None
        try:
            with self.observer.watched(name or ""):
                for text, so_far in relay(self.backend.client, self._payload(sampling, log), stops, log, ear):
                    hear(text)
                    meta = so_far
        finally:
            if streams and said:
                self.observer.delta("")  # what went straight was told, too, and one without text is an answer
        if log is not None and (tokens := log.rest(meta)):
            self.observer.delta("", tokens)
        made = "".join(said)
        self.text_ += made
        self._read = (len(self.text_), len(self.images_))
        self.observer.count(meta, product=_is_product(expr))
        self._made(name, made, meta)

    def _payload(self, sampling: dict[str, Any], log: TokenLog | None) -> dict[str, Any]:
        data = self.backend.payload(self, sampling)
        if log is not None:
            data |= {"return_logprob": True, "top_logprobs_num": log.top, "return_text_in_logprobs": True}
        return data

    def _called(self, tool: str) -> Callable[[str], None]:
        if self.is_fork:
            raise ProgramError("A fork can't call tools: the client is told of calls in order. Call them in the program itself.")
        self.observer.call(tool)
        return self.observer.arguments

    def _execute_select(self, expr: SglSelect) -> None:
        answers = self._answers(expr.name)
        if answers:
            self.observer.joining()
        self.observer.begin_call()
        with self.observer.watched(expr.name or ""):
            decision = self.backend.select(self, expr.choices, expr.temperature, expr.choices_method)
        self.text_ += decision.decision
        self._made(expr.name, decision.decision, decision.meta_info or {})
        if answers:
            self.observer.delta(decision.decision)

    def set_var(self, name: str, value: Any) -> None:
        if self._answers(name):
            self.observer.joining()
        if isinstance(value, str):
            self.observer.grow(len(value))
        super().set_var(name, value)

    def _answers(self, name: str | None) -> bool:
        """Whether this makes the program's answer, which is made once: what has been streamed can't be taken back."""
        if name != ANSWER or self.is_fork:
            return False
        if ANSWER in self.variables:
            raise ProgramError("The program makes `answer` twice. Give the first one another name.")
        return True

    def _made(self, name: str | None, value: str, meta: dict[str, Any]) -> None:
        if name is None:
            return
        self.variables[name] = value
        self.meta_info[name] = meta
        if name != ANSWER and not name.startswith("_"):
            self._steps.append((name, value))
            if not self.is_fork:
                self.tell_steps()
        if self.on_made is not None:
            self.on_made(name)
        self.variable_event[name].set()

    def tell_steps(self) -> None:
        """Steps of forks are told when the program asks for them, so that they come in its order and not in that of the engine."""
        for name, value in self._steps:
            self.observer.step(name, value)
        self._steps.clear()

    def count(self, name: str | None, meta: dict[str, Any]) -> None:
        self.observer.count(meta, product=name == ANSWER)


_BY_TYPE: dict[type, Callable[[LoopExecutor, Any], None]] = {
    SglConstantText: lambda executor, text: executor._execute_fill(text.value),
    SglRoleBegin: lambda executor, role: executor._execute_role_begin(role),
    SglRoleEnd: lambda executor, role: executor._execute_role_end(role),
    SglGen: lambda executor, gen: executor._execute_gen(gen),
}
_NAMELESS = {SglConstantText, SglRoleBegin, SglRoleEnd}
"""What makes no variable."""


def _bare(error: Exception) -> Exception:
    """The error without its traceback, which leads to who keeps it: in a circle they would keep a run's sound until the garbage collector comes
    round. One of a program's own code stays as it is, to be found by."""
    return copy.copy(error) if isinstance(error, Gemma3nError) else error


def _is_product(expr: SglGen) -> bool:
    return expr.name == ANSWER or isinstance(expr, SglArguments)


def tell_text(s: ProgramState, text: str) -> None:
    """Send a piece of an `answer` that is put together; all pieces are the answer. Under SGLang's own executor there is nobody to tell."""
    if isinstance(s.stream_executor, LoopExecutor) and text:
        s.stream_executor.observer.joining()
        s.stream_executor.observer.emit(text)


def grant(s: ProgramState, calls: int) -> None:
    """Let a run make more engine calls than its budget has, and take more time: for those whose number a recording's length bounds."""
    if isinstance(s.stream_executor, LoopExecutor):
        s.stream_executor.observer.grant(calls)


_MATTERS = ("max_new_tokens", "frequency_penalty", "presence_penalty", "repetition_penalty")
"""What a request may say of sampling that changes greedy answers too."""


def manner(s: ProgramState, *, product: bool) -> str:
    """What a greedy answer in a fork of `s` depends on beside its text and its clip: the media before it, and what the request says of sampling."""
    executor = s.stream_executor
    media = [sha256(item).hexdigest() for item, _ in executor.images_]
    if not isinstance(executor, LoopExecutor):
        return repr(media)
    params, _ = executor.observer.plan(executor.default_sampling_para.to_srt_kwargs(), product=product, streams=False)
    return repr((media, [params.get(name) for name in _MATTERS]))


def tell_segment(s: ProgramState, segment: Segment) -> None:
    """Tell what was heard in a stretch of a recording."""
    if isinstance(s.stream_executor, LoopExecutor):
        s.stream_executor.observer.segment(segment)


def tell_length(s: ProgramState, seconds: float) -> None:
    """Tell how long a recording is that was heard to its end."""
    if isinstance(s.stream_executor, LoopExecutor):
        s.stream_executor.observer.heard(seconds)


def tell_again(s: ProgramState, name: str, text: str, meta: dict[str, Any]) -> None:
    """Tell of an engine call that was made before, as `text` and its `meta_info`, as if it were made now."""
    if isinstance(s.stream_executor, LoopExecutor):
        s.stream_executor.observer.count(meta, product=name == ANSWER)
        if name != ANSWER and not name.startswith("_"):
            s.stream_executor.observer.step(name, text)
