"""What a schema's keywords are, and two schemas as one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gemma3n_sgl.errors import InvalidValue

TYPES: dict[str, Callable[[Any], bool]] = {
    "string": lambda value: isinstance(value, str),
    "number": lambda value: isinstance(value, int | float) and not isinstance(value, bool),
    "integer": lambda value: isinstance(value, int | float) and not isinstance(value, bool) and value == int(value),
    "boolean": lambda value: isinstance(value, bool),
    "null": lambda value: value is None,
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}

_SOME = ("a list of at least one", lambda value: isinstance(value, list) and bool(value))
_TEXT = ("a text", lambda value: isinstance(value, str))
_SCHEMA = ("a schema", lambda value: isinstance(value, bool | dict))
_NUMBER = ("a number", lambda value: isinstance(value, int | float) and not isinstance(value, bool))
KNOWN: dict[str, tuple[str, Callable[[Any], bool]]] = {
    **dict.fromkeys(("allOf", "anyOf", "oneOf", "enum"), _SOME),
    **dict.fromkeys(("$ref", "pattern", "format"), _TEXT),
    **dict.fromkeys(("additionalProperties", "items"), _SCHEMA),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"), _NUMBER),
    **dict.fromkeys(("minProperties", "maxProperties", "minItems", "maxItems", "minLength", "maxLength"), _NUMBER),
    "properties": ("an object of schemas", lambda value: isinstance(value, dict)),
    "required": ("a list of names", lambda value: isinstance(value, list) and all(isinstance(name, str) for name in value)),
    "prefixItems": ("a list of schemas", lambda value: isinstance(value, list)),
    "type": ("a type or a list of them", lambda value: isinstance(value, str) or (isinstance(value, list) and bool(value))),
    "nullable": ("true or false", lambda value: isinstance(value, bool)),
    "const": ("a value", lambda value: True),
}
"""Keyword → what it has to be, in words and as a check."""
ANNOTATIONS = {
    *("title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly", "$comment", "$schema", "$id"),
    *("$defs", "definitions", "discriminator", "contentEncoding", "contentMediaType", "strict", "name"),
}

_IMPLIED = {
    "object": {"properties", "required", "additionalProperties", "minProperties", "maxProperties"},
    "array": {"items", "prefixItems", "minItems", "maxItems"},
    "string": {"minLength", "maxLength", "pattern", "format"},
    "number": {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"},
}
_LARGER = {"minLength", "minItems", "minProperties", "minimum", "exclusiveMinimum"}
_SMALLER = {"maxLength", "maxItems", "maxProperties", "maximum", "exclusiveMaximum"}


def check_shape(schema: dict[str, Any], place: str) -> None:
    """Raise Refusal where a keyword is unknown, or is not what it has to be."""
    for keyword, value in schema.items():
        if keyword in KNOWN:
            says, holds = KNOWN[keyword]
            if not holds(value):
                raise Refusal(f"`{keyword}` is {says}", place)
        elif keyword not in ANNOTATIONS and not keyword.startswith("x-"):
            raise Refusal(f"`{keyword[:40]}` is not supported", place)


class Refusal(Exception):
    """What can't be kept of a schema, and at which place in it."""

    def __init__(self, says: str, place: str = "") -> None:
        super().__init__(says)
        self.says, self.place = says, place

    def told(self, place: str, param: str) -> InvalidValue:
        return InvalidValue(f"The schema{place} can't be kept: {self.says}.", param=param)


def types_of(schema: dict[str, Any], place: str) -> list[str]:
    """The types a schema allows; where it names none, the one its keywords speak of, else all."""
    given = schema.get("type")
    if given is None:
        implied = [kind for kind, keywords in _IMPLIED.items() if keywords & schema.keys()]
        kinds = implied[:1] if len(implied) == 1 else [kind for kind in TYPES if kind != "integer"]
    else:
        kinds = [given] if isinstance(given, str) else given
        if any(not isinstance(kind, str) or kind not in TYPES for kind in kinds):
            raise Refusal("`type` is one of " + ", ".join(TYPES), place)
    return [*kinds, "null"] if schema.get("nullable") is True and "null" not in kinds else list(kinds)


