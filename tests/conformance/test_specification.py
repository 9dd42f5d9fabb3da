"""Whatever OpenAI's published specification allows, and what it forbids: no request breaks the server, and every answer has the form it says."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import jsonschema_rs
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from published import event_schema, events_of, fields, specification
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance
from scripted_engine import ScriptedEngine
from serving import Served, serving

from gemma3n_sgl.settings import Settings

pytestmark = pytest.mark.slow

MEDIA = Path(__file__).parents[1] / "media"
SOUND, PICTURE = (MEDIA / "314.wav").read_bytes(), (MEDIA / "red-circle.png").read_bytes()
SERVER = (Path(__file__).parents[2] / "server.py").read_text(encoding="utf-8")
ROUTES = {path.replace(":path", ""): "post" if "POST" in rest else "get" for path, rest in re.findall(r'Route\("/v1(/[^"]+)"(.*)\)', SERVER)}
POSTS = [path for path, method in ROUTES.items() if method == "post"]
SPECIFICATION = schemathesis.openapi.from_dict(specification(ROUTES))
EXAMPLES = 50
BOUNDED = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate])
"""The same examples in every run (the profile sees to that), and as found: to make them smaller takes minutes."""

CHECKS = [not_a_server_error, content_type_conformance, response_schema_conformance]


@pytest.fixture(scope="module")
def standing() -> Iterator[Served]:
    async def picture(url: str) -> bytes:
        return PICTURE

    engine = ScriptedEngine().start()
    with serving(Settings(runtime_url=engine.url), fetch=picture) as served:
        yield served
    engine.stop()


def sent(case: schemathesis.Case, served: Served) -> schemathesis.Response:
    """The answer to a request, a file in it having a name, as whoever sends one gives it."""
    parts = case.as_transport_kwargs(base_url=served.base_url).get("files") if case.media_type == "multipart/form-data" else None
    named = {"files": [(name, ("talk.wav", part[1]) if name == "file" else part) for name, part in parts]} if parts else {}
    return case.call(base_url=served.base_url, **named)


@pytest.mark.parametrize(
    ("path", "stream"), [(path, stream) for path in POSTS for stream in (False, True) if not stream or "stream" in fields(path)]
)
def test_what_is_allowed_is_answered_in_the_published_form(standing: Served, path: str, stream: bool):
    event = jsonschema_rs.validator_for(event_schema(path))
    answered = 0

    @BOUNDED
    @given(case=SPECIFICATION[path]["post"].as_strategy())
    def ask(case: schemathesis.Case) -> None:
        nonlocal answered
        ours = {"stream": stream, "file": SOUND}
        case.body = {name: ours.get(name, value) for name, value in (case.body | ours).items() if name in fields(path)}
        answer = sent(case, standing)
        answered += answer.status_code == 200
        if stream and answer.status_code == 200:
            for each in events_of(answer.text):
                event.validate(each)
        else:
            case.validate_response(answer, checks=CHECKS)

    ask()
    assert answered > EXAMPLES / 20, "a test of answers has to have some; how many are refused is up to chance"


@pytest.mark.parametrize("path", POSTS)
def test_what_is_forbidden_breaks_nothing(standing: Served, path: str):
    @BOUNDED
    @given(case=SPECIFICATION[path]["post"].as_strategy(GenerationMode.NEGATIVE))
    def ask(case: schemathesis.Case) -> None:
        answer = sent(case, standing)
        if not answer.headers["content-type"][0].startswith("text/event-stream"):
            case.validate_response(answer, checks=CHECKS)

    ask()


@pytest.mark.parametrize("path", sorted(ROUTES.keys() - POSTS))
def test_what_can_be_read_has_the_published_form(standing: Served, path: str):
    @BOUNDED
    @given(case=SPECIFICATION[path]["get"].as_strategy())
    def ask(case: schemathesis.Case) -> None:
        case.call_and_validate(base_url=standing.base_url, checks=CHECKS)

    ask()
