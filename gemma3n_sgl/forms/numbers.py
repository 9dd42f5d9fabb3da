"""Grammars of numbers within exact bounds."""

from __future__ import annotations

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

from gemma3n_sgl.forms.grammar import EMPTY, Expr, either, literal, sequence


def integers(low: int, high: int) -> Expr | None:
    """All integers from `low` to `high`; None where there are none."""
    found = []
    if low < 0:
        if (below := _naturals(max(1, -high), -low)) is not None:
            found.append(sequence(literal("-"), below))
        low = 0
    if (above := _naturals(low, high)) is not None:
        found.append(above)
    return either(found) if found else None


def decimals(low: Decimal, high: Decimal, places: int, *, strictly_above: bool = False, strictly_below: bool = False) -> Expr | None:
    """All numbers from `low` to `high` that are written with `places` decimals; None where there are none."""
    scale = Decimal(10) ** places
    first = int((low * scale).to_integral_value(ROUND_CEILING))
    last = int((high * scale).to_integral_value(ROUND_FLOOR))
    first += strictly_above and first == low * scale
    last -= strictly_below and last == high * scale
    found = []
    if first < 0 and (below := _scaled(max(1, -last), -first, places)) is not None:
        found.append(sequence(literal("-"), below))
    if (above := _scaled(max(0, first), last, places)) is not None:
        found.append(above)
    return either(found) if found else None


def _naturals(low: int, high: int) -> Expr | None:
    found = []
    for length in range(len(str(low)), len(str(high)) + 1):
        least, most = max(low, 10 ** (length - 1) if length > 1 else 0), min(high, 10**length - 1)
        if least <= most:
            found.append(_between(str(least), str(most)))
    return either(found) if found and low <= high else None


def _scaled(low: int, high: int, places: int) -> Expr | None:
    """Naturals with a point before their last `places` digits."""
    if low > high:
        return None
    found = []
    for length in range(max(places + 1, len(str(low))), max(places + 1, len(str(high))) + 1):
        least, most = max(low, 10 ** (length - 1) if length > places + 1 else 0), min(high, 10**length - 1)
        if least <= most:
            found.append(_between(str(least).zfill(length), str(most).zfill(length), point=places))
    return either(found) if found else None


def _between(low: str, high: str, point: int = 0) -> Expr:
    """All digits from `low` to `high`, two texts of one length, with a point before the last `point` of them."""
    if not low:
        return EMPTY
    if point and len(low) == point:
        return sequence(literal("."), _between(low, high))
    if set(low) == {"0"} and set(high) == {"9"} and not point:
        return Expr(f"[0-9]{{{len(low)}}}", len(low))
    rest_low, rest_high, nines, zeros = low[1:], high[1:], "9" * (len(low) - 1), "0" * (len(low) - 1)
    if low[0] == high[0]:
        return sequence(literal(low[0]), _between(rest_low, rest_high, point))
    first, last = int(low[0]), int(high[0])
    found = []
    if rest_low != zeros:
        found.append(sequence(literal(low[0]), _between(rest_low, nines, point)))
        first += 1
    if rest_high != nines:
        found.append(sequence(literal(high[0]), _between(zeros, rest_high, point)))
        last -= 1
    if first <= last:
        digit = Expr(f"[{first}-{last}]" if first < last else f'"{first}"', 1)
        found.append(sequence(digit, _between(zeros, nines, point)))
    return either(found)
