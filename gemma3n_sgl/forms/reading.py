"""A schema as a list of alternatives without references: `$ref`, `allOf`, `anyOf` and `oneOf` resolved, siblings put together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from math import lcm
from typing import Any

from gemma3n_sgl.forms.bounds import MOST_STEPS
from gemma3n_sgl.forms.grammar import Unkept
from gemma3n_sgl.forms.judging import apart
from gemma3n_sgl.forms.keywords import Demands, Limit, at, check_names, demands, identity
from gemma3n_sgl.forms.references import recursive, resolved

_COMPOSED = ("$ref", "allOf", "anyOf", "oneOf")


@dataclass(frozen=True)
class Alternative:
    """One of the ways to fit a schema, its place, and the rounds of recursion that are left inside."""

    asks: Demands
    place: str
    depth: int


class Document:
    """A whole schema, within which references lead."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._steps = 0
        self._pairs: dict[tuple[int, int], Any] = {}
        self._recursive = recursive(root)
        self._cut_short = False

    def alternatives(self, schema: Any, place: str, depth: int) -> tuple[list[Alternative], bool]:
        """Every way to fit the schema, and whether others were left out because the rounds of a recursion are used up."""
        self._cut_short = False
        return self._alternatives(schema, place, depth, ()), self._cut_short

    def ways(self, schema: Any) -> list[Demands]:
        """What a schema asks, in each of its alternatives."""
        return [each.asks for each in self._alternatives(schema, "", 1, ())]

    def _alternatives(self, schema: Any, place: str, depth: int, seen: tuple[str, ...]) -> list[Alternative]:
        self._step()
        if schema is True or schema is False:
            return [Alternative(Demands(), place, depth)] if schema else []
        if not isinstance(schema, dict):
            raise Unkept(f"has no schema{at(place)}: that is an object, true or false")
        check_names(schema, place)
        found = [Alternative(demands(schema, place), place, depth)]
        for keyword in _COMPOSED:
            if keyword in schema:
                for group in self._groups(keyword, schema[keyword], place, depth, seen):
                    found = [both for one in found for other in group if (both := self._both(one, other))]
        return found

    def _step(self) -> None:
        self._steps += 1
        if self._steps > MOST_STEPS:
            raise Unkept("is too large, with all that its references and alternatives lead to")

    def together(self, one: Any, other: Any) -> Any:
        """A schema that allows what both allow; None stands for one that nobody gave."""
        if one is None or other is None or one is True or other is True:
            return one if other is None or other is True else other
        if one is False or other is False:
            return False
        key = (id(one), id(other))
        if key not in self._pairs:
            self._pairs[key] = ({"allOf": [one, other]}, one, other)  # held, so that their ids stay theirs
        return self._pairs[key][0]

    def _groups(self, keyword: str, given: Any, place: str, depth: int, seen: tuple[str, ...]) -> Iterator[list[Alternative]]:
        """The alternatives that a keyword adds; one of each group must be fitted."""
        if keyword == "$ref":
            yield self._referred(given, place, depth, seen)
            return
        if not isinstance(given, list) or not given:
            raise Unkept(f"has {'an' if keyword[0] in 'ao' else 'a'} `{keyword}`{at(place)} that is not a list of at least one schema")
        each = [self._alternatives(part, below(place, f"{keyword}[{i}]"), depth, seen) for i, part in enumerate(given)]
        if keyword == "allOf":
            yield from each
            return
        if keyword == "oneOf" and not all(self._apart(one, other) for i, one in enumerate(each) for other in each[i + 1 :]):
            raise Unkept(f"has a `oneOf`{at(place)} whose alternatives overlap or can't be told apart; say `anyOf`, or give each a `const`")
        yield [alternative for part in each for alternative in part]

    def _apart(self, some: list[Alternative], others: list[Alternative]) -> bool:
        return apart([one.asks for one in some], [one.asks for one in others], self.ways)

    def _referred(self, ref: Any, place: str, depth: int, seen: tuple[str, ...]) -> list[Alternative]:
        if not isinstance(ref, str) or not ref.startswith("#") or (ref != "#" and not ref.startswith("#/")):
            raise Unkept(f"has a `$ref`{at(place)} that leads out of it, which is not supported; put what it names into `$defs`")
        if ref in seen:
            return []
        if ref in self._recursive:
            depth -= 1
            if depth < 0:
                self._cut_short = True
                return []
        return self._alternatives(resolved(self._root, ref, place), place, depth, (*seen, ref))

    def _both(self, one: Alternative, other: Alternative) -> Alternative | None:
        self._step()
        asks = self._merged(one.asks, other.asks, one.place)
        place = one.place if other.asks == Demands() else max(one.place, other.place, key=len)
        return Alternative(asks, place, min(one.depth, other.depth)) if asks else None

    def _merged(self, a: Demands, b: Demands, place: str) -> Demands | None:
        """What both ask; None where they exclude each other."""
        if a == Demands() or b == Demands():
            return a if b == Demands() else b
        types = _types(a, b)
        values = a.values if b.values is None else b.values
        if a.values is not None and b.values is not None:
            values = tuple(value for value in a.values if identity(value) in b.known)
        if types == () or values == ():
            return None
        if a.pattern and b.pattern and a.pattern != b.pattern:
            raise Unkept(f"has two patterns{at(place)} for one text, which is not supported")
        names = [*a.properties, *(name for name in b.properties if name not in a.properties)]
        length = max(len(a.prefix), len(b.prefix))
        return replace(
            a,
            types=types,
            values=values,
            low=_tighter(a.low, b.low, 1),
            high=_tighter(a.high, b.high, -1),
            step=_steps(a, b, place),
            shortest=max(a.shortest, b.shortest),
            longest=_least(a.longest, b.longest),
            pattern=a.pattern or b.pattern,
            format=a.format or b.format,
            properties={name: self.together(a.properties.get(name, a.others), b.properties.get(name, b.others)) for name in names},
            required=tuple(dict.fromkeys([*a.required, *b.required])),
            others=self.together(a.others, b.others),
            least_properties=max(a.least_properties, b.least_properties),
            most_properties=_least(a.most_properties, b.most_properties),
            prefix=tuple(self.together(item_of(a, i), item_of(b, i)) for i in range(length)),
            items=self.together(a.items, b.items),
            fewest=max(a.fewest, b.fewest),
            most=_least(a.most, b.most),
            unique=a.unique or b.unique,
            implied=tuple(kind for kind in a.implied if kind in b.implied) or a.implied or b.implied,
        )


