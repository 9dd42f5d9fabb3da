"""Values as grammars: one line of JSON with one space after each colon and comma, and bounds for whatever is left open."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from gemma3n_sgl.forms.bounds import MOST_NESTING, Bounds
from gemma3n_sgl.forms.grammar import Grammar, Impossible, Piece, Unkept, either, literal, sequence
from gemma3n_sgl.forms.judging import fits
from gemma3n_sgl.forms.keywords import Demands, at, identity
from gemma3n_sgl.forms.listing import Member, in_order, items, key, members
from gemma3n_sgl.forms.reading import Alternative, Document, below
from gemma3n_sgl.forms.scalars import number, text, written

_MOST_IN_ORDER = 24
"""Values of an array without repetitions."""

_DEEPEST = 2
"""Lists and objects without a schema, within each other."""


@dataclass(frozen=True)
class Spot:
    """Where in the answer a value stands: its schema's place, how many open lists are around it, the rounds of recursion left."""

    place: str
    within: int
    depth: int
    nesting: int = 0

    def at(self, step: str, *, listed: bool = False) -> Spot:
        return Spot(below(self.place, step), min(self.within + listed, _DEEPEST + 1), self.depth, self.nesting + 1)


class Values:
    """The values of one schema as pieces of one grammar. Impossible where there are none."""

    def __init__(self, document: Document, grammar: Grammar, bounds: Bounds) -> None:
        self._document, self._grammar = document, grammar
        self._bounds = [bounds]
        for _ in range(_DEEPEST + 1):
            self._bounds.append(self._bounds[-1].inside())
        self._known: dict[tuple[int, int, int], tuple[Any, Piece | Impossible]] = {}

    def value(self, schema: Any, spot: Spot) -> Piece:
        key_ = (id(schema), spot.within, spot.depth)
        if key_ not in self._known:
            try:
                self._known[key_] = (schema, self._new(schema, spot))
            except Impossible as impossible:
                self._known[key_] = (schema, impossible)
        found = self._known[key_][1]
        if isinstance(found, Impossible):
            raise found
        return found

    def _new(self, schema: Any, spot: Spot) -> Piece:
        if spot.nesting > MOST_NESTING:
            raise Unkept(f"is nested more than {MOST_NESTING} deep{at(spot.place)}")
        alternatives, cut_short = self._document.alternatives(schema, spot.place, spot.depth)
        pieces, why = [], [Impossible("a recursion never ends", endless=True)] if cut_short else []
        for each in alternatives:
            try:
                pieces.append(self._alternative(each, spot))
            except Impossible as impossible:
                why.append(impossible)
        if pieces:
            return self._grammar.rule(either(pieces))
        endless = next((each for each in why if each.endless), None)
        if endless or schema is False:
            raise endless or Impossible(f"nothing may stand{at(spot.place)}")
        raise Unkept(f"allows nothing{at(spot.place)}: {why[0] if why else 'its parts exclude each other'}")

    def _alternative(self, one: Alternative, spot: Spot) -> Piece:
        asks, spot = one.asks, replace(spot, depth=one.depth)
        if asks.values is None:
            pieces, why = [], []
            for kind in asks.kinds():
                try:
                    pieces.append(self._typed(kind, asks, spot))
                except Impossible as impossible:
                    why.append(impossible)
        else:
            pieces = [written(value, spot.place) for value in asks.values if fits(value, asks, self._document.ways)]
            why = [Impossible("none of its values fits the rest")]
        if not pieces:
            raise why[0]
        return either(pieces)

    def _typed(self, kind: str, asks: Demands, spot: Spot) -> Piece:
        room = self._bounds[spot.within]
        if kind == "string":
            return self._grammar.rule(text(asks, self._grammar, room, spot.place))
        if kind in ("integer", "number"):
            return self._grammar.rule(number(asks, room.digits, spot.place, whole=kind == "integer"))
        if kind == "array":
            between = self._several(asks, room, spot) if not asks.unique or asks.most in (0, 1) else self._different(asks, spot)
            return self._grammar.rule(sequence(literal("["), between, literal("]")))
        if kind == "object":
            return self._grammar.rule(sequence(literal("{"), self._members(asks, room, spot), literal("}")))
        return literal("null") if kind == "null" else either([literal("true"), literal("false")])

    def _several(self, asks: Demands, room: Bounds, spot: Spot) -> Piece:
        """The items of an array: so many as may be, as far as there are any that can be."""
        most, first, each = asks.most, [], None
        why: Impossible | None = None
        if most is None:
            open_ = room.items if self._has_room(asks.items, spot) else 0
            most = max(asks.fewest, len(asks.prefix) + open_)
        elif room.cap is not None:
            most = max(asks.fewest, min(most, room.cap))
        try:
            for i, schema in enumerate(asks.prefix[:most]):
                first.append(self.value(schema, spot.at(f"prefixItems[{i}]")))
            if most > len(first):
                each = self.value(asks.items, spot.at("items", listed=asks.most is None or most - len(first) > 1))
        except Impossible as impossible:
            most, why = len(first), impossible
        if asks.fewest > most:
            raise why or Impossible(f"there are not as many items{at(spot.place)} as `minItems` asks for")
        return items(self._grammar, first, each, asks.fewest, most)

    def _different(self, asks: Demands, spot: Spot) -> Piece:
        """The items of an array without repetitions: of a few values that are known, in their order."""
        ways = self._document.ways(asks.items)
        values: list[Any] = []
        for each in ways:
            values += [one for one in each.values or () if fits(one, each, self._document.ways)]
        values = list({identity(value): value for value in reversed(values)}.values())[::-1]
        if asks.prefix or any(each.values is None for each in ways) or len(values) > _MOST_IN_ORDER:
            raise Unkept(f"has a `uniqueItems`{at(spot.place)}, which is supported only for items with an `enum` of at most {_MOST_IN_ORDER} values")
        most = len(values) if asks.most is None else min(asks.most, len(values))
        return in_order(self._grammar, [written(value, spot.place) for value in values], asks.fewest, most)

    def _members(self, asks: Demands, room: Bounds, spot: Spot) -> Piece:
        """The members of an object: named ones as the schema orders them; others where the schema asks for them, or names none."""
        properties = dict(asks.properties)
        others = True if asks.others is None and not properties and not asks.required else asks.others
        for name in asks.required:
            properties.setdefault(name, True if asks.others is None else asks.others)
        named: list[Member] = []
        for name, schema in properties.items():
            try:
                value = self.value(schema, spot.at(f"properties.{name}"))
            except Impossible:
                if name in asks.required:
                    raise
                continue
            named.append((sequence(written(name, spot.place), literal(": "), value), name in asks.required))
        free = self._free(others, list(properties), spot)
        named, most_free = _counted(asks, named, room, free, spot.place)
        least_one = asks.least_properties > 0 and not any(must for _, must in named)
        return members(self._grammar, named, free if most_free else None, most_free, at_least_one=least_one)

    def _free(self, others: Any, names: list[str], spot: Spot) -> Piece | None:
        """A member with a name of its own choice."""
        if others in (None, False) or not self._has_room(others, spot):
            return None
        name = key(self._grammar, names)
        try:
            return None if name is None else sequence(name, self.value(others, spot.at("additionalProperties", listed=True)))
        except Impossible:
            return None

    def _has_room(self, schema: Any, spot: Spot) -> bool:
        """Values without a schema hold such values to some depth only."""
        return schema not in (True, {}) or spot.within < _DEEPEST


def _counted(asks: Demands, named: list[Member], room: Bounds, free: Piece | None, place: str) -> tuple[list[Member], int]:
    """The named members and the number of free ones that keep to `minProperties` and `maxProperties`."""
    least, most = asks.least_properties, asks.most_properties
    demanded = sum(must for _, must in named)
    if most is not None and most < demanded:
        raise Impossible(f"more properties are required{at(place)} than `maxProperties` allows")
    if least > max(demanded, 1):
        if least > len(named):
            raise Unkept(f"has a `minProperties`{at(place)} above the number of properties it names, which is not supported")
        wanted = least - demanded
        kept = []
        for member, must in named:
            wanted -= not must
            kept.append((member, must or wanted >= 0))
        named = kept
        demanded = least
    if most is not None:
        spare = most - demanded
        kept = []
        for member, must in named:
            spare -= not must
            if must or spare >= 0:
                kept.append((member, must))
        named = kept
    count = 0 if free is None else room.items if most is None else min(room.cap or most, most - len(named))
    return named, max(count, 0)
