"""Whatever OpenAI's published specification allows, and what it forbids: no request breaks the server, and every answer has the form it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from published import event_schema, events_of, fields, specification
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance
from scripted_engine import ScriptedEngine
from serving import Served, serving

from gemma3n_sgl.settings import Settings

pytestmark = pytest.mark.slow

SERVER = (Path(__file__).parents[2] / "server.py").read_text(encoding="utf-8")
ROUTES = {path.replace(":path", ""): "post" if "POST" in rest else "get" for path, rest in re.findall(r'Route\("/v1(/[^"]+)"(.*)\)', SERVER)}
POSTS = [path for path, method in ROUTES.items() if method == "post"]
SPECIFICATION = schemathesis.openapi.from_dict(specification(ROUTES))
EXAMPLES = 100
CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def standing() -> Iterator[Served]:
    engine = ScriptedEngine().start()
    with serving(Settings(runtime_url=engine.url)) as served:
        yield served
    engine.stop()


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize("path", POSTS)
def test_what_is_allowed_is_answered_in_the_published_form(standing: Served, path: str, stream: bool):
    event = jsonschema_rs.validator_for(event_schema(path))
    answered = 0

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=SPECIFICATION[path]["post"].as_strategy())
    def ask(case: schemathesis.Case) -> None:
        nonlocal answered
        case.body = {name: value for name, value in case.body.items() if name in fields(path)} | {"stream": stream}
        answer = case.call(base_url=standing.base_url)
        answered += answer.status_code == 200
        if stream and answer.status_code == 200:
            events = events_of(answer.text)
            for each in events:
                event.validate(each)
        else:
            case.validate_response(answer, checks=CHECKS)

    ask()
    assert answered > EXAMPLES / 4, "a test of answers has to have some"


@pytest.mark.parametrize("path", POSTS)
def test_what_is_forbidden_breaks_nothing(standing: Served, path: str):
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=SPECIFICATION[path]["post"].as_strategy(GenerationMode.NEGATIVE))
    def ask(case: schemathesis.Case) -> None:
        answer = case.call(base_url=standing.base_url)
        if not answer.headers["content-type"][0].startswith("text/event-stream"):
            case.validate_response(answer, checks=CHECKS)

    ask()


@pytest.mark.parametrize("path", sorted(ROUTES.keys() - POSTS))
def test_what_can_be_read_has_the_published_form(standing: Served, path: str):
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=SPECIFICATION[path]["get"].as_strategy())
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(base_url=standing.base_url, checks=CHECKS)

    ask()
