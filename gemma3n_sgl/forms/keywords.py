"""One schema object's own keywords, read and checked: what it asserts of a value, and what can't be kept."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from typing import Any

from gemma3n_sgl.forms.bounds import MOST_MINIMUM
from gemma3n_sgl.forms.formats import FORMATS
from gemma3n_sgl.forms.grammar import Unkept

TYPES = ("string", "integer", "number", "boolean", "null", "array", "object")
_BY_KEYWORD = {
    "object": ("properties", "required", "additionalProperties", "minProperties", "maxProperties"),
    "array": ("items", "prefixItems", "additionalItems", "minItems", "maxItems", "uniqueItems"),
    "string": ("minLength", "maxLength", "pattern", "format"),
    "number": ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
}
_KEPT = {
    *("$ref", "allOf", "anyOf", "oneOf", "const", "enum", "type", "nullable"),
    *(keyword for keywords in _BY_KEYWORD.values() for keyword in keywords),
}
_NOT_KEPT = {
    *("not", "if", "then", "else", "patternProperties", "propertyNames", "contains", "minContains", "maxContains"),
    *("dependencies", "dependentRequired", "dependentSchemas", "unevaluatedItems", "unevaluatedProperties"),
    *("$dynamicRef", "$recursiveRef"),
}
_FAR = Decimal(10) ** 15
"""A bound further out is none: nobody writes so many digits, and floating point could not tell them apart."""

Limit = tuple[Decimal, bool]
"""A bound, and whether it is itself excluded."""


@dataclass(frozen=True)
class Demands:
    """What a schema asserts of a value, without its references and alternatives. None, or an empty one: nothing."""

    types: tuple[str, ...] | None = None
    values: tuple[Any, ...] | None = None
    low: Limit | None = None
    high: Limit | None = None
    step: Decimal | None = None
    shortest: int = 0
    longest: int | None = None
    pattern: str | None = None
    format: str | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    others: Any = None
    least_properties: int = 0
    most_properties: int | None = None
    prefix: tuple[Any, ...] = ()
    items: Any = True
    fewest: int = 0
    most: int | None = None
    unique: bool = False
    implied: tuple[str, ...] = ()

    @cached_property
    def known(self) -> frozenset[Any]:
        """`values`, to look one up by its `identity`."""
        return frozenset(map(identity, self.values or ()))

    def kinds(self) -> tuple[str, ...]:
        """The types asked for; where none is named, those its keywords speak of, else all."""
        return self.types if self.types is not None else self.implied or tuple(kind for kind in TYPES if kind != "integer")


def check_names(schema: Mapping[str, Any], place: str) -> None:
    """Unkept for a keyword that asserts something we can't keep, or that looks like a misspelt one. Words unknown to the standard are annotations."""
    for keyword in schema:
        if keyword in _NOT_KEPT:
            raise Unkept(f"has `{keyword}`{at(place)}, which is not supported")
        if keyword not in _KEPT and (near := difflib.get_close_matches(keyword, _KEPT, 1, 0.85)):
            raise Unkept(f"has `{keyword[:40]}`{at(place)}, which is no keyword; `{near[0]}` may be meant")


def demands(schema: Mapping[str, Any], place: str) -> Demands:
    """What the schema's own keywords assert. Unkept where they are malformed or exclude each other."""
    read = _Reader(schema, place)
    found = Demands(
        types=read.types(),
        values=read.values(),
        low=read.limit("minimum", "exclusiveMinimum", max),
        high=read.limit("maximum", "exclusiveMaximum", min),
        step=read.step(),
        shortest=read.count("minLength"),
        longest=read.most("maxLength"),
        pattern=read.text("pattern"),
        format=None if schema.get("format") not in tuple(FORMATS) else read.text("format"),
        properties=read.mapping("properties"),
        required=tuple(dict.fromkeys(read.texts("required"))),
        others=schema.get("additionalProperties"),
        least_properties=read.count("minProperties"),
        most_properties=read.most("maxProperties"),
        fewest=read.count("minItems"),
        most=read.most("maxItems"),
        unique=schema.get("uniqueItems") is True,
        implied=tuple(kind for kind, keywords in _BY_KEYWORD.items() if any(word in schema for word in keywords)),
        **read.listed(),
    )
    for least, most, names in (
        (found.shortest, found.longest, "`minLength` is above `maxLength`"),
        (found.fewest, found.most, "`minItems` is above `maxItems`"),
        (found.least_properties, found.most_properties, "`minProperties` is above `maxProperties`"),
    ):
        if most is not None and least > most:
            raise Unkept(f"allows nothing{at(place)}: {names}")
    if found.low and found.high and (found.low[0] > found.high[0] or (found.low[0] == found.high[0] and (found.low[1] or found.high[1]))):
        raise Unkept(f"allows nothing{at(place)}: its lower bound is above the upper one")
    return found


