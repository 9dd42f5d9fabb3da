"""Texts and numbers as grammars."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

from gemma3n_sgl.forms.bounds import Bounds
from gemma3n_sgl.forms.formats import FORMATS, TOKENS
from gemma3n_sgl.forms.grammar import Grammar, Impossible, Piece, Unkept, either, literal, one_of, repeated, sequence
from gemma3n_sgl.forms.keywords import Demands, at
from gemma3n_sgl.forms.numbers import decimals, integers, multiples
from gemma3n_sgl.forms.patterns import IN_JSON, Pattern

_QUOTE = literal('"')
_ONE = one_of(IN_JSON)
_CHARACTER = either([_ONE, Piece('"\\\\" ["\\\\/bfnrt]', 2, 1, 1, atom=False)])
_MOST_MULTIPLES = 500
_OPEN_PATTERN = 64
"""Tokens for each open repeat of a pattern."""


def written(value: Any, place: str) -> Piece:
    """A value given outright, in one line. Unkept for what JSON has no word for, or no UTF-8."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        text.encode()
    except UnicodeEncodeError:
        text = json.dumps(value)
    except (ValueError, RecursionError):
        raise Unkept(f"has a value{at(place)} that can't be written as JSON") from None
    return literal(text)


def text(asks: Demands, grammar: Grammar, room: Bounds, place: str) -> Piece:
    """A string. What it must have is counted character by character, without those that JSON escapes; the rest may have all."""
    if asks.longest is not None and asks.longest < asks.shortest:
        raise Impossible(f"`minLength` is above `maxLength`{at(place)}")
    pattern = asks.pattern if asks.pattern is not None else FORMATS.get(asks.format or "")
    if pattern is not None:
        return sequence(_QUOTE, _patterned(pattern, asks, grammar, room, place), _QUOTE)
    if asks.longest == asks.shortest:
        between = repeated(_ONE, asks.shortest, asks.shortest)
    elif asks.longest is None:
        between = grammar.run(_CHARACTER, asks.shortest, first=_ONE, tokens=room.tokens)
    else:  # an escape counts as two: never more characters than are allowed, and sometimes fewer
        between = grammar.run(_CHARACTER, asks.shortest, first=_ONE, tokens=room.cap, chars=asks.longest)
    return sequence(_QUOTE, between, _QUOTE)


def _patterned(pattern: str, asks: Demands, grammar: Grammar, room: Bounds, place: str) -> Piece:
    try:
        most = TOKENS if asks.pattern is None else _OPEN_PATTERN
        read = Pattern(grammar, pattern, tokens=min(room.tokens, most), in_json=True)
        if asks.shortest or asks.longest is not None:
            return read.within(asks.shortest, asks.longest)
        return read.whole() if asks.pattern is None else read.found()
    except Unkept as unkept:
        raise Unkept(f"has a `pattern`{at(place)} that {unkept.says}") from None


def number(asks: Demands, digits: int, place: str, *, whole: bool) -> Piece:
    """A number within its bounds, in its usual form."""
    low, above = asks.low or (None, False)
    high, below = asks.high or (None, False)
    first = None if low is None else _whole(low, "ROUND_CEILING", 1 if above else 0)
    last = None if high is None else _whole(high, "ROUND_FLOOR", -1 if below else 0)
    found: Piece | None
    if asks.step is None or asks.step == 1:
        whole = whole or asks.step == 1
        found = integers(first, last, digits) if whole else decimals(low, high, digits, open_low=above, open_high=below)
    elif (places := -int(asks.step.normalize().as_tuple().exponent)) > 0:
        if asks.step != Decimal(10) ** -places or places > 9:
            raise Unkept(f"has a `multipleOf`{at(place)} that is neither whole nor 0.1, 0.01 and so on, which is not supported")
        found = integers(first, last, digits) if whole else decimals(low, high, digits, open_low=above, open_high=below, places=places)
    else:
        try:
            found = multiples(int(asks.step), first, last, digits, _MOST_MULTIPLES)
        except ValueError:
            raise Unkept(f"has a `multipleOf`{at(place)} with more than {_MOST_MULTIPLES} multiples; say a `minimum` and a `maximum`") from None
    if found is None:
        raise Impossible(f"no number lies within the bounds{at(place)}")
    return found


def _whole(bound: Decimal, rounding: str, beyond: int) -> int:
    rounded = bound.to_integral_value(rounding)
    return int(rounded) + (beyond if rounded == bound else 0)
