"""Spans by OpenTelemetry's SDK, which is imported with this module: `traces.traces_of` does that only where they are wanted."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind, Status, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from gemma3n_sgl.errors import Gemma3nError
from gemma3n_sgl.serving.traces import Note, Traces

NAME = "gemma3n-sgl"


def exported() -> Spans:
    """Spans sent by OTLP over HTTP, as OpenTelemetry's variables say."""
    return Spans(BatchSpanProcessor(OTLPSpanExporter()))


class Spans(Traces):
    """Spans that `processor` gets. The provider is this server's own: nothing global is set."""

    def __init__(self, processor: SpanProcessor) -> None:
        self._provider = TracerProvider(resource=Resource.create({"service.name": NAME} | _named()), shutdown_on_exit=False)
        self._provider.add_span_processor(processor)
        self._tracer = self._provider.get_tracer(NAME, version(NAME))
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def request(self, name: str, headers: Mapping[str, str]) -> Iterator[Note]:
        parent = self._propagator.extract({key: headers[key] for key in ("traceparent", "tracestate") if key in headers})
        with self._tracer.start_as_current_span(name, parent, SpanKind.SERVER, record_exception=False) as span:
            yield lambda attributes: span.set_attributes({key: value for key, value in attributes.items() if value != ""})

    @contextmanager
    def span(self, name: str, attributes: Mapping[str, Any]) -> Iterator[None]:
        """An error is told by its code: its words may quote what a client wrote."""
        with self._tracer.start_as_current_span(name, attributes=dict(attributes), record_exception=False, set_status_on_exception=False) as span:
            try:
                yield
            except Exception as error:
                code = error.code if isinstance(error, Gemma3nError) else type(error).__name__
                span.set_status(Status(StatusCode.ERROR, code))
                raise

    def headers(self) -> dict[str, str]:
        carrier: dict[str, str] = {}
        if trace.get_current_span().get_span_context().is_valid:
            self._propagator.inject(carrier)
        return carrier

    def close(self) -> None:
        self._provider.shutdown()


def _named() -> dict[str, str]:
    """A name of the operator's goes before ours."""
    return {key: str(value) for key, value in Resource.create().attributes.items() if key == "service.name" and value != "unknown_service"}
