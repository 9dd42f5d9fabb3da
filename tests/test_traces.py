"""Traces: a span for each request, run and engine call, under the client's and above the engine's; nothing at all where nobody wants them."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from scripted_engine import Die, Reply, ScriptedEngine
from serving import SHORT, Served, serving, until

from gemma3n_sgl.media.images import open_image
from gemma3n_sgl.serving.spans import Spans
from gemma3n_sgl.serving.traces import NO_TRACES, traces_of
from gemma3n_sgl.settings import Settings

PICTURE = Path(__file__).parent / "media" / "red-circle.png"
CLIENTS = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def traceparents(engine: ScriptedEngine) -> list[str]:
    """What the engine was told of traces, at each generation."""
    return re.findall(r"(?im)^traceparent: (.*)\r$", "".join(head for head in engine.heads if head.startswith("POST /generate")))


@pytest.fixture
def traced() -> Iterator[tuple[Served, ScriptedEngine, InMemorySpanExporter]]:
    engine, exporter = ScriptedEngine(), InMemorySpanExporter()
    engine.start()
    with serving(Settings(runtime_url=engine.url, **SHORT), traces=Spans(SimpleSpanProcessor(exporter))) as served:
        yield served, engine, exporter
    engine.stop()


def whole(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    """The spans by name, once the request's own is over."""
    until(lambda: any(span.kind.name == "SERVER" for span in exporter.get_finished_spans()), 5)
    return {span.name: span for span in exporter.get_finished_spans()}


def under(child: ReadableSpan, parent: ReadableSpan) -> bool:
    return child.parent is not None and child.parent.span_id == parent.context.span_id and child.context.trace_id == parent.context.trace_id


def ask_about_a_picture(served: Served, **fields: Any) -> None:
    uri = open_image(PICTURE.read_bytes()).data_uri
    served.ask([{"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": "xyzzy"}], **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("stream", [True, False])
def test_a_request_is_a_span_with_its_run_and_each_of_its_steps_within(traced: tuple[Served, ScriptedEngine, InMemorySpanExporter], stream: bool):
    served, _, exporter = traced
    ask_about_a_picture(served, model="gemma-3n:vision", stream=stream)
    spans = whole(exporter)
    request, run = spans["POST /v1/chat/completions"], spans["run vision"]
    assert request.parent is None and under(run, request)
    for step in ("observation", "reasoning", "answer"):
        assert under(spans[f"generate {step}"], run)
    told = dict(request.attributes or {})
    assert (told["http.response.status_code"], told["gemma3n.program"], told["gemma3n.outcome"]) == (200, "vision", "ok")
    assert told["gen_ai.usage.output_tokens"] > 0 and "error.type" not in told


def test_the_clients_trace_goes_on_here_and_in_the_engine(traced: tuple[Served, ScriptedEngine, InMemorySpanExporter]):
    served, engine, exporter = traced
    served.http.headers["traceparent"] = CLIENTS
    ask_about_a_picture(served, model="gemma-3n:vision")
    spans = whole(exporter)
    assert f"{spans['POST /v1/chat/completions'].parent.span_id:016x}" == CLIENTS.split("-")[2]  # type: ignore[union-attr]
    expected = [f"00-{CLIENTS.split('-')[1]}-{spans[f'generate {step}'].context.span_id:016x}-01" for step in ("observation", "reasoning", "answer")]
    assert traceparents(engine) == expected


def test_forks_that_run_side_by_side_each_have_spans_of_their_own(traced: tuple[Served, ScriptedEngine, InMemorySpanExporter]):
    served, engine, exporter = traced
    ask_about_a_picture(served, model="gemma-3n:vision", reasoning_effort="high")
    run = whole(exporter)["run vision"]
    details = [span for span in exporter.get_finished_spans() if span.name == "generate detail"]
    assert len(details) == 4 and all(under(span, run) for span in details)
    assert {f"{span.context.span_id:016x}" for span in details} <= {header.split("-")[2] for header in traceparents(engine)}


def test_requests_at_once_do_not_mix_their_traces(traced: tuple[Served, ScriptedEngine, InMemorySpanExporter]):
    served, engine, exporter = traced
    engine.script = Reply("one two three", delay=0.02)
    threads = [threading.Thread(target=served.ask, args=(f"number {i}",), kwargs={"stream": bool(i % 2)}) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    until(lambda: len(exporter.get_finished_spans()) == 24, 5)
    traces: dict[int, list[str]] = {}
    for span in exporter.get_finished_spans():
        traces.setdefault(span.context.trace_id, []).append(span.name)
    assert sorted(map(sorted, traces.values())) == [["POST /v1/chat/completions", "generate answer", "run chat"]] * 8


def test_what_fails_is_told_by_its_code_and_nothing_clients_write_is_in_a_span(traced: tuple[Served, ScriptedEngine, InMemorySpanExporter]):
    served, engine, exporter = traced
    engine.script = Reply("xyzzy plugh", fault=Die(after=1))
    served.http.get("/nowhere/xyzzy", params={"q": "xyzzy"})
    ask_about_a_picture(served, stream=True)
    until(lambda: len([span for span in exporter.get_finished_spans() if span.kind.name == "SERVER"]) == 2, 5)
    spans = {span.name: span for span in exporter.get_finished_spans()}
    assert (spans["POST /v1/chat/completions"].attributes or {})["error.type"] == "engine_error"
    for name in ("run vision", "generate answer"):
        assert spans[name].status.description == "engine_error" and spans[name].events == ()
    assert "xyzzy" not in "".join(span.to_json() for span in exporter.get_finished_spans())


def test_spans_are_sent_to_the_collector_that_opentelemetrys_own_variable_names(scripted: ScriptedEngine, monkeypatch: pytest.MonkeyPatch):
    got: list[tuple[str, ExportTraceServiceRequest]] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            got.append((self.path, ExportTraceServiceRequest.FromString(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Nothing."""

    collector = HTTPServer(("127.0.0.1", 0), Collector)
    threading.Thread(target=collector.serve_forever, daemon=True).start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mine")
    traces = traces_of(os.environ)
    with serving(Settings(runtime_url=scripted.url), traces=traces) as served:
        served.ask()
    traces.close()
    collector.shutdown()
    [(path, request)] = got
    [resource] = request.resource_spans
    assert path == "/v1/traces" and {"POST /v1/chat/completions", "run chat", "generate answer"} == {s.name for s in resource.scope_spans[0].spans}
    assert {a.key: a.value.string_value for a in resource.resource.attributes}["service.name"] == "mine"


@pytest.mark.parametrize("environ", [{}, {"OTEL_SERVICE_NAME": "x"}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://x", "OTEL_SDK_DISABLED": "true"}])
def test_where_no_exporter_is_configured_there_are_no_traces(environ: dict[str, str], caplog: pytest.LogCaptureFixture):
    assert traces_of(environ) is NO_TRACES and caplog.records == []


def test_without_the_extra_the_server_says_once_how_to_get_it_and_serves(
    scripted: ScriptedEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr("gemma3n_sgl.serving.traces.find_spec", lambda name: None)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    with caplog.at_level(logging.WARNING, "gemma3n"), serving(Settings(runtime_url=scripted.url)) as served:
        assert served.ask().status_code == 200
    assert ["pip install 'gemma3n-sgl[otel]'" in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.slow
def test_without_an_exporter_nothing_of_opentelemetry_is_imported():
    code = "import sys, server; server.create_app(); sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    env = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    assert subprocess.run([sys.executable, "-c", code], env=env, cwd=Path(__file__).parent.parent).returncode == 0
