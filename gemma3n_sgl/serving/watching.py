"""What is seen of one request, from its first byte to its last, and told at its end: to the log, to Prometheus, to a trace."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from time import perf_counter

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from gemma3n_sgl.conversation import Audio, Conversation, Image, Recording
from gemma3n_sgl.errors import Gemma3nError
from gemma3n_sgl.events import Usage
from gemma3n_sgl.running import Onlooker
from gemma3n_sgl.serving.metrics import Gaps, Metrics
from gemma3n_sgl.serving.traces import NO_TRACES, Traces
from gemma3n_sgl.settings import Settings

CLIENT_GONE = 499
"""The status of an answer that nobody was there to read, as nginx has it."""

_LIMIT = re.compile(r"\(GEMMA3N_([A-Z_]+)\)")


@dataclass(eq=False)
class Seen(Onlooker):
    """One request. Whoever learns something of it writes it down here."""

    metrics: Metrics = field(default_factory=Metrics, repr=False)
    traces: Traces = field(default=NO_TRACES, repr=False)
    keeps_content: bool = False
    began: float = field(default_factory=perf_counter)
    id: str = ""
    method: str = ""
    path: str = ""
    route: str = "other"
    status: int = CLIENT_GONE
    who: str = ""
    client: str = field(default="", repr=False)
    """Whose places it takes."""
    model: str = ""
    program: str = ""
    error: str = ""
    whole: bool = True
    images: int = 0
    sounds: int = 0
    sound_seconds: float = 0.0
    usage: Usage = field(default_factory=Usage)
    queue_seconds: float = 0.0
    first_seconds: float | None = None
    seconds: float = 0.0
    gaps: Gaps = field(default_factory=Gaps, repr=False)
    prompt: str = field(default="", repr=False)
    answers: list[str] = field(default_factory=list, repr=False)

    @property
    def outcome(self) -> str:
        """`ok`, `error` (also one told within a stream), `client_gone`."""
        if self.error:
            return "error"
        if self.status == CLIENT_GONE or not self.whole:
            return "client_gone"
        return "error" if self.status >= 400 else "ok"

    def asks(self, program: str, conversation: Conversation) -> None:
        """It asks `program` about `conversation`."""
        self.program = program
        self.images += len(conversation.only(Image))
        clips = conversation.only(Audio)
        self.sounds += len(clips) + len(conversation.only(Recording))
        self.sound_seconds += sum(clip.seconds for clip in clips if isinstance(clip, Audio))
        if self.keeps_content:
            self.prompt = "\n".join([conversation.system, *(str(part) for turn in conversation.turns for part in turn.parts)]).strip()

    def begins(self) -> None:
        """It says its first."""
        self.first_seconds = perf_counter() - self.began

    def fails(self, error: Gemma3nError) -> None:
        """The client is told of `error`. It hit a limit where the message names one."""
        self.error = error.code
        self.metrics.refusals[error.code,].inc()
        limit = _LIMIT.search(error.message)
        if limit and (name := limit[1].lower()) in Settings.model_fields:  # a message may quote what a client wrote
            self.metrics.limits[name,].inc()

    @contextmanager
    def waits(self) -> Iterator[None]:
        """It waits for a place within."""
        began = perf_counter()
        self.metrics.waiting.inc()
        try:
            yield
        finally:
            self.metrics.waiting.dec()
            self.queue_seconds += perf_counter() - began

    # Its runs

    @contextmanager
    def run(self, program: str) -> Iterator[None]:
        outcome, began = "client_gone", perf_counter()
        running = self.metrics.running[program,]
        running.inc()
        try:
            with self.traces.span(f"run {program}", {"gemma3n.program": program}):
                yield
            outcome = "ok"
        except Gemma3nError as error:
            outcome = error.code
            raise
        finally:
            running.dec()
            self.metrics.runs[program, outcome].observe(perf_counter() - began)

    @contextmanager
    def call(self, program: str, name: str) -> Iterator[None]:
        began = perf_counter()
        with self.traces.span(f"generate {name}", {"gemma3n.program": program, "gemma3n.step": name}):
            yield
        self.metrics.step(program, name).observe(perf_counter() - began)

    def spent(self, program: str, usage: Usage, seconds: float, answer: str) -> None:
        for kind in ("prompt", "completion", "cached", "reasoning", "image", "audio"):
            if count := getattr(usage, f"{kind}_tokens"):
                self.metrics.tokens[program, kind].inc(count)
                setattr(self.usage, f"{kind}_tokens", getattr(self.usage, f"{kind}_tokens") + count)
        self.sound_seconds += seconds
        if self.keeps_content:
            self.answers.append(answer)


_SEEN: ContextVar[Seen | None] = ContextVar("seen", default=None)
_NOBODY = Seen()


def seen() -> Seen:
    """What is seen of the request that is being answered here; outside of one, something that nobody reads."""
    return _SEEN.get() or _NOBODY


class Watch:
    """Around everything: each request is seen, and told of to `tell` at its end."""

    def __init__(
        self, app: ASGIApp, routes: Collection[str], metrics: Metrics, traces: Traces, tell: Callable[[Seen], None], *, keeps_content: bool = False
    ) -> None:
        self._app, self._routes, self._metrics, self._traces, self._tell = app, routes, metrics, traces, tell
        self._keeps_content = keeps_content

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        seen = Seen(self._metrics, self._traces, self._keeps_content, method=scope["method"], path=scope["path"], route=self._route(scope["path"]))
        token = _SEEN.set(seen)
        try:
            await self._spanned(seen, scope, lambda: self._app(scope, receive, send))
        finally:
            _SEEN.reset(token)
            seen.seconds = perf_counter() - seen.began
            self._count(seen)
            self._tell(seen)

    async def _spanned(self, seen: Seen, scope: Scope, work: Callable[[], Awaitable[None]]) -> None:
        if self._traces is NO_TRACES:
            await work()
            return
        with self._traces.request(f"{seen.method} {seen.route}", Headers(scope=scope)) as note:
            await work()
            note(
                {
                    "http.request.method": seen.method,
                    "http.route": seen.route,
                    "http.response.status_code": seen.status,
                    "gemma3n.request_id": seen.id,
                    "gemma3n.program": seen.program,
                    "gemma3n.outcome": seen.outcome,
                    "error.type": seen.error,
                    "gen_ai.usage.input_tokens": seen.usage.prompt_tokens,
                    "gen_ai.usage.output_tokens": seen.usage.completion_tokens,
                }
            )

    def _route(self, path: str) -> str:
        """The route an address belongs to, so that strangers' addresses make no labels."""
        path = re.sub("/{2,}", "/", path).rstrip("/") or "/"
        if path in self._routes:
            return path
        return "/v1/models/{model}" if path.startswith("/v1/models/") else "other"

    def _count(self, seen: Seen) -> None:
        metrics = self._metrics
        metrics.requests[seen.route, seen.program, str(seen.status)].inc()
        metrics.whole[seen.route,].observe(seen.seconds)
        if seen.outcome == "client_gone":
            metrics.gone.inc()
        if seen.client:
            metrics.queued.observe(seen.queue_seconds)
        if seen.first_seconds is not None:
            metrics.first[seen.program,].observe(seen.first_seconds)
        if seen.gaps.last > seen.gaps.began:
            metrics.add_gaps(seen.gaps)
        for kind, count in (("image", seen.images), ("audio", seen.sounds)):
            if count:
                metrics.media[kind,].inc(count)
        if seen.sound_seconds:
            metrics.sound.inc(seen.sound_seconds)
