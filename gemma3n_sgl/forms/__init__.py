"""What an answer must look like: JSON schemas, patterns and grammars in which every answer ends.

The engine's own way with a JSON schema leaves lengths, digits, items and white space open, and a small model then runs on for ever. So a
schema is compiled here, into the EBNF that xgrammar reads, as JSON on one line with a bound for whatever the schema leaves open. The bounds
shrink with the answer's budget of tokens, so that it closes within it; what a schema itself demands is always kept.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from gemma3n_sgl.errors import InvalidValue
from gemma3n_sgl.forms.grammar import Grammar, Oversize
from gemma3n_sgl.forms.patterns import pattern
from gemma3n_sgl.forms.schema import LADDER, Compiler
from gemma3n_sgl.forms.written import check_grammar

DEFAULT_TOKENS = 2048
"""The budget of an answer whose request names none."""

MOST_SCHEMA = 65_536
"""Characters of a schema."""


@dataclass(frozen=True)
class Constraint:
    """What an answer must look like, as a grammar for the engine; every answer it allows ends."""

    ebnf: str

    def params(self) -> dict[str, str]:
        """What goes into the engine's `sampling_params`."""
        return {"ebnf": self.ebnf}


def json_schema(schema: Any, *, tokens: int | None = None, param: str = "response_format") -> Constraint:
    """JSON that fits `schema` and closes within `tokens`. InvalidValue names the keyword that can't be kept, and its place.

    Objects have their properties in the schema's order, and no others where it names some; unknown formats are taken for annotations.
    """
    try:
        text = json.dumps(schema)
    except RecursionError:
        text = " " * (MOST_SCHEMA + 1)
    if len(text) > MOST_SCHEMA:
        raise InvalidValue(f"The schema is larger than {MOST_SCHEMA} characters. Simplify it.", param=param)
    return _compiled(text, DEFAULT_TOKENS if tokens is None else tokens, param)


@lru_cache(maxsize=128)
def _compiled(schema_text: str, budget: int, param: str) -> Constraint:
    """Asked for again and again: a program's own schema, the tools of a talk."""
    schema = json.loads(schema_text)
    text, oversize = "", None
    for bounds in LADDER:
        try:
            text, cost = Compiler(schema, bounds, param).compile()
        except Oversize as error:
            oversize = error
        except InvalidValue:
            if not text:
                raise
            break  # within tighter bounds a recursion has no room to end
        else:
            if cost <= budget:
                break
    if not text and oversize is not None:
        oversize.param = param
        raise oversize
    return Constraint(text)


def json_object(*, tokens: int | None = None) -> Constraint:
    """Any JSON object."""
    return json_schema({"type": "object"}, tokens=tokens)


def regex(text: str, *, tokens: int | None = None, param: str = "regex") -> Constraint:
    """Text that the whole of a regular expression matches; what it repeats without end is repeated at most 128 times."""
    grammar = Grammar()
    expr, _, _ = pattern(grammar, text, most=128, json=False, param=param)
    return Constraint(grammar.text(expr))


def ebnf(text: str, *, param: str = "ebnf") -> Constraint:
    """Text by a grammar in xgrammar's own EBNF, with a rule `root`. It is checked for what would hurt the engine, but not bounded."""
    check_grammar(text, param)
    return Constraint(text)
