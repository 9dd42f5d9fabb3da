"""A JSON Schema → a grammar of one-line JSON in which every answer ends: whatever the schema leaves open has a bound."""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from gemma3n_sgl.forms.formats import FORMATS
from gemma3n_sgl.forms.grammar import EMPTY, Expr, Grammar, Oversize, either, literal, sequence
from gemma3n_sgl.forms.merging import ANNOTATIONS, TYPES, Refusal, check_shape, disjoint, merged, types_of
from gemma3n_sgl.forms.numbers import decimals, integers
from gemma3n_sgl.forms.patterns import pattern

_DEEPEST = 40
_MOST_NODES = 3000


@dataclass(frozen=True)
class Bounds:
    """What ends where a schema leaves it open: characters of a string, items of an array or keys of an object, digits, depth."""

    characters: int
    items: int
    digits: int
    depth: int


LADDER = [
    Bounds(characters, items, digits, depth)
    for characters, items, digits, depth in (
        *((2048, 32, 12, 4), (1024, 32, 12, 4), (512, 16, 12, 4), (512, 16, 12, 3), (256, 16, 9, 3), (256, 8, 9, 3), (256, 8, 9, 2)),
        *((128, 8, 9, 2), (128, 4, 9, 2), (64, 4, 9, 2), (64, 4, 6, 1), (32, 4, 6, 1), (32, 2, 4, 1), (16, 2, 3, 1), (8, 1, 3, 1), (4, 1, 2, 0)),
    )
]
"""From generous to tight; the first whose longest answer is within the budget is taken."""


