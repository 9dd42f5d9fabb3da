"""Regular expressions as grammars: what Python's own parser makes of a pattern, with an end to every repeat.

Classes are those of ASCII, as in the regular expressions of JSON Schema (ECMA 262). A repeat whose rounds can be told apart in more than
one way, as in `(a*)*`, costs the engine a second for each token of the real vocabulary, and everyone waits; such ones are refused.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from gemma3n_sgl.forms.bounds import MOST_PATTERN, MOST_REPEATS, UNENDING
from gemma3n_sgl.forms.grammar import EMPTY, Grammar, Piece, Ranges, Unkept, either, literal, one_of, optional, repeated, sequence, union, without

PLAIN: Ranges = ((0x20, 0x7E), (0xA0, 0xD7FF), (0xE000, 0x10FFFF))
"""Characters of a text, without the control characters."""

IN_JSON: Ranges = without(PLAIN, ((0x22, 0x22), (0x5C, 0x5C)))
"""Those that stand in a JSON string as they are."""

_WRITABLE: Ranges = ((0x09, 0x0A), (0x0C, 0x0D), *PLAIN)
_ESCAPES = {0x08: "\\b", 0x09: "\\t", 0x0A: "\\n", 0x0C: "\\f", 0x0D: "\\r", 0x22: '\\"', 0x5C: "\\\\"}
_WIDE = 1_000
"""A class of so many characters does without those that JSON escapes: it has enough, and the engine is forty times faster."""

_DIGIT, _SPACE = ((48, 57),), ((32, 32),)
_WORD = ((48, 57), (65, 90), (95, 95), (97, 122))
_CATEGORIES = {"DIGIT": _DIGIT, "SPACE": _SPACE, "WORD": _WORD}
_REFUSED = {
    "ASSERT": "a look-around",
    "ASSERT_NOT": "a look-around",
    "GROUPREF": "a backreference",
    "GROUPREF_EXISTS": "a condition",
    "ATOMIC_GROUP": "an atomic group",
    "POSSESSIVE_REPEAT": "a possessive repeat",
    "AT": "an anchor or word border within",
}
_FEW = 8


@dataclass(frozen=True)
class Part:
    """A piece, the characters it may begin with, and those that may make it longer at its end."""

    piece: Piece
    begins: Ranges = ()
    goes_on: Ranges = ()

    @property
    def may_be_empty(self) -> bool:
        return self.piece.low == 0


class Pattern:
    """A regular expression. `in_json`: written as within a JSON string. `tokens`: of each open repeat at most."""

    def __init__(self, grammar: Grammar, text: str, *, tokens: int, in_json: bool) -> None:
        self._grammar, self._tokens, self._in_json = grammar, tokens, in_json
        self._items = _parsed(text)

    def whole(self) -> Piece:
        """The text is what the expression matches."""
        return self._around(self._items, EMPTY, EMPTY).piece

    def found(self) -> Piece:
        """The expression matches somewhere in the text, as JSON Schema means it: an anchor is written where one is meant."""
        some = self._grammar.run(one_of(IN_JSON), tokens=min(self._tokens, 16))
        return self._around(self._items, some, some).piece

    def within(self, low: int, high: int | None) -> Piece:
        """The text is what the expression matches, and so many characters long. Unkept where that can't be said in a grammar."""
        most = UNENDING if high is None else high
        for attempt in (self.found, self.whole, lambda: self._stretched(low, most)):
            piece = attempt()
            if low <= piece.low and piece.high <= most:
                return piece
        raise Unkept("has a `pattern` or `format` that can't be kept together with its lengths; say them in the pattern")

    def _around(self, items: list[Any], before: Piece, after: Piece) -> Part:
        """The expression with what may stand around it, where no anchor forbids."""
        if items and _anchor(items[0]) == "BEGINNING":
            items, before = items[1:], EMPTY
        if items and _anchor(items[-1]) == "END":
            items, after = items[:-1], EMPTY
        if len(items) == 1 and str(items[0][0]) == "SUBPATTERN":
            return self._around(list(items[0][1][-1]), before, after)
        if len(items) == 1 and str(items[0][0]) == "BRANCH":
            return _either([self._around(list(branch), before, after) for branch in items[0][1][1]])
        return _joined([Part(before), self._sequence(items), Part(after)])

    def _stretched(self, low: int, high: int) -> Piece:
        """The whole expression, its only repeat that varies held to the lengths."""
        items = [item for item in self._items if not _anchor(item)]
        parts = [self._one(str(kind), value).piece for kind, value in items]
        varying = [i for i, part in enumerate(parts) if part.low < part.high]
        if len(varying) != 1 or str(items[varying[0]][0]) not in ("MAX_REPEAT", "MIN_REPEAT"):
            return EMPTY if low else Piece("", 0, 0, UNENDING)
        i = varying[0]
        others = sum(part.low for part in parts) - parts[i].low
        least, most, inner = items[i][1]
        least, most = max(least, low - others), min(UNENDING if _is_open(most) else most, high - others)
        if len(inner) > 1 or least > most:
            return Piece("", 0, 0, UNENDING)
        parts[i] = self._repeat(least, most, list(inner)).piece
        return sequence(*parts)

    def _sequence(self, items: list[Any]) -> Part:
        return _joined([self._one(str(kind), value) for kind, value in items])

    def _one(self, kind: str, value: Any) -> Part:
        if kind in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            return self._character(_ranges(kind, value))
        if kind in ("MAX_REPEAT", "MIN_REPEAT"):
            low, high, inner = value
            return self._repeat(low, UNENDING if _is_open(high) else high, list(inner))
        if kind == "SUBPATTERN":
            _, on, off, inner = value
            if on or off:
                raise Unkept("sets flags, which is not supported")
            return self._sequence(list(inner))
        if kind == "BRANCH":
            return _either([self._sequence(list(branch)) for branch in value[1]])
        raise Unkept(f"has {_REFUSED.get(kind, 'something')}, which is not supported")

    def _repeat(self, low: int, high: int, inner: list[Any]) -> Part:
        if low > MOST_REPEATS or MOST_REPEATS < high < UNENDING:
            raise Unkept(f"repeats more than {MOST_REPEATS} times")
        part = self._sequence(inner)
        if len(inner) == 1 and str(inner[0][0]) in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            return Part(self._run(part.piece, low, high), part.begins, part.begins if low < high else ())
        if (low, high) == (0, 1):
            return Part(optional(part.piece), part.begins, union([*part.begins, *part.goes_on]))
        if high == 1:
            return part
        goes_on = union([*part.goes_on, *(part.begins if low < high else ())])
        if high > _FEW and (part.may_be_empty or _overlap(part.goes_on, part.begins)):
            raise Unkept("repeats something whose end may be its beginning again, as in `(a+b?)+`; put something between that must be there")
        most = max(low, self._tokens // 2, 1) if high == UNENDING else high
        return Part(repeated(self._grammar.rule(part.piece), low, most), part.begins, goes_on)

    def _run(self, one: Piece, low: int, high: int) -> Piece:
        """Of one class of characters, so many."""
        if high <= _FEW or low == high:
            return repeated(one, low, high)
        open_ = high == UNENDING
        return self._grammar.run(one, low, tokens=self._tokens if open_ else None, chars=None if open_ else high)

    def _character(self, ranges: Ranges) -> Part:
        writable = without(ranges, without(((0, 0x10FFFF),), _WRITABLE))
        if not self._in_json:
            if not writable:
                raise Unkept("asks for a character that a text can't have")
            return Part(_exactly(writable), writable)
        plain = without(writable, without(((0, 0x10FFFF),), IN_JSON))
        wide = sum(high - low + 1 for low, high in plain) >= _WIDE
        escapes = [] if wide else [text for code, text in _ESCAPES.items() if any(low <= code <= high for low, high in ranges)]
        pieces = [_exactly(plain)] if plain else []
        pieces += [Piece(literal(text).text, 2, 1, 1) for text in escapes]
        if not pieces:
            raise Unkept("asks for a character that a text can't have")
        return Part(either(pieces), ranges)


def found_in(text: str, value: str) -> bool:
    """Whether the expression `text` matches somewhere in a value that a schema gives outright. Unkept as for a pattern without one, and where
    that takes long: Python's own matching goes back over what it has tried, and some thirty characters would keep all others waiting for hours."""
    return _Search(value).found(_parsed(text))


class _Search:
    """All ways of an expression through a value at once, as the positions they have come to."""

    def __init__(self, value: str) -> None:
        self._codes = list(map(ord, value))
        self._left = 100 * (len(value) + 1)

    def found(self, items: Sequence[Any]) -> bool:
        return bool(self._ends(items, set(range(len(self._codes) + 1))))

    def _ends(self, items: Iterable[Any], at: set[int]) -> set[int]:
        """Where the items may end that begin at one of these positions."""
        for kind, value in items:
            self._left -= 1 + len(at)
            if self._left < 0:
                raise Unkept("takes too long to look for in the values given beside it")
            at = self._one(str(kind), value, at)
            if not at:
                break
        return at

    def _one(self, kind: str, value: Any, at: set[int]) -> set[int]:
        if kind in ("LITERAL", "NOT_LITERAL", "ANY", "IN"):
            ranges = _ranges(kind, value)
            return {i + 1 for i in at if i < len(self._codes) and any(low <= self._codes[i] <= high for low, high in ranges)}
        if kind in ("MAX_REPEAT", "MIN_REPEAT"):
            low, high, inner = value
            return self._repeat(low, high, inner, at)
        if kind == "SUBPATTERN" and not (value[1] or value[2]):
            return self._ends(value[-1], at)
        if kind == "BRANCH":
            return set().union(*(self._ends(branch, at) for branch in value[1]))
        if anchor := _anchor((kind, value)):
            return at & {0 if anchor == "BEGINNING" else len(self._codes)}
        raise Unkept(f"has {_REFUSED.get(kind, 'something')}, which is not supported")

    def _repeat(self, low: int, high: Any, inner: Iterable[Any], at: set[int]) -> set[int]:
        found: set[int] = set()
        rounds = 0
        while at and (_is_open(high) or rounds <= high):
            if rounds >= low:
                if at <= found:
                    break
                found |= at
            at, before = self._ends(inner, at), at
            if at == before:  # and so it stays
                rounds = max(rounds, low - 1)
            rounds += 1
        return found


def _exactly(ranges: Ranges) -> Piece:
    low, high = ranges[0]
    return literal(chr(low)) if low == high and len(ranges) == 1 else one_of(ranges)


@lru_cache(64)
def _parsed(text: str) -> list[Any]:
    if len(text) > MOST_PATTERN:
        raise Unkept(f"has more than {MOST_PATTERN} characters")
    named = re.sub(r"\(\?<(?=[A-Za-z_])", "(?P<", text)  # ECMA's groups with names
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parsed: Any = re._parser.parse(named)  # type: ignore[attr-defined]  # the only reader of Python's own dialect
    except (re.error, OverflowError, RecursionError):
        raise Unkept("is no regular expression that can be read") from None
    if parsed.state.flags & ~re.UNICODE:
        raise Unkept("sets flags, which is not supported")
    return list(parsed)


def _is_open(high: Any) -> bool:
    return bool(high == re._constants.MAXREPEAT)  # type: ignore[attr-defined]


def _anchor(item: Any) -> str:
    """BEGINNING, END, or nothing."""
    kind, value = item
    return str(value).split("_")[1] if str(kind) == "AT" and str(value).startswith(("AT_BEGINNING", "AT_END")) else ""


def _ranges(kind: str, value: Any) -> Ranges:
    if kind == "LITERAL":
        return ((value, value),)
    if kind == "NOT_LITERAL":
        return without(PLAIN, ((value, value),))
    if kind == "ANY":
        return PLAIN
    found: list[tuple[int, int]] = []
    for part, what in value:
        if str(part) == "CATEGORY":
            *not_, name = str(what).removeprefix("CATEGORY_").split("_")
            found += without(PLAIN, _CATEGORIES[name]) if not_ else _CATEGORIES[name]
        elif str(part) != "NEGATE":
            found.append((what, what) if str(part) == "LITERAL" else what)
    return without(PLAIN, union(found)) if str(value[0][0]) == "NEGATE" else union(found)


def _overlap(some: Ranges, others: Ranges) -> bool:
    return any(low <= end and start <= high for low, high in some for start, end in others)


def _joined(parts: list[Part]) -> Part:
    begins: Ranges = ()
    for part in parts:
        begins = union([*begins, *part.begins])
        if not part.may_be_empty:
            break
    goes_on: Ranges = ()
    for part in reversed(parts):
        goes_on = union([*goes_on, *part.goes_on])
        if not part.may_be_empty:
            break
    return Part(sequence(*(part.piece for part in parts)), begins, goes_on)


def _either(parts: list[Part]) -> Part:
    """One of them; where one is the beginning of another, what the longer goes on with counts as well."""
    begins = union(one for part in parts for one in part.begins)
    return Part(either([part.piece for part in parts]), begins, union(one for part in parts for one in part.goes_on))
