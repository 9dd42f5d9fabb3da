"""Grammars in the EBNF that xgrammar reads: literals, classes, bounded repeats, rules with names.

An expression comes with its cost, the number of characters of the longest text it allows, which no text has fewer tokens than.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from gemma3n_sgl.errors import InvalidValue

MOST_RULES = 4000
MOST_CHARACTERS = 200_000
_NAMED = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_BLOCK = 128
"""xgrammar fills the mask of a token within {0,128} in 0.3 ms with a vocabulary of 2,000; beyond it takes forty times as long."""


class Oversize(InvalidValue):
    """Too large within these bounds; tighter ones may do."""


@dataclass(frozen=True)
class Expr:
    """An expression and its cost in characters."""

    text: str
    cost: int


EMPTY = Expr('""', 0)


@dataclass
class Grammar:
    """Rules by name; equal rules have one name."""

    rules: dict[str, str] = field(default_factory=dict)
    _names: dict[str, str] = field(default_factory=dict)
    _size: int = 0

    def rule(self, expr: Expr, stem: str = "r") -> Expr:
        """The expression as a rule of its own."""
        name = self._names.get(expr.text)
        if name is None:
            name = self._names[expr.text] = f"{stem}{len(self.rules)}"
            self.rules[name] = expr.text
            self._size += len(expr.text)
            if len(self.rules) > MOST_RULES or self._size > MOST_CHARACTERS:
                raise Oversize("The schema or pattern is too large to be kept to. Simplify it.")
        return Expr(name, expr.cost)

    def repeat(self, expr: Expr, low: int, high: int) -> Expr:
        """`low` to `high` times."""
        one = self.rule(expr).text
        parts = [f"{one}{{{_BLOCK}}}"] * (low // _BLOCK) + ([f"{one}{{{low % _BLOCK}}}"] if low % _BLOCK else [])
        if high > low:
            parts.append(self._up_to(one, high - low))
        return Expr(" ".join(parts) or '""', expr.cost * high)

    def _up_to(self, one: str, count: int) -> str:
        if count <= _BLOCK:
            return f"{one}{{0,{count}}}"
        rest = self._up_to(one, count - _BLOCK)
        return self.rule(Expr(f"{one}{{0,{_BLOCK - 1}}} | {one}{{{_BLOCK}}} {rest}", 0)).text

    def text(self, root: Expr) -> str:
        return "\n".join(f"{name} ::= {body}" for name, body in [("root", root.text), *self.rules.items()]) + "\n"


def literal(text: str) -> Expr:
    return Expr('"' + "".join(escaped(character, '"\\') for character in text) + '"', len(text)) if text else EMPTY


def sequence(*exprs: Expr) -> Expr:
    kept = [expr for expr in exprs if expr.text != '""']
    return Expr(" ".join(expr.text for expr in kept) or '""', sum(expr.cost for expr in kept))


def either(exprs: list[Expr]) -> Expr:
    """Any one of them."""
    if len(exprs) == 1:
        return exprs[0]
    return Expr("(" + " | ".join(dict.fromkeys(expr.text for expr in exprs)) + ")", max(expr.cost for expr in exprs))


def escaped(character: str, special: str = "\\[]^-") -> str:
    """A character within a class; within a literal, others are `special`."""
    if character in special:
        return "\\" + character
    if character in _NAMED:
        return _NAMED[character]
    if character < " " or character == "\x7f":
        return f"\\x{ord(character):02x}"
    return character  # an escape would take the letters behind it for more of its digits
