"""What stands between brackets and braces: items, members, and the commas between them."""

from __future__ import annotations

from collections.abc import Sequence

from gemma3n_sgl.forms.grammar import EMPTY, Grammar, Impossible, Piece, Ranges, either, literal, one_of, optional, repeated, sequence, without
from gemma3n_sgl.forms.patterns import IN_JSON

Member = tuple[Piece, bool]
"""A key with its value, and whether it must be there."""

_COMMA = literal(", ")
_LETTERS: Ranges = ((0x20, 0x20), (0x2D, 0x2D), (0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_KEY_TOKENS = 12
_MOST_NAMES = 1_000
"""Characters of all names together that further keys are kept apart from."""


def items(grammar: Grammar, first: Sequence[Piece], each: Piece | None, fewest: int, most: int) -> Piece:
    """`first`, and then as many of `each` as there may be."""
    given = list(first[:most]) or ([each] if each and most else [])
    later = grammar.rule(sequence(_COMMA, each)) if each and most > len(given) else EMPTY
    rest = repeated(later, max(fewest - len(given), 0), most - len(given))
    for i in reversed(range(len(given))):
        rest = sequence(_COMMA if i else EMPTY, given[i], rest)
        if fewest <= i:
            rest = optional(grammar.rule(rest))
    return rest


def in_order(grammar: Grammar, values: Sequence[Piece], fewest: int, most: int) -> Piece:
    """`fewest` to `most` of the values, each once at most, in their order."""
    after: list[Piece | None] = [EMPTY if fewest <= count else None for count in range(most + 1)]
    for value in reversed(values):
        now: list[Piece | None] = []
        for count, without_it in enumerate(after):
            further = after[count + 1] if count < most else None
            ways = [] if further is None else [sequence(_COMMA if count else EMPTY, value, further)]
            ways += [] if without_it is None else [without_it]
            now.append(grammar.rule(either(ways)) if ways else None)
        after = now
    if after[0] is None:
        raise Impossible("there are not as many different items as `minItems` asks for")
    return after[0]


def members(grammar: Grammar, named: Sequence[Member], free: Piece | None, most_free: int, *, at_least_one: bool) -> Piece:
    """The named members in their order, those that need not be there with or without, then up to so many free ones."""
    more = grammar.rule(sequence(_COMMA, free)) if free else EMPTY
    after = repeated(more, 0, most_free)
    start: Piece | None = None if at_least_one else EMPTY
    if free and most_free:
        some = sequence(free, repeated(more, 0, most_free - 1))
        start = either([some] if start is None else [some, start])
    begins = next((i for i, (_, must) in enumerate(named) if must), len(named))
    for i, (member, must) in reversed(list(enumerate(named))):
        if i < begins:
            after = grammar.rule(after)
            start = grammar.rule(either([sequence(member, after), *([] if start is None else [start])]))
        elif i == begins:
            start = sequence(member, after)
        with_comma = sequence(_COMMA, member)
        after = sequence(with_comma if must else optional(grammar.rule(with_comma)), after)
    if start is None:
        raise Impossible("it must have a property, but may have none")
    return start


def key(grammar: Grammar, names: Sequence[str]) -> Piece | None:
    """A key that is none of these names, so that it can't undo what is written for one; None where there are too many of them."""
    if sum(map(len, names)) > _MOST_NAMES:
        return None
    if not names:
        one = one_of(IN_JSON)
        return sequence(literal('"'), grammar.run(one, 1, tokens=_KEY_TOKENS), literal('": '))
    letters = one_of(_LETTERS)
    other = _other_than(grammar, [name for name in names if name], grammar.run(letters, tokens=_KEY_TOKENS), at_start=True)
    return sequence(literal('"'), other, literal('": '))


def _other_than(grammar: Grammar, names: Sequence[str], tail: Piece, *, at_start: bool = False) -> Piece:
    """What may follow the letters that these names have in common."""
    begun = sorted({name[0] for name in names if name})
    free = without(_LETTERS, tuple((ord(letter), ord(letter)) for letter in begun))
    ways = [sequence(one_of(free), tail)] if free else []
    for letter in begun:
        if any(low <= ord(letter) <= high for low, high in _LETTERS):
            ways.append(sequence(literal(letter), _other_than(grammar, [name[1:] for name in names if name[:1] == letter], tail)))
    if not at_start and "" not in names:
        ways.append(EMPTY)
    return grammar.rule(either(ways)) if ways else EMPTY
