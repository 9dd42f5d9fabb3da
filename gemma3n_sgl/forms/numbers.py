"""Numbers between two bounds, digit by digit: exactly those that lie between them, in their shortest usual form."""

from __future__ import annotations

from decimal import Decimal

from gemma3n_sgl.forms.grammar import EMPTY, Piece, either, literal, one_of, optional, repeated, sequence

FRACTION = 6
"""Digits after the point, where the schema's own bounds have no more."""

MOST_FRACTION = 15
"""Bounds with more digits than that are rounded, into the range."""


def integers(low: int | None, high: int | None, digits: int) -> Piece | None:
    """Whole numbers from `low` to `high`, an open side as far as so many digits go (or as the other side has); None if there are none."""
    digits = max([digits, *(len(str(abs(bound))) for bound in (low, high) if bound is not None)])
    first = -(10**digits) + 1 if low is None else low
    last = 10**digits - 1 if high is None else high
    signs = []
    if last >= 0 and first <= last:
        signs.append(_between(max(first, 0), last))
    if first < 0 and first <= last:
        signs.append(sequence(literal("-"), _between(max(-last, 1), -first)))
    return either(signs) if signs else None


def decimals(low: Decimal | None, high: Decimal | None, digits: int, *, open_low: bool, open_high: bool, places: int | None = None) -> Piece | None:
    """Numbers from `low` to `high`, without an open end itself, with at most `places` digits after the point; no exponents."""
    if places is None:
        needed = [_places(bound) + is_open for bound, is_open in ((low, open_low), (high, open_high)) if bound is not None]
        places = min(max([FRACTION, *needed]), MOST_FRACTION)
    unit = 10**places
    digits = max([digits, *(len(str(abs(int(bound)))) for bound in (low, high) if bound is not None)])
    most = 10**digits * unit - 1
    first = -most if low is None else _units(low, unit, up=True, beyond=open_low)
    last = most if high is None else _units(high, unit, up=False, beyond=open_high)
    signs = []
    if last >= 0 and first <= last:
        signs.append(_fixed(max(first, 0), last, places))
    if first < 0 and first <= last:
        signs.append(sequence(literal("-"), _fixed(max(-last, 0), -first, places)))
    return either(signs) if signs else None


def multiples(of: int, low: int | None, high: int | None, digits: int, most: int) -> Piece | None:
    """Whole multiples of `of`: all of them where both bounds are given and there are at most `most`, else by their last digits.

    ValueError where neither can be done.
    """
    if low is not None and high is not None:
        found = range(-(-low // of) * of, high + 1, of)
        if len(found) > most:
            raise ValueError("too many")
        return either([literal(str(number)) for number in found]) if found else None
    tail = next((k for k in (1, 2, 3) if 10**k % of == 0), None)
    if tail is None or high is not None or low not in (None, 0):
        raise ValueError("not by digits")
    endings = [literal(f"{ending:0{tail}d}") for ending in range(0, 10**tail, of)]
    small = [literal(str(number)) for number in range(of, 10**tail, of)]
    positive = either([*small, sequence(_between(1, 10 ** max(digits - tail, 1) - 1), either(endings))])
    signed = positive if low == 0 else sequence(optional(literal("-")), positive)
    return either([literal("0"), signed])


def _between(low: int, high: int) -> Piece:
    """0 ≤ low ≤ high."""
    if not low:
        return either([literal("0"), *([_between(1, high)] if high else [])])
    first, last = len(str(low)), len(str(high))
    if first == last:
        return _same_length(str(low), str(high))
    parts = []
    if low > 10 ** (first - 1):
        parts.append(_same_length(str(low), "9" * first))
        first += 1
    top = [] if high == 10**last - 1 else [_same_length("1" + "0" * (last - 1), str(high))]
    last -= len(top)
    if first <= last:
        parts.append(sequence(_digit(1, 9), repeated(_DIGIT, first - 1, last - 1)))
    return either(parts + top)


_DIGIT = one_of(((48, 57),))


def _digit(low: int, high: int) -> Piece:
    return one_of(((48 + low, 48 + high),))


def _same_length(low: str, high: str) -> Piece:
    """Numbers with as many digits as both bounds have."""
    if not low:
        return EMPTY
    a, b = int(low[0]), int(high[0])
    rest = len(low) - 1
    lowest, highest = "0" * rest, "9" * rest
    if low[1:] == lowest and high[1:] == highest:
        return sequence(_digit(a, b), repeated(_DIGIT, rest, rest))
    if a == b:
        return sequence(_digit(a, a), _same_length(low[1:], high[1:]))
    parts = []
    if low[1:] != lowest:
        parts.append(sequence(_digit(a, a), _same_length(low[1:], highest)))
        a += 1
    top = [] if high[1:] == highest else [sequence(_digit(b, b), _same_length(lowest, high[1:]))]
    b -= len(top)
    if a <= b:
        parts.append(sequence(_digit(a, b), repeated(_DIGIT, rest, rest)))
    return either(parts + top)


def _fixed(low: int, high: int, places: int) -> Piece:
    """0 ≤ low ≤ high in units of the last place: "12", "12.5", "12.50"."""
    unit = 10**places
    (first, start), (last, end) = divmod(low, unit), divmod(high, unit)
    if not places:
        return _between(first, last)
    if first == last:
        return sequence(literal(str(first)), _fraction(f"{start:0{places}d}", f"{end:0{places}d}"))
    parts = []
    if start:
        parts.append(sequence(literal(str(first)), _fraction(f"{start:0{places}d}", "9" * places)))
        first += 1
    top = [] if end == unit - 1 else [sequence(literal(str(last)), _fraction("0" * places, f"{end:0{places}d}"))]
    last -= len(top)
    if first <= last:
        parts.append(sequence(_between(first, last), optional(sequence(literal("."), repeated(_DIGIT, 1, places)))))
    return either(parts + top)


def _fraction(low: str, high: str) -> Piece:
    """The point and what follows it; nothing at all where `low` is zero."""
    some = sequence(literal("."), _digits(low, high))
    return some if low.strip("0") else optional(some)


def _digits(low: str, high: str) -> Piece:
    """One to len(low) digits that, filled up with zeros, lie between the two."""
    a, b, rest = int(low[0]), int(high[0]), len(low) - 1
    nothing, all_ = "0" * rest, "9" * rest
    if a == b:
        return sequence(_digit(a, a), _more(low[1:], high[1:]))
    parts = []
    if low[1:] != nothing:
        parts.append(sequence(_digit(a, a), _more(low[1:], all_)))
        a += 1
    top = [] if high[1:] == all_ else [sequence(_digit(b, b), _more(nothing, high[1:]))]
    b -= len(top)
    if a <= b:
        parts.append(sequence(_digit(a, b), _more(nothing, all_)))
    return either(parts + top)


def _more(low: str, high: str) -> Piece:
    if not low:
        return EMPTY
    if not low.strip("0") and not high.strip("9"):
        return repeated(_DIGIT, 0, len(low))
    some = _digits(low, high)
    return some if low.strip("0") else optional(some)


def _places(number: Decimal) -> int:
    return max(0, -int(number.normalize().as_tuple().exponent))


def _units(bound: Decimal, unit: int, *, up: bool, beyond: bool) -> int:
    """The bound in units, rounded into the range; the next one where the bound itself is excluded."""
    exact = bound * unit
    whole = int(exact.to_integral_value("ROUND_CEILING" if up else "ROUND_FLOOR"))
    return whole + ((1 if up else -1) if beyond and whole == exact else 0)
