"""What an answer must look like: JSON schemas, patterns and grammars in which every answer ends.

The engine's own way with a JSON schema leaves lengths, digits, items and white space open, and a small model then runs on for ever. So a
schema is compiled here, into the EBNF that xgrammar reads, as JSON on one line with a bound for whatever the schema leaves open. The bounds
shrink with the answer's budget of tokens, so that it closes within it; what a schema itself demands is always kept.

A zero-width space that makes a control token harmless falls inside a string, where JSON allows it: what is written still parses.

A grammar that it can't compile the engine (SGLang 0.5.23) answers with 400 within milliseconds, in a stream with an event that tells of an
abort (its one token is noise), and goes on. What it compiles and then takes seconds over for every token holds up every other request: such
grammars are what must not get through here.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from gemma3n_sgl.errors import InvalidValue
from gemma3n_sgl.forms.bounds import LEVELS, MOST_DEPTH, MOST_SCHEMA, UNASKED, UNASKED_TOKENS, Bounds
from gemma3n_sgl.forms.grammar import Grammar, Impossible, Unkept
from gemma3n_sgl.forms.patterns import Pattern
from gemma3n_sgl.forms.reading import Document
from gemma3n_sgl.forms.values import Spot, Values
from gemma3n_sgl.forms.written import check_grammar

OPEN_REPEAT = 256
"""Tokens for an open repeat of a client's own pattern."""


@dataclass(frozen=True)
class Constraint:
    """What an answer must look like, as a grammar for the engine."""

    ebnf: str

    def params(self) -> dict[str, str]:
        """What goes into the engine's `sampling_params`."""
        return {"ebnf": self.ebnf}


def json_schema(schema: Any, *, tokens: int | None = None, param: str = "response_format") -> Constraint:
    """JSON that fits `schema` and closes within `tokens`, if the schema's own demands allow. InvalidValue names the keyword that can't be kept.

    Objects have their properties in the schema's order, and no others unless `additionalProperties` asks for them or it names none.
    """
    try:
        return _constraint(_text(schema), tokens)
    except Unkept as unkept:
        raise InvalidValue(f"The schema {unkept.says}.", param=param) from None
    except RecursionError:
        raise InvalidValue("The schema is nested too deep.", param=param) from None


def json_object(*, tokens: int | None = None) -> Constraint:
    """Any JSON object."""
    return json_schema({"type": "object"}, tokens=tokens)


def regex(text: str, *, tokens: int | None = None, param: str = "regex") -> Constraint:
    """Text that the whole of a regular expression matches; its open repeats end."""
    grammar = Grammar()
    try:
        room = OPEN_REPEAT if tokens is None else max(1, min(OPEN_REPEAT, tokens // 2))
        return Constraint(grammar.written(Pattern(grammar, text, tokens=room, in_json=False).whole()))
    except Unkept as unkept:
        raise InvalidValue(f"The pattern {unkept.says}.", param=param) from None


def ebnf(text: str, *, param: str = "ebnf") -> Constraint:
    """Text by a grammar in xgrammar's own EBNF, with a rule `root`. It is checked for what would hurt the engine, but not bounded."""
    check_grammar(text, param)
    return Constraint(text)


def _text(schema: Any) -> str:
    try:
        text = json.dumps(schema, allow_nan=False)
    except ValueError:
        raise Unkept("has a number that JSON has no word for") from None
    if len(text) > MOST_SCHEMA:
        raise Unkept(f"has more than {MOST_SCHEMA} characters")
    return text


@lru_cache(maxsize=128)
def _constraint(schema_text: str, tokens: int | None) -> Constraint:
    """Asked for again and again: a program's own schema, the tools of a talk."""
    levels, budget = (UNASKED, UNASKED_TOKENS) if tokens is None else (LEVELS, tokens)
    return Constraint(_fitted(json.loads(schema_text), levels, budget))


def _fitted(schema: Any, levels: tuple[Bounds, ...], budget: int) -> str:
    """The grammar within the roomiest bounds that close within the budget; within the tightest, if none do."""
    first, last = 0, len(levels) - 1
    found = ""
    while first <= last:
        middle = (first + last) // 2
        text, cost = _compiled(schema, levels[middle])
        if cost <= budget:
            found, last = text, middle - 1
        else:
            found = found or (text if middle == len(levels) - 1 else "")
            first = middle + 1
    return found or _compiled(schema, levels[-1])[0]


def _compiled(schema: Any, bounds: Bounds) -> tuple[str, int]:
    """The grammar and its cost, with more rounds of recursion than the bounds say where fewer can't come to an end."""
    for depth in range(bounds.depth, MOST_DEPTH + 1):
        grammar = Grammar()
        try:
            root = Values(Document(schema), grammar, bounds).value(schema, Spot("", 0, depth))
            return grammar.written(root), root.cost
        except Impossible as impossible:
            if not impossible.endless:
                raise Unkept(f"allows nothing: {impossible}") from None
    raise Unkept("has a recursion that never ends")