def at(place: str) -> str:
    """The words for a place in a schema; its top has none."""
    return f" at `{place[:120]}`" if place else ""


class _Reader:
    def __init__(self, schema: Mapping[str, Any], place: str) -> None:
        self._schema, self._place = schema, place

    def _malformed(self, keyword: str, is_: str) -> Unkept:
        return Unkept(f"has a `{keyword}`{at(self._place)} that is not {is_}")

    def types(self) -> tuple[str, ...] | None:
        given = self._schema.get("type")
        if given is None and "type" not in self._schema:
            return None
        types = [given] if isinstance(given, str) else given
        if not isinstance(types, list) or not types or not all(isinstance(each, str) and each in TYPES for each in types):
            raise self._malformed("type", "one of " + ", ".join(TYPES) + ", or a list of them")
        if self._schema.get("nullable") is True:
            types = [*types, "null"]
        if "number" in types:
            types = [each for each in types if each != "integer"]
        return tuple(dict.fromkeys(types))

    def values(self) -> tuple[Any, ...] | None:
        if "enum" not in self._schema:
            return (self._schema["const"],) if "const" in self._schema else None
        values = self._schema["enum"]
        if not isinstance(values, list) or not values:
            raise self._malformed("enum", "a list of at least one value")
        if "const" in self._schema:
            values = [value for value in values if identity(value) == identity(self._schema["const"])]
        return tuple(values)

    def _number(self, keyword: str) -> Decimal | None:
        value = self._schema.get(keyword)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or value - value != 0:
            raise self._malformed(keyword, "a number")
        return Decimal(repr(value)) if isinstance(value, float) else Decimal(value)

    def limit(self, keyword: str, exclusive: str, tighter: Any) -> Limit | None:
        beyond = self._schema.get(exclusive) is True  # as in draft 4
        inner = self._number(keyword)
        outer = None if isinstance(self._schema.get(exclusive), bool) else self._number(exclusive)
        given = [(value, is_open) for value, is_open in ((inner, beyond), (outer, True)) if value is not None]
        if not given:
            return None
        value = tighter(value for value, _ in given)
        if abs(value) >= _FAR:
            if (value > 0) == (tighter is max):
                raise Unkept(f"has a `{keyword}`{at(self._place)} of more than 15 digits, which is not supported")
            return None
        return value, any(is_open for each, is_open in given if each == value)

    def step(self) -> Decimal | None:
        step = self._number("multipleOf")
        if step is not None and step <= 0:
            raise self._malformed("multipleOf", "above 0")
        return step

    def most(self, keyword: str) -> int | None:
        value = self._number(keyword)
        if value is None:
            return None
        if value < 0 or value != value.to_integral_value():
            raise self._malformed(keyword, "a whole number of 0 or more")
        return int(min(value, _FAR))

    def count(self, keyword: str) -> int:
        value = self.most(keyword) or 0
        if value > MOST_MINIMUM:
            raise Unkept(f"has a `{keyword}`{at(self._place)} above {MOST_MINIMUM}, which is not supported")
        return value

    def text(self, keyword: str) -> str | None:
        value = self._schema.get(keyword)
        if value is not None and not isinstance(value, str):
            raise self._malformed(keyword, "a text")
        return value

    def mapping(self, keyword: str) -> Mapping[str, Any]:
        value = self._schema.get(keyword, {})
        if not isinstance(value, dict):
            raise self._malformed(keyword, "an object")
        return value

    def texts(self, keyword: str) -> list[str]:
        value = self._schema.get(keyword, [])
        if isinstance(value, bool) and keyword == "required":  # draft 3, which some still write into properties
            return []
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise self._malformed(keyword, "a list of names")
        return value

    def listed(self) -> dict[str, Any]:
        """`prefixItems` and `items`; before 2020 they were `items` and `additionalItems`."""
        items = self._schema.get("items", True)
        prefix = self._schema.get("prefixItems", [])
        if isinstance(items, list):
            prefix, items = items, self._schema.get("additionalItems", True)
        if not isinstance(prefix, list):
            raise self._malformed("prefixItems", "a list of schemas")
        return {"prefix": tuple(prefix), "items": items}


def identity(value: Any) -> Any:
    """What is equal, and can be looked up, where two values are equal as JSON: 1 is 1.0, but true is not 1."""
    if isinstance(value, bool):
        return ("a boolean", value)
    if isinstance(value, list):
        return ("an array", tuple(map(identity, value)))
    if isinstance(value, dict):
        return ("an object", frozenset((name, identity(each)) for name, each in value.items()))
    return value
