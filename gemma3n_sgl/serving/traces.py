"""OpenTelemetry's traces, where an exporter is configured and the extra `gemma3n-sgl[otel]` is installed; else nothing, at no cost."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any

ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
"""OpenTelemetry's own variables; one of them says where traces go."""

log = logging.getLogger("gemma3n")

Note = Callable[[Mapping[str, Any]], None]


class Traces:
    """No traces; `spans.Spans` makes some."""

    def request(self, name: str, headers: Mapping[str, str]) -> AbstractContextManager[Note]:
        """A request's span, under the one that the client's `traceparent` names. What is noted are its attributes."""
        return nullcontext(lambda attributes: None)

    def span(self, name: str, attributes: Mapping[str, Any]) -> AbstractContextManager[object]:
        """A span under the one that is open here."""
        return nullcontext()

    def headers(self) -> dict[str, str]:
        """What a request to the engine carries so that its spans come under the one that is open here."""
        return {}

    def close(self) -> None:
        """Send what has not been sent."""


NO_TRACES = Traces()


def traces_of(environ: Mapping[str, str]) -> Traces:
    """The traces that OpenTelemetry's variables ask for. Says so in the log where they can't be had."""
    if not any(environ.get(name) for name in ENDPOINTS) or environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return NO_TRACES
    if not find_spec("opentelemetry") or not find_spec("opentelemetry.exporter.otlp"):
        log.warning("OTEL_EXPORTER_OTLP_… is set, but OpenTelemetry is not installed: no traces. Install it: pip install 'gemma3n-sgl[otel]'")
        return NO_TRACES
    spans: Traces = importlib.import_module("gemma3n_sgl.serving.spans").exported()
    return spans