def item_of(asks: Demands, i: int) -> Any:
    """The schema of an array's i-th item."""
    return asks.prefix[i] if i < len(asks.prefix) else asks.items


def below(place: str, step: str) -> str:
    return f"{place}.{step}".lstrip(".")


def _types(a: Demands, b: Demands) -> tuple[str, ...] | None:
    if a.types is None or b.types is None:
        return a.types if b.types is None else b.types
    wide_a, wide_b = ({*each, "integer"} if "number" in each else set(each) for each in (a.types, b.types))
    return tuple(kind for kind in dict.fromkeys([*a.types, *b.types]) if kind in wide_a and kind in wide_b)


def _tighter(a: Limit | None, b: Limit | None, sign: int) -> Limit | None:
    given = [limit for limit in (a, b) if limit is not None]
    return max(given, key=lambda limit: (limit[0] * sign, limit[1]), default=None)


def _steps(a: Demands, b: Demands, place: str) -> Decimal | None:
    if a.step is None or b.step is None or a.step == b.step:
        return a.step or b.step
    if a.step % 1 or b.step % 1:
        raise Unkept(f"has two `multipleOf`{at(place)}, which is supported for whole numbers only")
    return Decimal(lcm(int(a.step), int(b.step)))


def _least(a: int | None, b: int | None) -> int | None:
    return min((each for each in (a, b) if each is not None), default=None)