def merged(first: Any, second: Any, place: str) -> Any:
    """One schema that allows what both allow. Refusal where that can't be said."""
    if first is False or second is False:
        return False
    if first is True:
        return second
    if second is True:
        return first
    if not isinstance(first, dict) or not isinstance(second, dict):
        raise Refusal("is no schema: an object, true or false", place)
    check_shape(first, place)
    check_shape(second, place)
    result = dict(first)
    for keyword, value in second.items():
        result[keyword] = _both(keyword, result[keyword], value, place) if keyword in result else value
    _keep_out(first, second, result, place)
    return result


def _both(keyword: str, ours: Any, theirs: Any, place: str) -> Any:
    if ours == theirs or keyword in ANNOTATIONS:
        return theirs
    if keyword in _LARGER:
        return max(ours, theirs)
    if keyword in _SMALLER:
        return min(ours, theirs)
    if keyword == "required":
        return list(dict.fromkeys([*ours, *theirs]))
    if keyword in ("properties", "additionalProperties", "items"):
        if keyword == "properties":
            return ours | {name: merged(ours[name], each, f"{place}.{name}") if name in ours else each for name, each in theirs.items()}
        return merged(ours, theirs, place)
    if keyword == "type":
        ours, theirs = ([kind] if isinstance(kind, str) else kind for kind in (ours, theirs))
        both = [kind for kind in ours if kind in theirs or (kind == "integer" and "number" in theirs)]
        both += [kind for kind in theirs if kind == "integer" and "number" in ours and kind not in both]
        if both:
            return both
        raise Refusal("allows nothing: its types exclude each other", place)
    if keyword == "enum":
        if both := [value for value in ours if value in theirs]:
            return both
        raise Refusal("allows nothing: its values exclude each other", place)
    if keyword == "allOf":
        return [*ours, *theirs]
    raise Refusal(f"`{keyword}` twice, in schemas that are put together, is not supported", place)


def _keep_out(first: dict[str, Any], second: dict[str, Any], result: dict[str, Any], place: str) -> None:
    """A property that only one of two closed objects knows is forbidden by the other."""
    for one, other in ((first, second), (second, first)):
        if one.get("additionalProperties") is False and (strangers := set(other.get("properties", {})) - set(one.get("properties", {}))):
            if strangers & set(result.get("required", [])):
                raise Refusal("allows nothing: a required property is forbidden", place)
            result["properties"] = {name: each for name, each in result["properties"].items() if name not in strangers}


def disjoint(options: list[Any]) -> bool:
    """Whether no value fits two of these schemas, as far as types, constants and a distinguishing property tell."""
    return all(_apart(one, other) for i, one in enumerate(options) for other in options[i + 1 :])


def _apart(one: Any, other: Any) -> bool:
    if not isinstance(one, dict) or not isinstance(other, dict):
        return one is False or other is False
    check_shape(one, "")
    check_shape(other, "")
    values, others = _values(one), _values(other)
    if values is not None and others is not None:
        return not any(value in others for value in values)
    kinds, more = (set(types_of(each, "")) for each in (one, other))
    if not kinds & more and not ({"integer", "number"} <= kinds | more and kinds & {"integer", "number"} and more & {"integer", "number"}):
        return True
    if kinds == more == {"object"}:
        shared = set(one.get("required", [])) & set(other.get("required", []))
        return any(_apart(one.get("properties", {}).get(name, True), other.get("properties", {}).get(name, True)) for name in shared)
    return False


def _values(schema: dict[str, Any]) -> list[Any] | None:
    return [schema["const"]] if "const" in schema else schema.get("enum")
