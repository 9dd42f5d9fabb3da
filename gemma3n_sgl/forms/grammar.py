"""Grammars in the engine's dialect of EBNF, made of pieces that know what they cost at most.

The dialect is that of xgrammar 0.2.6 and later (SGLang 0.5.20 and later). Measured with a vocabulary of 262,144: a repetition of
alternatives (`("a" | "b"){0,64}`) takes 90 ms for every token, of one character class 25 ms of compiling for each count, while the
attributes `[max_tokens=…]` and `[max_chars=…]` of a rule cost nothing. Such a rule is ended where its count is used up; where it can't
end there, the engine lets go of the count instead: so only rules that may end anywhere carry it, and never one inside another.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gemma3n_sgl.forms.bounds import MOST_GRAMMAR, UNENDING


class Unkept(Exception):
    """What can't be kept to, in words that go on from "The schema" or "The pattern"."""

    def __init__(self, says: str) -> None:
        super().__init__(says)
        self.says = says


class Impossible(Exception):
    """No value can be: why. `endless`: because there are no more rounds for a recursion."""

    def __init__(self, why: str, *, endless: bool = False) -> None:
        super().__init__(why)
        self.endless = endless


Ranges = tuple[tuple[int, int], ...]
"""Code points, from and to, both included, in order and apart."""


@dataclass(frozen=True)
class Piece:
    """An expression of the grammar.

    `cost`: the most tokens it can take. `low`, `high`: its length in characters. `atom`: it may be repeated as it stands.
    """

    text: str
    cost: int
    low: int = 0
    high: int = 0
    atom: bool = True

    def inner(self) -> str:
        return self.text if self.atom else f"({self.text})"


EMPTY = Piece('""', 0)


def literal(text: str) -> Piece:
    """Exactly this text; a token for every byte at worst."""
    return Piece(f'"{"".join(map(_in_string, text))}"', len(text.encode()), len(text), len(text)) if text else EMPTY


def one_of(ranges: Ranges) -> Piece:
    """One character out of these."""
    return Piece(_class(ranges), len(chr(ranges[-1][1]).encode()), 1, 1)


def sequence(*pieces: Piece) -> Piece:
    parts = [piece for piece in pieces if piece is not EMPTY]
    if len(parts) < 2:
        return parts[0] if parts else EMPTY
    text = " ".join(part.text for part in parts)
    return Piece(text, _sum(p.cost for p in parts), _sum(p.low for p in parts), _sum(p.high for p in parts), atom=False)


def either(pieces: Sequence[Piece]) -> Piece:
    """Any of at least one."""
    different = list({piece.text: piece for piece in pieces}.values())
    if len(different) == 1:
        return different[0]
    text = " | ".join(piece.text for piece in different)
    return Piece(
        f"({text})", max(piece.cost for piece in different), min(piece.low for piece in different), max(piece.high for piece in different)
    )


def optional(piece: Piece) -> Piece:
    return piece if piece is EMPTY else Piece(f"{piece.inner()}?", piece.cost, 0, piece.high, atom=False)


def repeated(piece: Piece, least: int, most: int) -> Piece:
    if piece is EMPTY or most == 0:
        return EMPTY
    if (least, most) == (1, 1):
        return piece
    count = f"{least}" if least == most else f"{least},{most}"
    high = min(piece.high * most, UNENDING)
    return Piece(f"{piece.inner()}{{{count}}}", min(piece.cost * most, UNENDING), piece.low * least, high, atom=False)


@dataclass
class Grammar:
    """The rules of one answer."""

    rules: dict[str, str] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    size: int = 0

    def rule(self, piece: Piece, attributes: str = "") -> Piece:
        """The same piece by its name, so that it is written once however often it is used."""
        if not attributes and len(piece.text) < 12:
            return piece
        key = f"{attributes} ::= {piece.text}"
        if key not in self.names:
            self.names[key] = f"r{len(self.rules)}"
            self.rules[self.names[key]] = key
            self.size += len(key) + 8
            if self.size > MOST_GRAMMAR:
                raise Unkept("is too large")
        return Piece(self.names[key], piece.cost, piece.low, piece.high)

    def run(self, one: Piece, least: int = 0, *, first: Piece | None = None, tokens: int | None = None, chars: int | None = None) -> Piece:
        """As many of `one` as there are until so many tokens or characters are used up, one of which must be given.

        `least` of them come first, made of `first` where that is given. They count as well, so `chars` must have room for them.
        """
        tokens = None if tokens is None else max(1, tokens) + least
        limits = [f"{name}={most}" for name, most in (("max_tokens", tokens), ("max_chars", chars)) if most is not None]
        must = repeated(first or one, least, least)
        # Three more for the bytes of a character, or the end of an escape, that a limit falls into.
        by_tokens = UNENDING if tokens is None else max(tokens, must.cost) + 3
        by_chars = UNENDING if chars is None else chars * one.cost
        text = sequence(must, Piece(f"{one.inner()}*", 0)).text
        return self.rule(Piece(text, min(by_tokens, by_chars), least, UNENDING if chars is None else chars), f"[{', '.join(limits)}]")

    def written(self, root: Piece) -> str:
        return "\n".join([f"root ::= {root.text}", *(f"{name}{key}" for name, key in self.rules.items())]) + "\n"


def union(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Ranges in order, without overlaps."""
    merged: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(high, merged[-1][1]))
        else:
            merged.append((low, high))
    return tuple(merged)


def without(ranges: Ranges, excluded: Ranges) -> Ranges:
    """The first less the second."""
    left = list(ranges)
    for low, high in excluded:
        left = [(a, b) for start, end in left for a, b in ((start, min(end, low - 1)), (max(start, high + 1), end)) if a <= b]
    return tuple(left)


def _sum(numbers: Iterable[int]) -> int:
    return min(sum(numbers), UNENDING)


def _class(ranges: Ranges) -> str:
    """xgrammar 0.2.7 reads a range wrongly that begins or ends within a block of UTF-8: some characters lead nowhere, others are lost."""
    whole = [part for low, high in ranges for part in _split(low, high)]
    return "[" + "".join(_in_class(low) if low == high else f"{_in_class(low)}-{_in_class(high)}" for low, high in whole) + "]"


def _split(low: int, high: int) -> list[tuple[int, int]]:
    """The range in parts of which each has but one byte of UTF-8 that is not the same throughout, or free."""
    for edge in (0x80, 0x800, 0x10000):
        if low < edge <= high:
            return [*_split(low, edge - 1), *_split(edge, high)]
    for block in (0x40, 0x1000, 0x40000):
        if high < 0x80 or low // block == high // block:
            break
        if low % block:
            edge = (low | (block - 1)) + 1
            return [*_split(low, edge - 1), *_split(edge, high)]
        if (high + 1) % block:
            edge = high - high % block
            return [*_split(low, edge - 1), *_split(edge, high)]
    return [(low, high)]


def _in_class(code: int) -> str:
    return f"\\{chr(code)}" if chr(code) in "^-[]\\" else _printable(code)


def _in_string(character: str) -> str:
    return f"\\{character}" if character in '"\\' else _printable(ord(character))


def _printable(code: int) -> str:
    """Eight digits always: the engine reads on as long as hexadecimal digits follow `\\x`."""
    return chr(code) if 32 <= code < 127 else f"\\U{code:08x}"
