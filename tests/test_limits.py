"""Each limit is refused with its name before anything is done, and what is just within it is taken."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import math
import re
import time
import wave
from typing import Any

import pytest
from annotated_types import Le
from PIL import Image
from scripted_engine import ScriptedEngine
from serving import Served, one_for_all, serving

from gemma3n_sgl.errors import SettingsError
from gemma3n_sgl.serving.watchdog import Watchdog
from gemma3n_sgl.settings import Settings

LOW: dict[str, Any] = {
    "max_body_mb": 8, "max_messages": 3, "max_parts": 4, "max_text": 1000, "max_values": 20_000, "max_stops": 2, "max_stop_length": 5,
    "max_options": 2, "max_tools": 2, "max_schema": 500, "max_schema_depth": 3, "max_choices": 2, "max_images": 2, "max_sounds": 1,
    "max_audio_seconds": 32, "max_image_side": 4096, "max_image_megapixels": 1, "max_media_mb": 2,
}
standing, scripted, served = one_for_all(**LOW)


def text(words: str, role: str = "user") -> dict[str, Any]:
    return {"role": role, "content": words}


def parts(*contents: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": list(contents)}]}


def written(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def picture(width: int = 8, height: int = 8, more: int = 0) -> dict[str, Any]:
    file = io.BytesIO()
    Image.new("RGB", (width, height), "red").save(file, "PNG")
    encoded = base64.b64encode(file.getvalue() + bytes(more)).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{encoded}"}}


def sound(seconds: float = 1, more: int = 0) -> dict[str, Any]:
    file = io.BytesIO()
    with wave.open(file, "wb") as wav:
        wav.setparams((1, 2, 8000, 0, "NONE", ""))
        wav.writeframes(bytes(int(16000 * seconds)))
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(file.getvalue() + bytes(more)).decode(), "format": "wav"}}


def schema(depth: int, **more: Any) -> dict[str, Any]:
    inner: dict[str, Any] = {"type": "integer"} | more
    for _ in range(depth):
        inner = {"type": "object", "properties": {"a": inner}}
    return inner


def held_to(schema: dict[str, Any]) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}}


def tool(index: int, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"type": "function", "function": {"name": f"tool_{index}", "parameters": parameters or {}}}


CASES: dict[str, tuple[dict[str, Any], dict[str, Any], int, str]] = {
    "messages": ({"messages": [text("a")] * 3}, {"messages": [text("a")] * 4}, 413, "MAX_MESSAGES"),
    "parts": (parts(*[written("a")] * 4), parts(*[written("a")] * 5), 413, "MAX_PARTS"),
    "text": ({"messages": [text("a" * 1000)]}, {"messages": [text("a" * 500), text("b" * 501)]}, 413, "MAX_TEXT"),
    "text in parts": (parts(written("a" * 1000)), parts(written("a" * 999), written("aa")), 413, "MAX_TEXT"),
    "stop strings": ({"stop": ["a", "b"]}, {"stop": ["a", "b", "c"]}, 400, "MAX_STOPS"),
    "a stop string": ({"stop": "aaaaa"}, {"stop": "aaaaaa"}, 400, "MAX_STOP_LENGTH"),
    "options": ({"metadata": {"a": "1", "b": "2"}}, {"program_options": {"a": 1, "b": 2, "c": 3}}, 400, "MAX_OPTIONS"),
    "metadata": ({}, {"metadata": dict.fromkeys("abc", "1")}, 400, "MAX_OPTIONS"),
    "tools": ({"tools": [tool(1), tool(2)], "tool_choice": "none"}, {"tools": [tool(i) for i in range(3)]}, 400, "MAX_TOOLS"),
    "a schema": (held_to(schema(1)), held_to(schema(1, title="x" * 500)), 400, "MAX_SCHEMA"),
    "a schema's depth": (held_to(schema(3)), held_to(schema(4)), 400, "MAX_SCHEMA_DEPTH"),
    "a tool's schema": (
        {"tools": [tool(1, schema(1))], "tool_choice": "none"}, {"tools": [tool(1, schema(1, title="x" * 500))]}, 400, "MAX_SCHEMA"
    ),
    "answers": ({"n": 2}, {"n": 3}, 400, "MAX_CHOICES"),
    "pictures": (parts(*[picture()] * 2), parts(*[picture()] * 3), 413, "MAX_IMAGES"),
    "sounds": (parts(sound()), parts(sound(), sound()), 413, "MAX_SOUNDS"),
    "a picture's side": (parts(picture(4096)), parts(picture(4097)), 413, "MAX_IMAGE_SIDE"),
    "a picture's pixels": (parts(picture(1000, 1000)), parts(picture(1000, 1001)), 413, "MAX_IMAGE_MEGAPIXELS"),
    "a picture's file": (parts(picture(more=1_990_000)), parts(picture(more=2_000_000)), 413, "MAX_MEDIA_MB"),
    "a sound's length": (parts(sound(31)), parts(sound(33)), 413, "MAX_AUDIO_SECONDS"),
    "a sound's file": (parts(sound(1, more=1_980_000)), parts(sound(1, more=2_000_000)), 413, "MAX_MEDIA_MB"),
    "values": ({"metadata": {"a": [1] * 9_000}}, {"metadata": {"a": [1] * 21_000}}, 413, "MAX_VALUES"),
    "the body": ({}, {"user": "x" * (8 * 2**20)}, 413, "MAX_BODY_MB"),
}


def hits(served: Served, setting: str) -> float:
    """How often the limit was hit, as an operator sees it."""
    found = re.search(rf'^gemma3n_limits_hit_total{{limit="{setting.lower()}"}} (.+)', served.http.get("/metrics").text, re.MULTILINE)
    return float(found[1]) if found else 0.0


@pytest.mark.parametrize("case", CASES)
def test_a_limit_is_refused_by_the_name_of_its_setting_and_what_is_within_it_is_taken(served: Served, scripted: ScriptedEngine, case: str):
    within, beyond, status, setting = CASES[case]
    taken = served.ask(**within)
    assert taken.status_code == 200, taken.text
    scripted.requests.clear()
    before = hits(served, setting)
    told = served.ask(**beyond)
    assert told.status_code == status, told.text
    assert f"(GEMMA3N_{setting})" in told.json()["error"]["message"] and scripted.requests == []
    assert hits(served, setting) == before + 1


def test_every_route_has_the_same_limits(served: Served, scripted: ScriptedEngine):
    long = "a" * 1001
    for path, body in (("responses", {"input": long}), ("completions", {"prompt": long}), ("chat/completions", {"messages": [text(long)]})):
        told = served.http.post(f"/v1/{path}", json={"model": "gemma-3n"} | body)
        assert told.status_code == 413 and "GEMMA3N_MAX_TEXT" in told.json()["error"]["message"], path
    assert scripted.requests == []


@pytest.mark.slow
def test_a_body_of_a_great_many_values_costs_next_to_nothing(scripted: ScriptedEngine):
    """Sixty million characters of JSON, which would become twenty million objects: they take no longer than as many of one text."""
    values = b'{"model": "gemma-3n", "messages": [{"role": "user", "content": [' + b"{}," * 20_000_000 + b"{}]}]}"
    text = b'{"model": "gemma-3n", "messages": [{"role": "user", "content": "' + b"abc" * 20_000_000 + b'"}]}'

    def refused(body: bytes, setting: str) -> float:
        begin = time.perf_counter()
        told = served.http.post("/v1/chat/completions", content=body, timeout=60)
        assert told.status_code == 413 and setting in told.json()["error"]["message"]
        return time.perf_counter() - begin

    with serving(Settings(runtime_url=scripted.url)) as served:
        assert min(refused(values, "GEMMA3N_MAX_VALUES") for _ in range(3)) < 3 * min(refused(text, "GEMMA3N_MAX_TEXT") for _ in range(3))


def test_a_schema_that_nests_for_ever_is_looked_at_no_further_than_it_may(served: Served):
    for nesting, says in ((50, "GEMMA3N_MAX_SCHEMA_DEPTH"), (1000, "nested too deep")):
        deep = json.dumps({"model": "gemma-3n", "messages": [text("Hi.")]} | held_to({}))
        body = deep.replace('"schema": {}', '"schema": ' + '{"anyOf": [' * nesting + "{}" + "]}" * nesting)
        told = served.http.post("/v1/chat/completions", content=body)
        assert told.status_code == 400 and says in told.json()["error"]["message"]


@pytest.mark.parametrize("name", ["GEMMA3N_MAX_SCHEMA", "GEMMA3N_MAX_SCHEMA_DEPTH"])
def test_what_the_engine_could_not_bear_can_not_be_allowed(name: str):
    with pytest.raises(Exception, match=name):
        Settings.from_env({name: "1000000"})


@pytest.mark.parametrize("name", ["SHUTDOWN_TIMEOUT", "MAX_BLOCK", "DECODE_TIMEOUT"])
@pytest.mark.parametrize("value", ["inf", "1e300", "nan", "0"])
def test_a_time_the_system_cant_measure_is_refused_before_anything_is_served(name: str, value: str):
    with pytest.raises(SettingsError, match=f"GEMMA3N_{name}: .*(less|greater) than"):
        Settings.from_env({f"GEMMA3N_{name}": value})


def test_a_number_beyond_all_reason_is_refused():
    for name in ("MAX_BODY_MB", "DECODE_MEMORY_MB", "MAX_IMAGE_MEGAPIXELS", "MAX_QUEUE"):
        with pytest.raises(SettingsError, match=f"GEMMA3N_{name}: .*less than"):
            Settings.from_env({f"GEMMA3N_{name}": "9" * 400})


def most(name: str) -> float:
    """The largest value a setting takes; of workers and ports there is but one here."""
    field = Settings.model_fields[name]
    return next((limit.le for limit in field.metadata if isinstance(limit, Le)), math.inf)  # type: ignore[misc]


async def test_whatever_is_allowed_is_served_with(scripted: ScriptedEngine):
    """With every limit as high and every time as long as it may be, the endless ones among them."""
    numbers = [name for name, field in Settings.model_fields.items() if field.annotation in (int, float) and name not in ("workers", "port")]
    highest = Settings(runtime_url=scripted.url, **{name: most(name) for name in numbers if name != "shutdown_delay"})
    assert {"run_timeout", "send_timeout", "max_upload_seconds"} <= {name for name in numbers if math.isinf(most(name))}
    watchdog = Watchdog({}, highest.max_block)
    watchdog.start()  # in the main thread, where it sets its timers
    watchdog.stop()
    with serving(highest) as served:
        for asked in ({}, parts(picture()), parts(sound(1)), parts(sound(40))):
            told = await asyncio.to_thread(served.ask, **asked)
            assert told.status_code == 200, told.text