class Compiler:
    """One schema within some bounds. `compile` gives the grammar of its root, and what its longest text costs."""

    def __init__(self, root: Any, bounds: Bounds, param: str) -> None:
        self._root, self._bounds, self._param = root, bounds, param
        self._grammar = Grammar()
        self._nodes = 0
        self._refs: list[str] = []
        character = Expr('[^"\\\\\\x00-\\x1f\\x7f] | "\\\\" ["\\\\/bfnrt]', 1)
        self._character = self._grammar.rule(character, "char")

    def compile(self) -> tuple[str, int]:
        try:
            expr = self._value(self._root, "", 0)
        except Refusal as refusal:
            place = f" at `{refusal.place[:120]}`" if refusal.place else ""
            raise refusal.told(place, self._param) from None
        if expr is None:
            raise Refusal("its recursion never ends").told("", self._param)
        return self._grammar.text(expr), expr.cost

    # Any value

    def _value(self, schema: Any, place: str, depth: int) -> Expr | None:
        """What a schema allows; None where that can't end within the depth."""
        self._nodes += 1
        if self._nodes > _MOST_NODES:
            raise Oversize("The schema is too large to be kept to. Simplify it.", param=self._param)
        if depth > _DEEPEST:
            raise Refusal("is too deep", place)
        if schema is True or schema == {}:
            return self._anything(place, depth)
        if schema is False:
            raise Refusal("allows nothing", place)
        if not isinstance(schema, dict):
            raise Refusal("is no schema: an object, true or false", place)
        check_shape(schema, place)
        if "$ref" in schema:
            return self._ref(schema, place, depth)
        if "allOf" in schema:
            rest = {name: value for name, value in schema.items() if name != "allOf"}
            for i, part in enumerate(schema["allOf"]):
                rest = merged(rest, self._resolved(part, place), f"{place}.allOf[{i}]".lstrip("."))
            return self._value(rest, place, depth + 1)
        for keyword in ("anyOf", "oneOf"):
            if keyword in schema:
                return self._alternatives(schema, keyword, place, depth)
        if "const" in schema or "enum" in schema:
            return self._enumerated(schema, place)
        kinds = types_of(schema, place)
        found = [expr for kind in kinds if (expr := self._typed(kind, schema, place, depth)) is not None]
        return either(found) if found else None

    def _anything(self, place: str, depth: int) -> Expr | None:
        kinds = ["string", "number", "boolean", "null"] + (["array", "object"] if self._depth(depth) else [])
        found = [expr for kind in kinds if (expr := self._typed(kind, {}, place, depth)) is not None]
        return self._grammar.rule(either(found), "any")

    def _depth(self, depth: int) -> bool:
        return depth < self._bounds.depth

    def _typed(self, kind: str, schema: dict[str, Any], place: str, depth: int) -> Expr | None:
        if kind == "null":
            return literal("null")
        if kind == "boolean":
            return either([literal("true"), literal("false")])
        if kind == "string":
            return self._string(schema, place)
        if kind == "array":
            return self._array(schema, place, depth)
        if kind == "object":
            return self._object(schema, place, depth)
        return self._number(schema, place, whole=kind == "integer")

    def _resolved(self, schema: Any, place: str) -> Any:
        """A schema in place of a reference to it."""
        seen = 0
        while isinstance(schema, dict) and "$ref" in schema:
            seen += 1
            if seen > _DEEPEST:
                raise Refusal("refers to itself alone", place)
            rest = {name: value for name, value in schema.items() if name != "$ref"}
            schema = merged(self._target(schema["$ref"], place), rest, place) if rest else self._target(schema["$ref"], place)
        return schema

    def _target(self, ref: Any, place: str) -> Any:
        if not isinstance(ref, str) or not ref.startswith("#"):
            raise Refusal("`$ref` leads out of the schema, which is not supported", place)
        found = self._root
        for step in filter(None, ref[1:].split("/")):
            step = step.replace("~1", "/").replace("~0", "~")
            try:
                found = found[int(step)] if isinstance(found, list) else found[step]
            except (KeyError, IndexError, ValueError, TypeError):
                raise Refusal(f"`$ref` leads nowhere: {ref[:80]}", place) from None
        return found

    def _ref(self, schema: dict[str, Any], place: str, depth: int) -> Expr | None:
        ref = str(schema["$ref"])
        if self._refs.count(ref) > self._bounds.depth:
            return None
        self._refs.append(ref)
        try:
            expr = self._value(self._resolved(schema, place), place, depth + 1)
        finally:
            self._refs.pop()
        return None if expr is None else self._grammar.rule(expr)

    def _alternatives(self, schema: dict[str, Any], keyword: str, place: str, depth: int) -> Expr | None:
        rest = {name: value for name, value in schema.items() if name != keyword}
        options = [self._resolved(option, place) for option in schema[keyword]]
        bare = not set(rest) - ANNOTATIONS
        parts = [option if bare else merged(rest, option, place) for option in options]
        if keyword == "oneOf" and not disjoint(parts):
            raise Refusal("the alternatives of `oneOf` overlap, or can't be told apart; use `anyOf`", place)
        raw = schema[keyword] if bare else parts
        found = [expr for i, part in enumerate(raw) if (expr := self._value(part, f"{place}.{keyword}[{i}]".lstrip("."), depth + 1))]
        return either(found) if found else None

    def _enumerated(self, schema: dict[str, Any], place: str) -> Expr:
        values = [schema["const"]] if "const" in schema else schema["enum"]
        if "const" in schema and "enum" in schema:
            values = [value for value in values if value in schema["enum"]]
        if others := set(schema) - ANNOTATIONS - {"const", "enum", "type", "nullable"}:
            raise Refusal(f"`{sorted(others)[0]}` beside `enum` or `const` is not supported", place)
        if "type" in schema:
            kinds = types_of(schema, place)
            values = [value for value in values if any(TYPES[kind](value) for kind in kinds)]
        if not values:
            raise Refusal("allows nothing", place)
        return self._grammar.rule(either([literal(json.dumps(value, ensure_ascii=False)) for value in values]))

    # Strings and numbers

    def _string(self, schema: dict[str, Any], place: str) -> Expr:
        low = _count(schema, "minLength", place, 0)
        high = _count(schema, "maxLength", place, None)
        text = schema.get("pattern") or FORMATS.get(schema.get("format", ""))
        if text:
            most = min(self._bounds.characters, 64)
            expr, least, greatest = pattern(self._grammar, text, most=most, json=True, param=self._param, place=place)
            if least < low or (high is not None and greatest > high):
                raise Refusal("`pattern` or `format` together with these lengths can't be kept; say the lengths in the pattern", place)
        else:
            if high is not None and low > high:
                raise Refusal("`minLength` is above `maxLength`", place)
            limit = max(low, self._bounds.characters) if high is None else min(high, max(low, self._bounds.characters))
            expr = self._grammar.repeat(self._character, low, limit)
        return self._grammar.rule(sequence(literal('"'), Expr(f"({expr.text})", expr.cost), literal('"')), "str")

    def _number(self, schema: dict[str, Any], place: str, *, whole: bool) -> Expr:
        low, above = _limit(schema, "minimum", "exclusiveMinimum", place, max)
        high, below = _limit(schema, "maximum", "exclusiveMaximum", place, min)
        digits = self._bounds.digits
        if "multipleOf" in schema:
            return self._multiple(schema, low, high, above, below, place, whole=whole)
        if low is None and high is None:
            natural = f'("0" | [1-9] [0-9]{{0,{digits - 1}}})'
            fraction = "" if whole else f' ("." [0-9]{{1,{min(digits, 6)}}})?'
            return self._grammar.rule(Expr(f'"-"? {natural}{fraction}', digits + 1 + (0 if whole else 1 + min(digits, 6))), "num")
        reach = Decimal(10) ** digits
        if low is None:
            assert high is not None
            low = min(high - 1, -reach)
        elif high is None:
            high = max(low + 1, reach)
        first = int(low.to_integral_value("ROUND_CEILING")) if not above else int(low.to_integral_value("ROUND_FLOOR")) + 1
        last = int(high.to_integral_value("ROUND_FLOOR")) if not below else int(high.to_integral_value("ROUND_CEILING")) - 1
        found = [integers(first, last)]
        if not whole:
            places = max(min(digits, 4), -int(low.as_tuple().exponent), -int(high.as_tuple().exponent))
            if places > 12:
                raise Refusal("a limit has too many decimals", place)
            found.append(decimals(low, high, places, strictly_above=above, strictly_below=below))
        kept = [expr for expr in found if expr is not None]
        if not kept:
            raise Refusal("allows no number", place)
        return self._grammar.rule(either(kept), "num")

    def _multiple(
        self, schema: dict[str, Any], low: Decimal | None, high: Decimal | None, above: bool, below: bool, place: str, *, whole: bool
    ) -> Expr:
        """Some two hundred multiples at most, one by one."""
        step = _decimal(schema["multipleOf"], "multipleOf", place)
        if step <= 0:
            raise Refusal("`multipleOf` is above 0", place)
        if whole and step != int(step):
            raise Refusal("`multipleOf` of an integer is an integer", place)
        if low is not None:
            begin = int((low / step).to_integral_value("ROUND_CEILING"))
        else:
            begin = 0 if high is None or high >= 0 else int((high / step).to_integral_value("ROUND_FLOOR")) - 100
        found = []
        for factor in range(begin, begin + 200):
            value = factor * step
            if (low is not None and (value < low or (above and value == low))) or (high is not None and (value > high or (below and value == high))):
                continue
            found.append(literal(format(value.normalize(), "f") if value else "0"))
        if not found:
            raise Refusal("allows no number", place)
        return self._grammar.rule(either(found), "num")

    # Arrays and objects

    def _array(self, schema: dict[str, Any], place: str, depth: int) -> Expr | None:
        prefix = schema.get("prefixItems", [])
        low = _count(schema, "minItems", place, 0)
        high = _count(schema, "maxItems", place, None)
        if high is not None and low > high:
            raise Refusal("`minItems` is above `maxItems`", place)
        if low > 1024:
            raise Refusal("`minItems` is too large", place)
        high = min(high if high is not None else low + self._bounds.items, max(low, self._bounds.items))
        items = schema.get("items", True)
        if items is False:
            high = min(high, len(prefix))
            if low > high:
                raise Refusal("`minItems` is above what `prefixItems` allows", place)
        if not self._depth(depth) and "items" not in schema and low == 0:
            high = min(high, len(prefix))
        fixed = [self._value(each, f"{place}.prefixItems[{i}]".lstrip("."), depth + 1) for i, each in enumerate(prefix[:high])]
        each = self._value(items, f"{place}.items".lstrip("."), depth + 1) if high > len(prefix) else EMPTY
        possible = next((i for i, expr in enumerate(fixed) if expr is None), len(fixed) if each is not None else len(prefix))
        high = high if possible == len(fixed) and each is not None else min(high, possible)
        if low > high:
            return None
        return self._grammar.rule(sequence(literal("["), self._listed([expr for expr in fixed if expr], each or EMPTY, low, high), literal("]")))

    def _listed(self, fixed: list[Expr], each: Expr, low: int, high: int) -> Expr:
        """`low` to `high` items: the fixed ones first."""
        if high == 0:
            return EMPTY
        comma = literal(", ")
        rest = EMPTY
        begun = min(len(fixed), high)
        if high > len(fixed) and fixed:
            more = sequence(comma, each)
            rest = self._grammar.repeat(Expr(f"({more.text})", more.cost), max(0, low - len(fixed)), high - len(fixed))
        elif high > 0 and not fixed:
            more = sequence(comma, each)
            tail = self._grammar.repeat(Expr(f"({more.text})", more.cost), max(0, low - 1), high - 1)
            whole = sequence(each, tail)
            return whole if low else Expr(f"({whole.text})?", whole.cost)
        for i in reversed(range(begun)):
            item = sequence(comma, fixed[i]) if i else fixed[i]
            joined = sequence(item, rest)
            rest = joined if low > i else Expr(f"({joined.text})?", joined.cost)
        return rest

    def _object(self, schema: dict[str, Any], place: str, depth: int) -> Expr | None:
        properties = schema.get("properties", {})
        required = schema.get("required", [])
        extra = schema.get("additionalProperties", True)
        for name in required:
            if name not in properties:
                if extra is False:
                    raise Refusal(f"requires `{name}`, which `additionalProperties` forbids", place)
                properties = properties | {name: extra}
        least, most = _count(schema, "minProperties", place, 0), _count(schema, "maxProperties", place, None)
        if not properties:
            return self._dictionary(extra, least, most, place, depth)
        if least > len(required) or (most is not None and most < len(properties)):
            raise Refusal("`minProperties` or `maxProperties` beside `properties` is not supported", place)
        members: list[tuple[Expr, bool]] = []
        for name, each in properties.items():
            if each is False and name not in required:
                continue
            inner = f"{place}.{name}".lstrip(".")
            value = self._value(each, inner, depth + 1)
            if value is not None:
                members.append((sequence(literal(f"{json.dumps(name, ensure_ascii=False)}: "), value), name in required))
            elif name in required:
                return None
        return self._grammar.rule(sequence(literal("{"), self._members(members), literal("}")))

    def _members(self, members: list[tuple[Expr, bool]]) -> Expr:
        """The members in their order, those that are not required with or without; `after` is what follows once one stands before."""
        after, at_start = EMPTY, EMPTY
        for member, required in reversed(members):
            with_comma = sequence(literal(", "), member, after)
            first = sequence(member, after)
            if required:
                after, at_start = self._grammar.rule(with_comma), self._grammar.rule(first)
            else:
                after = self._grammar.rule(Expr(f"({with_comma.text} | {after.text})", with_comma.cost))
                at_start = self._grammar.rule(Expr(f"({first.text} | {at_start.text})", max(first.cost, at_start.cost)))
        return at_start

    def _dictionary(self, extra: Any, least: int, most: int | None, place: str, depth: int) -> Expr | None:
        """An object whose keys are free. Two keys may turn out the same, so that more than one can't be demanded."""
        if least > 1:
            raise Refusal("`minProperties` above 1 can't be kept with keys of any name", place)
        count = min(most if most is not None else self._bounds.items, self._bounds.items)
        if extra is False or count == 0 or (not self._depth(depth) and not least):
            if least:
                raise Refusal("`minProperties` is above what is allowed", place)
            return literal("{}")
        value = self._value(extra, f"{place}.additionalProperties".lstrip("."), depth + 1)
        if value is None:
            return None if least else literal("{}")
        key = sequence(literal('"'), Expr("[a-zA-Z_] [a-zA-Z0-9_]{0,23}", 24), literal('": '))
        member = self._grammar.rule(sequence(key, value), "member")
        return self._grammar.rule(sequence(literal("{"), self._listed([], member, least, count), literal("}")))


def _count(schema: dict[str, Any], keyword: str, place: str, default: Any) -> Any:
    value = schema.get(keyword, default)
    if value is None or value is default:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or value != int(value) or value < 0:
        raise Refusal(f"`{keyword}` is a number of 0 or more", place)
    if keyword == "minLength" and value > 8192:
        raise Refusal("`minLength` is too large", place)
    return int(value)


def _decimal(value: Any, keyword: str, place: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) > 1e15:
        raise Refusal(f"`{keyword}` is a number within ±10^15", place)
    return Decimal(repr(value))


def _limit(schema: dict[str, Any], keyword: str, exclusive: str, place: str, choose: Any) -> tuple[Decimal | None, bool]:
    """A limit of numbers, and whether it is itself outside."""
    given = [(_decimal(schema[name], name, place), name == exclusive) for name in (keyword, exclusive) if schema.get(name) is not None]
    if not given:
        return None, False
    value = choose(limit for limit, _ in given)
    return value, any(outside for limit, outside in given if limit == value)
