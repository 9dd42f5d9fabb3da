"""What Prometheus reads at `/metrics`: what was asked, what it cost, how long it took, and what stood in the way.

Labels are bounded: routes, programs and settings are those the server has, steps are variables of programs with their numbers taken out.
"""

from __future__ import annotations

import os
import re
from bisect import bisect_left
from collections.abc import Iterator
from time import perf_counter
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from gemma3n_sgl.serving.workers import SHARED_METRICS

CONTENT_TYPE = CONTENT_TYPE_LATEST

GAPS = (0.005, 0.01, 0.02, 0.03, 0.04, 0.06, 0.08, 0.12, 0.2, 0.35, 0.6, 1.0, 2.5, 10.0, float("inf"))
"""Upper bounds (s) of the gaps between two pieces of an answer."""

SHORT = (0.05, 0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0, 12.0, 30.0, 60.0, 120.0)
LONG = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
"""Upper bounds (s) of what comes first, and of what is whole."""

MOST_STEPS = 256
"""Pairs of program and step that have a row of their own."""

_NUMBERS = re.compile(r"\d+")


class Rows(dict[tuple[str, ...], Any]):
    """The rows of a metric by their labels: looked up here once each is made, since prometheus_client takes 2 µs for that."""

    def __init__(self, metric: MetricWrapperBase) -> None:
        super().__init__()
        self.metric = metric

    def __missing__(self, labels: tuple[str, ...]) -> Any:
        row = self[labels] = self.metric.labels(*labels)
        return row


class Metrics:
    """All that is measured, of one server; what has labels, by its rows."""

    def __init__(self) -> None:
        own = CollectorRegistry()
        self._registry = own
        self.requests = Rows(Counter("gemma3n_requests", "Requests that have ended", ("route", "program", "status"), registry=own))
        self.refusals = Rows(Counter("gemma3n_errors", "Errors that clients were told of, also within a stream", ("code",), registry=own))
        self.gone = Counter("gemma3n_clients_gone", "Clients that left before their answer was whole", registry=own)
        self.limits = Rows(Counter("gemma3n_limits_hit", "Requests refused because of a limit, by the setting's name", ("limit",), registry=own))
        self.tokens = Rows(Counter("gemma3n_tokens", "Tokens of engine calls; the prompt has the cached ones too", ("program", "kind"), registry=own))
        self.media = Rows(Counter("gemma3n_media", "Pictures and sounds in requests", ("kind",), registry=own))
        self.sound = Counter("gemma3n_media_seconds", "Seconds of sound that were given or heard", registry=own)
        self.fetches = Rows(Counter("gemma3n_fetches", "Files fetched by URL", ("outcome",), registry=own))
        self.queued = Histogram("gemma3n_queue_seconds", "Time a request waited for its place", buckets=SHORT, registry=own)
        self.first = Rows(Histogram("gemma3n_time_to_first_token_seconds", "Until the first it said", ("program",), buckets=SHORT, registry=own))
        self.gaps = Histogram("gemma3n_token_gap_seconds", "Between two pieces of an answer", buckets=GAPS, registry=own)
        self.whole = Rows(Histogram("gemma3n_request_seconds", "From the request to its end", ("route",), buckets=LONG, registry=own))
        self.runs = Rows(Histogram("gemma3n_run_seconds", "Runs of programs", ("program", "outcome"), buckets=LONG, registry=own))
        self.steps = Rows(Histogram("gemma3n_step_seconds", "Engine calls, by what they were for", ("program", "step"), buckets=LONG, registry=own))
        self.running = Rows(Gauge("gemma3n_runs_in_progress", "Runs going on", ("program",), registry=own, multiprocess_mode="livesum"))
        self.waiting = Gauge("gemma3n_queue_depth", "Requests that wait for a place", registry=own, multiprocess_mode="livesum")
        self.engine_up = Gauge("gemma3n_engine_up", "1 while the engine answers", registry=own, multiprocess_mode="mostrecent")
        self._steps: set[tuple[str, str]] = set()

    def step(self, program: str, name: str) -> Any:
        """The row of a step. Numbers in its name are taken out, since programs may count; so are steps beyond MOST_STEPS."""
        pair = program, _NUMBERS.sub("N", name)[:40] or "unnamed"
        if pair not in self._steps:
            if len(self._steps) >= MOST_STEPS:
                pair = program, "other"
            self._steps.add(pair)
        return self.steps[pair]

    def add_gaps(self, gaps: Gaps) -> None:
        """Add a whole stream's. What `observe` does, once for all of them."""
        for bucket, count in zip(self.gaps._buckets, gaps.counts, strict=True):
            if count:
                bucket.inc(count)
        self.gaps._sum.inc(gaps.last - gaps.began)

    def described(self) -> Iterator[tuple[str, tuple[str, ...], str]]:
        """The name, the labels and the meaning of each."""
        for each in vars(self).values():
            metric = each.metric if isinstance(each, Rows) else each
            if isinstance(metric, MetricWrapperBase):
                counts = "_total" if isinstance(metric, Counter) else ""
                yield metric._name + counts, metric._labelnames, metric._documentation

    def text(self) -> bytes:
        """All of it as Prometheus reads it; of all processes, where they share a folder."""
        if not os.environ.get(SHARED_METRICS):
            return generate_latest(self._registry)
        shared = CollectorRegistry()
        MultiProcessCollector(shared)  # type: ignore[no-untyped-call]
        return generate_latest(shared)


def forget_process(pid: int) -> None:
    """What a process that has ended measured of the moment (runs, queue) counts no more."""
    if os.environ.get(SHARED_METRICS):
        mark_process_dead(pid)  # type: ignore[no-untyped-call]


class Gaps:
    """The times between the pieces of one answer: how many fell under each of GAPS, and when (s) the first and the last piece came, 0 before."""

    __slots__ = ("began", "counts", "last")

    def __init__(self) -> None:
        self.counts = [0] * len(GAPS)
        self.began = self.last = 0.0

    def begin(self) -> None:
        """The first piece has come."""
        self.began = self.last = perf_counter()

    def end(self) -> None:
        """Another piece has come."""
        now = perf_counter()
        self.counts[bisect_left(GAPS, now - self.last)] += 1
        self.last = now
