"""What Prometheus reads: true figures, bounded labels, for whom the operator says."""

from __future__ import annotations

import base64
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families as families
from scripted_engine import Die, Hang, Reply, ScriptedEngine
from serving import Served, one_for_all, serving, until

from gemma3n_sgl.errors import FetchError
from gemma3n_sgl.serving import metrics
from gemma3n_sgl.serving.metrics import GAPS, MOST_STEPS, Gaps, Metrics
from gemma3n_sgl.settings import Settings

MEDIA = Path(__file__).parent / "media"
MONITORING = Path(__file__).parent.parent / "examples" / "monitoring"

standing, scripted, served = one_for_all(api_keys=("k",), max_body_mb=1)


def read(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {(sample.name, frozenset(sample.labels.items())): sample.value for family in families(text) for sample in family.samples}


class Growth:
    """How much each figure grew since this was made."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._before = read(served.http.get("/metrics").text)

    def __call__(self, name: str, **labels: str) -> float:
        key = f"gemma3n_{name}", frozenset(labels.items())
        return read(self._served.http.get("/metrics").text).get(key, 0.0) - self._before.get(key, 0.0)


@pytest.fixture
def grown(served: Served) -> Growth:
    return Growth(served)


def test_requests_and_tokens_are_counted_by_route_program_and_status(served: Served, scripted: ScriptedEngine, grown: Growth):
    scripted.script = Reply("A red circle.")
    spent = [served.ask().json()["usage"], served.ask().json()["usage"]]
    served.ask(model="gemma-3n:nobody")
    served.ask(stream=True)
    until(lambda: grown("requests_total", route="/v1/chat/completions", program="chat", status="200") == 3, 5)
    assert grown("requests_total", route="/v1/chat/completions", program="", status="404") == 1
    assert grown("errors_total", code="model_not_found") == 1
    assert grown("tokens_total", program="chat", kind="completion") == sum(usage["completion_tokens"] for usage in spent) * 1.5
    assert grown("run_seconds_count", program="chat", outcome="ok") == 3
    assert grown("step_seconds_count", program="chat", step="answer") == 3


def test_steps_of_programs_are_measured_by_name(served: Served, scripted: ScriptedEngine, grown: Growth):
    scripted.script = {"Describe": Reply("A red circle.", delay=0.02), "": Reply("Red.")}
    picture = "data:image/png;base64," + base64.b64encode((MEDIA / "red-circle.png").read_bytes()).decode()
    served.ask([{"type": "image_url", "image_url": {"url": picture}}], model="gemma-3n:vision")  # type: ignore[arg-type]
    for step in ("observation", "reasoning", "answer"):
        assert grown("step_seconds_count", program="vision", step=step) == 1
    assert grown("step_seconds_sum", program="vision", step="observation") > 0.02
    assert grown("media_total", kind="image") == 1


@pytest.mark.parametrize("stream", [True, False])
def test_the_first_token_and_the_gaps_between_tokens_are_what_a_client_feels(
    served: Served, scripted: ScriptedEngine, grown: Growth, stream: bool
):
    scripted.script = Reply("one two three four five six", delay=0.05)
    began = time.monotonic()
    served.ask(stream=stream)
    taken = time.monotonic() - began
    until(lambda: grown("token_gap_seconds_count"))
    pieces = grown("token_gap_seconds_count")
    assert 1 <= pieces <= 15 and grown("token_gap_seconds_bucket", le="+Inf") == pieces
    first = grown("time_to_first_token_seconds_sum", program="chat")
    assert grown("time_to_first_token_seconds_count", program="chat") == 1
    assert 0.045 < first < first + grown("token_gap_seconds_sum") < taken
    assert first + grown("token_gap_seconds_sum") > 0.25, "five gaps and the first token of 0.05 s each"


def test_a_stream_that_breaks_off_counts_as_an_error_and_a_run_that_is_left_as_left(served: Served, scripted: ScriptedEngine, grown: Growth):
    scripted.script = Reply("Once upon a time", fault=Die(after=2))
    served.ask(stream=True)
    assert grown("errors_total", code="engine_error") == 1
    assert grown("run_seconds_count", program="chat", outcome="engine_error") == 1
    scripted.script = Reply("Once upon a time", fault=Hang(after=1))
    body = {"model": "gemma-3n", "messages": [{"role": "user", "content": "x"}], "stream": True}
    with served.http.stream("POST", "/v1/chat/completions", json=body) as answer:
        pieces = answer.iter_bytes()
        assert next(pieces)
        assert "gemma3n_runs_in_progress{program=\"chat\"} 1.0" in served.http.get("/metrics").text
    until(lambda: grown("clients_gone_total") == 1, 5)
    assert grown("run_seconds_count", program="chat", outcome="client_gone") == 1
    assert "gemma3n_runs_in_progress{program=\"chat\"} 0.0" in served.http.get("/metrics").text


def test_a_limit_that_is_hit_is_counted_by_the_name_of_its_setting(served: Served, grown: Growth):
    assert served.ask("x" * 2**20).status_code == 413
    assert grown("limits_hit_total", limit="max_body_mb") == 1


def test_files_that_are_fetched_are_counted_by_what_came_of_it(scripted: ScriptedEngine):
    async def fetch(url: str) -> bytes:
        if "missing" in url:
            raise FetchError("It is not there.")
        return (MEDIA / "red-circle.png").read_bytes()

    with serving(Settings(runtime_url=scripted.url), fetch=fetch) as served:
        grown = Growth(served)
        for name in ("here", "here", "missing"):
            served.ask([{"type": "image_url", "image_url": {"url": f"https://a.example/{name}.png"}}])  # type: ignore[arg-type]
        assert (grown("fetches_total", outcome="ok"), grown("fetches_total", outcome="media_fetch_failed")) == (2, 1)


def test_strangers_make_no_labels(served: Served):
    """Whatever models, routes and methods are made up, there are as many rows as before."""
    served.ask(model="made-up")
    served.http.get("/made-up")
    served.http.get("/v1/models/made-up")
    served.http.request("BREW", "/made-up")
    served.http.get("/metrics")  # whose own rows are there from the next time on
    rows = len(read(served.http.get("/metrics").text))
    for i in range(20):
        served.ask(model=f"made-up-{i}")
        served.ask(model=f"(GEMMA3N_MADE_UP_{chr(65 + i)})")
        served.http.get(f"/made-up-{i}")
        served.http.get(f"/v1/models/made-up-{i}")
        served.http.request(f"BREW{chr(65 + i)}", "/made-up")
    text = served.http.get("/metrics").text
    assert len(read(text)) <= rows + 2 and "made-up" not in text and "made_up" not in text and "BREW" not in text


def test_a_program_that_counts_its_steps_makes_one_row_and_never_more_than_are_bounded():
    metrics = Metrics()
    for i in range(100):
        metrics.step("mine", f"clip_{i}").observe(1)
    assert len(re.findall(r"^gemma3n_step_seconds_count", metrics.text().decode(), re.MULTILINE)) == 1
    for i in range(2 * MOST_STEPS):
        metrics.step("mine", "".join(chr(97 + int(digit)) for digit in str(i))).observe(1)
    assert len(re.findall(r"^gemma3n_step_seconds_count", metrics.text().decode(), re.MULTILINE)) <= MOST_STEPS + 1


def test_gaps_added_at_once_make_the_histogram_that_each_by_itself_would_make(monkeypatch: pytest.MonkeyPatch):
    single, at_once, gaps, now = Metrics(), Metrics(), Gaps(), 0.0
    monkeypatch.setattr(metrics, "perf_counter", lambda: now)
    gaps.begin()
    for gap in (0.001, *(bound - 0.0001 for bound in GAPS[:-1]), 0.05, 99.0):
        single.gaps.observe(gap)
        now += gap
        gaps.end()
    at_once.add_gaps(gaps)
    rows = [re.findall(r"^gemma3n_token_gap_seconds_(?!created).*", each.text().decode(), re.MULTILINE) for each in (single, at_once)]
    sums = [float(row.pop().split()[-1]) for row in rows]
    assert len(rows[0]) == len(GAPS) + 1 and rows[0] == rows[1] and sums[0] == pytest.approx(sums[1])


def test_the_engine_is_up_while_it_answers(scripted: ScriptedEngine, served: Served):
    assert "gemma3n_engine_up 1.0" in served.http.get("/metrics").text
    scripted.refuse()
    try:
        assert "gemma3n_engine_up 0.0" in served.http.get("/metrics").text
    finally:
        scripted.accept()


@pytest.mark.parametrize(
    ("settings", "without_key", "with_key"),
    [
        ({}, 200, 200),
        ({"api_keys": ("k",)}, 401, 200),
        ({"api_keys": ("k",), "metrics": "open"}, 200, 200),
        ({"api_keys": ("k",), "metrics": "off"}, 401, 404),
    ],
)
def test_who_reads_the_metrics_is_the_operators_choice(scripted: ScriptedEngine, settings: dict[str, Any], without_key: int, with_key: int):
    with serving(Settings(runtime_url=scripted.url, **settings)) as served:
        assert httpx.get(f"http://127.0.0.1:{served.port}/metrics").status_code == without_key
        assert served.http.get("/metrics").status_code == with_key


@pytest.mark.slow
def test_several_processes_tell_one_story(tmp_path: Path):
    """Two that count a request and a stream each, and a third that is asked."""
    count = "m.requests['/x', 'chat', '200'].inc(); g = Gaps(); g.begin(); g.end(); m.add_gaps(g); m.running['chat',].inc()"
    begin = "from gemma3n_sgl.serving.metrics import Gaps, Metrics; m = Metrics(); "
    env = os.environ | {"PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for _ in range(2):
        subprocess.run([sys.executable, "-c", begin + count], env=env, check=True)
    asked = subprocess.run([sys.executable, "-c", begin + "print(m.text().decode())"], env=env, check=True, capture_output=True, text=True)
    told = read(asked.stdout)
    assert told["gemma3n_requests_total", frozenset({"route": "/x", "program": "chat", "status": "200"}.items())] == 2
    assert told["gemma3n_token_gap_seconds_count", frozenset()] == 2


# What is made for Prometheus and Grafana


def measured() -> set[str]:
    """Every name that a series of ours can have."""
    names = set()
    for family in families(Metrics().text().decode()):
        if family.name.endswith("_created"):
            continue
        kinds = {"counter": ("_total",), "gauge": ("",), "histogram": ("_bucket", "_count", "_sum")}
        names |= {family.name + suffix for suffix in kinds[family.type]}
    return names


def expressions() -> Iterator[tuple[str, str]]:
    """What the dashboard and the alerts ask, each with where it stands."""
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']}", target["expr"]
    for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            yield f"alert {rule['alert']}", rule["expr"]


def test_the_dashboard_and_the_alerts_ask_for_what_is_measured():
    asked = {where: set(re.findall(r"gemma3n_\w+", expression)) for where, expression in expressions()}
    assert len(asked) > 12
    for where, names in asked.items():
        assert names or where.endswith("Server"), where
        assert names <= measured(), where


def test_the_dashboard_shows_all_that_is_measured():
    shown = {re.sub(r"_(bucket|count|sum)$", "", name) for _, expression in expressions() for name in re.findall(r"gemma3n_\w+", expression)}
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in measured()} <= shown


def test_every_alert_says_what_is_wrong_and_what_to_do():
    for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("page", "ticket") and rule["for"]
            assert rule["annotations"]["summary"] and rule["annotations"]["description"]
