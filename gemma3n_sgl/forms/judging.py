"""What a value given outright fits, and whether two alternatives can be told apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any

from gemma3n_sgl.forms.grammar import Unkept
from gemma3n_sgl.forms.keywords import Demands, Limit, identity
from gemma3n_sgl.forms.patterns import found_in

Ways = Callable[[Any], Sequence[Demands]]
"""A schema's alternatives; a value fits that fits one of them."""


def fits(value: Any, asks: Demands, ways: Ways) -> bool:
    """Whether a value keeps to all of one alternative."""
    if asks.types is not None and not any(_is(value, kind) for kind in asks.types):
        return False
    if asks.values is not None and identity(value) not in asks.known:
        return False
    if isinstance(value, str):
        return _within(len(value), asks.shortest, asks.longest) and (not asks.pattern or _matches(asks.pattern, value))
    if isinstance(value, bool) or value is None:
        return True
    if isinstance(value, int | float):
        number = Decimal(repr(value))
        exact = (number, False)
        return not (_beyond(exact, asks.high) or _beyond(asks.low, exact)) and not (asks.step and Fraction(number) % Fraction(asks.step))
    if isinstance(value, list):
        items = [asks.prefix[i] if i < len(asks.prefix) else asks.items for i in range(len(value))]
        repeated = asks.unique and len(set(map(identity, value))) < len(value)
        return _within(len(value), asks.fewest, asks.most) and not repeated and all(_fits_one(*pair, ways) for pair in zip(value, items, strict=True))
    members = [(each, asks.properties.get(name, asks.others)) for name, each in value.items()]
    sized = _within(len(value), asks.least_properties, asks.most_properties)
    return sized and set(asks.required) <= set(value) and all(_fits_one(*pair, ways) for pair in members)


def apart(some: Sequence[Demands], others: Sequence[Demands], ways: Ways) -> bool:
    """Whether nothing that is written for the one side fits the other."""
    return all(_distinct(one, other, ways) for one in some for other in others)


def _distinct(a: Demands, b: Demands, ways: Ways) -> bool:
    for few, rest in ((a, b), (b, a)):
        if few.values is not None:
            return not any(fits(value, few, ways) and fits(value, rest, ways) for value in few.values)
    kinds = set(a.kinds()) | set(b.kinds())
    shared = set(a.kinds()) & set(b.kinds()) | ({"number"} if {"integer", "number"} <= kinds else set())
    if shared <= {"integer", "number"}:
        return not shared or _beyond(a.low, b.high) or _beyond(b.low, a.high)
    if shared != {"object"}:
        return False
    if all(one.others in (None, False) and set(other.required) - set(one.properties) for one, other in ((a, b), (b, a))):
        return True
    both = [name for name in a.required if name in b.required]
    return any(apart(ways(a.properties.get(name, True)), ways(b.properties.get(name, True)), ways) for name in both)


def _fits_one(value: Any, schema: Any, ways: Ways) -> bool:
    return schema is None or any(fits(value, asks, ways) for asks in ways(schema))


def _is(value: Any, kind: str) -> bool:
    if isinstance(value, bool) or value is None:
        return kind == ("null" if value is None else "boolean")
    if isinstance(value, int | float):
        return kind == "number" or (kind == "integer" and value % 1 == 0)
    return kind == ("string" if isinstance(value, str) else "array" if isinstance(value, list) else "object")


def _within(count: int, least: int, most: int | None) -> bool:
    return least <= count and (most is None or count <= most)


def _matches(pattern: str, value: str) -> bool:
    try:
        return found_in(pattern, value)
    except Unkept as unkept:
        raise Unkept(f"has a `pattern` that {unkept.says}") from None


def _beyond(low: Limit | None, high: Limit | None) -> bool:
    """Whether no number is at or above `low` and at or below `high`."""
    if low is None or high is None:
        return False
    return low[0] > high[0] or (low[0] == high[0] and (low[1] or high[1]))
