"""Random JSON schemas of everything that is kept, for property tests."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

NAMES = st.text("abcdefgXYZ_ äß漢\"\\'-", min_size=1, max_size=8)
CONSTANTS = st.one_of(st.none(), st.booleans(), st.integers(-999, 999), st.text("ab \"\\é\n", max_size=6), st.lists(st.integers(0, 9), max_size=2))
FORMATS = ["date", "time", "date-time", "uuid", "email", "ipv4", "ipv6", "hostname", "uri", "duration", "unheard-of"]
PATTERNS = [
    *(r"^[A-Z]{2}-\d+$", r"^(red|green|blue)$", r"\w+@\w+\.com", r"^a\"b\\c$", r"^[^a-z]{1,5}$", r"x*y?z", r"^.{3,8}$", r"^(ab|c[de]){2,}$"),
    *(r"^https?://", r"\.(jpe?g|png)$", r"^a$|^b+$", r"[가-힣]{2,4}", r"^\S{1,40}$", r"^(?P<year>\d{4})/[\u00e9-\u0101]*$"),
]


@st.composite
def strings(draw: Any) -> dict[str, Any]:
    kind = draw(st.sampled_from(["plain", "format", "pattern"]))
    if kind == "format":
        return {"type": "string", "format": draw(st.sampled_from(FORMATS))}
    if kind == "pattern":
        return {"type": "string", "pattern": draw(st.sampled_from(PATTERNS))}
    low = draw(st.integers(0, 6))
    limits: dict[str, int] = {"minLength": low} if draw(st.booleans()) else {}
    if draw(st.booleans()):
        limits["maxLength"] = low + draw(st.integers(0, 200))
    if limits.get("maxLength", 0) > 6 and draw(st.integers(0, 3)) == 0:
        limits["pattern"] = draw(st.sampled_from([r"^[a-z]+$", r"^\d{2}[A-Z]*$"]))
    return {"type": "string"} | limits


@st.composite
def numbers(draw: Any) -> dict[str, Any]:
    kind = draw(st.sampled_from(["integer", "number"]))
    schema: dict[str, Any] = {"type": kind}
    low = draw(st.integers(-2000, 2000))
    if draw(st.booleans()):
        schema[draw(st.sampled_from(["minimum", "exclusiveMinimum"]))] = low
    if draw(st.booleans()):
        schema[draw(st.sampled_from(["maximum", "exclusiveMaximum"]))] = low + draw(st.integers(2, 3000)) + (0.5 if kind == "number" else 0)
    if kind == "integer" and draw(st.integers(0, 4)) == 0:
        schema = {"type": kind, "multipleOf": draw(st.sampled_from([1, 5, 20, 100]))}
    elif kind == "integer" and draw(st.integers(0, 4)) == 0:
        schema = {"type": kind, "multipleOf": draw(st.integers(2, 9)), "minimum": low, "maximum": low + 300}
    return schema


SCALARS = st.one_of(
    strings(),
    numbers(),
    st.sampled_from([{"type": "boolean"}, {"type": "null"}, {"type": ["string", "null"]}, {"minLength": 2}, {"type": ["number", "integer"]}]),
    CONSTANTS.map(lambda value: {"const": value}),
    st.lists(CONSTANTS, min_size=1, max_size=4, unique_by=json.dumps).map(lambda values: {"enum": values}),
)


@st.composite
def objects(draw: Any, inner: Any) -> dict[str, Any]:
    properties = draw(st.dictionaries(NAMES, inner, max_size=4))
    required = [name for name in properties if draw(st.booleans())]
    more: dict[str, Any] = draw(st.sampled_from([{}, {"additionalProperties": False}, {"additionalProperties": {"type": "integer"}}]))
    if properties and draw(st.integers(0, 3)) == 0:
        more = more | {"minProperties": draw(st.integers(0, len(properties)))}
    elif draw(st.integers(0, 3)) == 0:
        more = more | {"maxProperties": len(required) + draw(st.integers(0, 2))}
    return {"type": "object", "properties": properties, "required": required, "title": "thing"} | more


@st.composite
def arrays(draw: Any, inner: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "array", "items": draw(inner)}
    low = draw(st.integers(0, 3))
    if draw(st.booleans()):
        schema["minItems"] = low
    if draw(st.booleans()):
        schema["maxItems"] = low + draw(st.integers(0, 3))
    if draw(st.integers(0, 3)) == 0:
        schema |= {"prefixItems": [draw(inner), draw(inner)]} | ({"items": False} if low <= 2 else {})
    return schema


CHOICES = st.lists(CONSTANTS, min_size=3, max_size=6, unique_by=json.dumps)
SETS = st.builds(
    lambda values, least: {"type": "array", "items": {"enum": values}, "uniqueItems": True, "minItems": least}, CHOICES, st.integers(0, 2)
)


def one_of(some: list[dict[str, Any]]) -> dict[str, Any]:
    """Objects that a property of their own tells apart."""
    told = [
        each | {"properties": {"kind": {"const": i}} | each["properties"], "required": [*each["required"], "kind"]}
        for i, each in enumerate(some)
    ]
    return {"oneOf": [{name: value for name, value in each.items() if "Properties" not in name} for each in told]}


def deeper(inner: Any) -> Any:
    return st.one_of(
        objects(inner),
        arrays(inner),
        inner.map(lambda schema: {"type": "object", "additionalProperties": schema}),
        st.lists(inner, min_size=1, max_size=3).map(lambda schemas: {"anyOf": schemas}),
        st.lists(objects(SCALARS), min_size=1, max_size=3).map(one_of),
        st.tuples(objects(SCALARS), st.just({"type": "object"})).map(lambda both: {"allOf": list(both)}),
    )


TREE = {
    "$ref": "#/$defs/tree",
    "$defs": {
        "tree": {
            "type": "object",
            "properties": {"value": {"type": "integer"}, "left": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]}},
            "required": ["value", "left"],
            "additionalProperties": False,
        }
    },
}
FOREST = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "children": {"type": "array", "items": {"$ref": "#"}}},
    "required": ["children"],
}

REFERRING = objects(SCALARS).map(
    lambda schema: {
        "items": {"$ref": "#/$defs/a~1b"},
        "type": "array",
        "maxItems": 2,
        "$defs": {"a/b": {"title": "x", "$ref": "#/$defs/c"}, "c": schema},
    }
)
OPEN = st.sampled_from([TREE, FOREST, True, {}, {"type": "object"}, {"type": "array"}, {"type": "object", "additionalProperties": True}])
SCHEMAS = st.one_of(st.recursive(SCALARS, deeper, max_leaves=8), objects(SCALARS), SETS, REFERRING, OPEN)
