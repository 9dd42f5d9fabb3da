"""Regular expressions as grammars: what Python's own parser makes of a pattern, with an end to every repeat."""

from __future__ import annotations

import re
import warnings
from typing import Any

from gemma3n_sgl.errors import InvalidValue
from gemma3n_sgl.forms.grammar import Expr, Grammar, either, escaped, literal, sequence

_CATEGORIES = {"CATEGORY_DIGIT": "0-9", "CATEGORY_WORD": "a-zA-Z0-9_", "CATEGORY_SPACE": " "}
_REFUSED = {
    "ASSERT": "look-around",
    "ASSERT_NOT": "look-around",
    "GROUPREF": "a backreference",
    "GROUPREF_EXISTS": "a condition",
    "ATOMIC_GROUP": "an atomic group",
    "POSSESSIVE_REPEAT": "a possessive repeat",
}
_JSON_ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r", "\f": "\\f", "\b": "\\b"}
MOST_CHARACTERS = 2000


def pattern(grammar: Grammar, text: str, *, most: int, json: bool, param: str, place: str = "") -> tuple[Expr, int, int]:
    """What a regular expression matches, the whole of it, and its least and greatest length in characters.

    Open repeats end after `most` times. In `json` the characters are written as within a JSON string.
    """
    return _Translator(grammar, most, json, param, place).translate(text)


class _Translator:
    def __init__(self, grammar: Grammar, most: int, json: bool, param: str, place: str) -> None:
        self._grammar, self._most, self._json, self._param, self._place = grammar, most, json, param, place

    def translate(self, text: str) -> tuple[Expr, int, int]:
        if len(text) > MOST_CHARACTERS:
            raise self._error(f"is longer than {MOST_CHARACTERS} characters")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                parsed: Any = re._parser.parse(text)  # type: ignore[attr-defined]  # the only parser of Python's own dialect
        except (re.error, OverflowError, RecursionError):
            raise self._error("is not a valid regular expression") from None
        if parsed.state.flags & (re.IGNORECASE | re.VERBOSE | re.MULTILINE | re.DOTALL):
            raise self._error("sets flags, which are not supported")
        return self._all(list(parsed))

    def _all(self, items: list[Any]) -> tuple[Expr, int, int]:
        if items and str(items[0][0]) == "AT" and str(items[0][1]) in ("AT_BEGINNING", "AT_BEGINNING_STRING"):
            items = items[1:]
        if items and str(items[-1][0]) == "AT" and str(items[-1][1]) in ("AT_END", "AT_END_STRING"):
            items = items[:-1]
        parts = [self._one(str(kind), value) for kind, value in items]
        return sequence(*(part[0] for part in parts)), sum(part[1] for part in parts), sum(part[2] for part in parts)

    def _one(self, kind: str, value: Any) -> tuple[Expr, int, int]:
        if kind == "LITERAL":
            return self._characters([(value, value)]), 1, 1
        if kind == "NOT_LITERAL":
            return self._others([(value, value)]), 1, 1
        if kind == "ANY":
            return self._others([(10, 10)]), 1, 1
        if kind == "IN":
            return self._class(value), 1, 1
        if kind in ("MAX_REPEAT", "MIN_REPEAT"):
            low, high, inner = value
            expr, least, greatest = self._all(list(inner))
            high = max(low, self._most) if high == re._constants.MAXREPEAT else high  # type: ignore[attr-defined]
            if high * max(1, greatest) > 20_000:
                raise self._error("repeats too often")
            wrapped = Expr(f"({expr.text})", expr.cost)
            return self._grammar.repeat(wrapped, low, high), least * low, greatest * high
        if kind == "SUBPATTERN":
            expr, least, greatest = self._all(list(value[-1]))
            return Expr(f"({expr.text})", expr.cost), least, greatest
        if kind == "BRANCH":
            branches = [self._all(list(branch)) for branch in value[1]]
            return either([branch[0] for branch in branches]), min(b[1] for b in branches), max(b[2] for b in branches)
        if kind == "AT":
            raise self._error("has an anchor or a word border inside, which is not supported")
        raise self._error(f"holds {_REFUSED.get(kind, 'something')}, which is not supported")

    def _class(self, items: list[Any]) -> Expr:
        ranges: list[tuple[int, int]] = []
        negated = False
        for kind, value in items:
            name = str(kind)
            if name == "NEGATE":
                negated = True
            elif name == "LITERAL":
                ranges.append((value, value))
            elif name == "RANGE":
                ranges.append(value)
            elif name == "CATEGORY" and str(value) in _CATEGORIES:
                shown = _CATEGORIES[str(value)]
                ranges += [(ord(first), ord(last)) for first, last in re.findall(r"(.)-(.)", shown)]
                ranges += [(ord(single), ord(single)) for single in re.sub(r".-.", "", shown)]
            else:
                raise self._error("negates a class within a class, which is not supported")
        return self._others(ranges) if negated else self._characters(ranges)

    def _characters(self, ranges: list[tuple[int, int]]) -> Expr:
        """Any one character of these."""
        if not self._json:
            return Expr(f"[{''.join(map(_shown, ranges))}]", 1)
        special = [character for character in _JSON_ESCAPES if any(low <= ord(character) <= high for low, high in ranges)]
        plain = [piece for range_ in ranges for piece in _without_specials(range_)]
        found = [Expr(f"[{''.join(map(_shown, plain))}]", 1)] if plain else []
        found += [Expr(literal(_JSON_ESCAPES[character]).text, 1) for character in special]
        if not found:
            raise self._error("asks for control characters, which are not supported")
        return either(found)

    def _others(self, ranges: list[tuple[int, int]]) -> Expr:
        """Any one character but these, and but control characters."""
        excluded = [*ranges, (0, 0x1F), (0x7F, 0x7F), *([(0x22, 0x22), (0x5C, 0x5C)] if self._json else [])]
        return Expr(f"[^{''.join(map(_shown, excluded))}]", 1)

    def _error(self, says: str) -> InvalidValue:
        where = f" at `{self._place}`" if self._place else ""
        return InvalidValue(f"The pattern{where} {says}. Simplify it.", param=self._param)


def _shown(range_: tuple[int, int]) -> str:
    low, high = range_
    return escaped(chr(low)) if low == high else f"{escaped(chr(low))}-{escaped(chr(high))}"


def _without_specials(range_: tuple[int, int]) -> list[tuple[int, int]]:
    """A range of characters without those that stand in JSON with a backslash, or not at all."""
    low, high = max(range_[0], 0x20), range_[1]
    pieces = []
    for special in (0x22, 0x5C, 0x7F):
        if low <= special <= high:
            pieces.append((low, special - 1))
            low = special + 1
    return [piece for piece in [*pieces, (low, high)] if piece[0] <= piece[1]]
