"""What an answer must look like: schemas are kept or refused by keyword and place, their openness is bounded, and nobody's grammar hurts."""

from __future__ import annotations

import json
import re
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from random_schemas import SCHEMAS, TREE

from gemma3n_sgl.errors import InvalidValue
from gemma3n_sgl.forms import ebnf, json_object, json_schema, regex
from gemma3n_sgl.forms.grammar import Expr
from gemma3n_sgl.forms.numbers import decimals, integers
from gemma3n_sgl.forms.schema import LADDER, Compiler
from gemma3n_sgl.forms.written import check_grammar


def as_regex(expr: Expr) -> re.Pattern[str]:
    """A grammar of digits alone as Python's own regular expression."""
    return re.compile(re.sub(r'"([^"]*)"', lambda found: re.escape(found[1]), expr.text).replace(" ", ""))


@given(st.integers(-1200, 1200), st.integers(0, 1500))
def test_a_range_of_integers_holds_all_within_and_none_beyond(low: int, width: int):
    pattern = as_regex(integers(low, low + width))  # type: ignore[arg-type]
    for value in (*range(low - 15, low + 15), *range(low + width - 15, low + width + 15), 0, -low, 10**6):
        assert bool(pattern.fullmatch(str(value))) == (low <= value <= low + width)


@given(st.integers(-400, 400), st.integers(0, 500), st.booleans(), st.booleans())
def test_a_range_of_decimals_is_exact_to_its_ends(low: int, width: int, above: bool, below: bool):
    first, last = Decimal(low) / 100, Decimal(low + width) / 100
    expr = decimals(first, last, 2, strictly_above=above, strictly_below=below)
    pattern = as_regex(expr) if expr else re.compile("(?!)")
    for value in range(low - 12, low + width + 12):
        inside = (low < value if above else low <= value) and (value < low + width if below else value <= low + width)
        shown = f"{Decimal(value) / 100:.2f}"
        assert bool(pattern.fullmatch(shown)) == inside, shown


@settings(max_examples=150, deadline=None)
@given(SCHEMAS)
def test_every_schema_becomes_a_grammar_that_names_what_it_defines(schema: Any):
    check_grammar(json_schema(schema, tokens=300).ebnf.replace("{128}", "{1}"), "schema")


REFUSED: list[tuple[Any, str, str]] = [
    ({"not": {}}, "`not`", ""),
    ({"if": {}, "then": {}}, "`if`", ""),
    ({"type": "object", "patternProperties": {"^a": {}}}, "`patternProperties`", ""),
    ({"type": "object", "propertyNames": {}}, "`propertyNames`", ""),
    ({"properties": {"tags": {"type": "array", "uniqueItems": True}}}, "`uniqueItems`", "`tags`"),
    ({"type": "array", "contains": {"const": 1}}, "`contains`", ""),
    ({"dependentRequired": {"a": ["b"]}}, "`dependentRequired`", ""),
    ({"unevaluatedProperties": False}, "`unevaluatedProperties`", ""),
    ({"nonsense": 1}, "`nonsense`", ""),
    ({"$ref": "https://example.com/schema"}, "`$ref`", ""),
    ({"$ref": "#/$defs/absent"}, "`$ref`", ""),
    ({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "itself alone", ""),
    ({"properties": {"a": {"items": {"type": "text"}}}}, "`type`", "`a.items`"),
    ({"type": "string", "minLength": 5, "maxLength": 4}, "`minLength`", ""),
    ({"type": "integer", "minimum": 5, "maximum": 4}, "no number", ""),
    ({"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2}, "no number", ""),
    ({"type": "array", "minItems": 3, "maxItems": 2}, "`minItems`", ""),
    ({"enum": ["a"], "type": "integer"}, "nothing", ""),
    ({"enum": []}, "`enum`", ""),
    (False, "nothing", ""),
    (5, "no schema", ""),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "`oneOf`", ""),
    ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "exclude", ""),
    ({"type": "object", "required": ["a"], "additionalProperties": False}, "forbids", ""),
    ({"type": "object", "minProperties": 3}, "`minProperties`", ""),
    ({"type": "number", "minimum": "1"}, "`minimum`", ""),
    ({"type": "object", "required": [{}]}, "`required`", ""),
    ({"type": "object", "properties": []}, "`properties`", ""),
    ({"type": [[]]}, "`type`", ""),
    ({"oneOf": [{"const": 1, "required": 5}, {"properties": []}]}, "", ""),
]


@pytest.mark.parametrize(("schema", "says", "place"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cant_be_kept_is_refused_by_keyword_and_place(schema: Any, says: str, place: str):
    with pytest.raises(InvalidValue) as told:
        json_schema(schema, param="response_format")
    assert says in told.value.message and place in told.value.message
    assert told.value.param == "response_format"


def test_a_recursion_that_can_never_end_is_refused():
    endless = {"$defs": {"a": {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "required": ["a"]}}, "$ref": "#/$defs/a"}
    with pytest.raises(InvalidValue, match="never ends"):
        json_schema(endless)


@pytest.mark.parametrize("schema", [{"type": "object"}, {"type": "string"}, {"items": {"type": "string"}, "type": "array"}, TREE])
@pytest.mark.parametrize("tokens", [60, 200, 1000])
def test_the_longest_answer_is_within_the_budget(schema: Any, tokens: int):
    costs = {grammar: cost for bounds in LADDER for grammar, cost in [Compiler(schema, bounds, "x").compile()]}
    assert costs[json_schema(schema, tokens=tokens).ebnf] <= tokens


def test_what_a_schema_demands_is_kept_whatever_the_budget():
    assert "{100}" in json_schema({"type": "string", "minLength": 100}, tokens=5).ebnf
    assert '"a"' in json_schema({"const": "a" * 1}, tokens=1).ebnf.replace('\\"', '"')


def deep(levels: int) -> Any:
    schema: Any = {"type": "integer"}
    for _ in range(levels):
        schema = {"type": "object", "properties": {"a": schema, "b": schema}}
    return schema


HOSTILE = {
    "a doubling tree": deep(18),
    "a deep one": json.loads('{"items":' * 200 + "{}" + "}" * 200),
    "many references": {
        "$defs": {str(i): {"type": "array", "items": {"anyOf": [{"$ref": f"#/$defs/{j}"} for j in range(8)]}} for i in range(8)},
        "$ref": "#/$defs/0",
    },
    "many alternatives": {"anyOf": [{"type": "string", "minLength": i, "maxLength": i + 500} for i in range(900)]},
    "a large enum": {"enum": [f"{i:060}" for i in range(1000)]},
    "a long text": {"type": "string", "minLength": 8192, "maxLength": 10**9},
    "huge numbers": {"type": "integer", "minimum": -(10**15), "maximum": 10**15, "multipleOf": 7},
    "repeats of repeats": {"type": "string", "pattern": "((a{1,100}){1,100}){1,100}"},
    "beyond the size": {"description": "x" * 70_000},
}


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_schema_is_refused_or_compiled_soon(case: str):
    start = time.process_time()
    try:
        assert len(json_schema(HOSTILE[case], tokens=500).ebnf) < 300_000
    except InvalidValue as error:
        assert len(error.message) < 300
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("(?=a)b", "look-around"),
        (r"(a)\1", "backreference"),
        ("(", "not a valid"),
        ("(?i)a", "flags"),
        (r"a\bc", "border"),
        ("a{99999}", "too often"),
        ("a" * 3000, "longer"),
    ],
)
def test_a_regex_that_cant_be_kept_is_refused_with_the_reason(pattern: str, says: str):
    with pytest.raises(InvalidValue, match=says) as told:
        regex(pattern)
    assert told.value.param == "regex"


def test_what_a_regex_leaves_open_ends():
    assert "{0,127}" in regex("a+").ebnf or "{0,128}" in regex("a*").ebnf
    assert "*" not in regex(r"^\d+(\.\d*)?$").ebnf


@pytest.mark.parametrize(
    ("grammar", "says"),
    [
        ('start ::= "a"', "`root`"),
        ("root ::= missing", "`missing`"),
        ('root ::= ("a"', "brackets"),
        ('root ::= "a', "line 1"),
        ('root ::= root "a"', "begins with itself"),
        ('root ::= x\nx ::= ("b" | y)\ny ::= x "c"', "begins with itself"),
        ('root ::= "a" root', "no text that ends"),
        ('root ::= "a"{5000}', "more than 1024"),
        ("root ::= *", "repeats nothing"),
        ("root ::= ", "empty"),
        ('root ::= "a"\nroot ::= "b"', "twice"),
        ("", "begins with a rule"),
    ],
)
def test_a_grammar_that_would_hurt_is_refused_with_the_reason(grammar: str, says: str):
    with pytest.raises(InvalidValue, match=re.escape(says)):
        ebnf(grammar)


@pytest.mark.parametrize("grammar", ['root ::= "a" (", " "a"){0,3}', 'root ::= item* # all\nitem ::= [^\\]a-z] | "\\"" more?\nmore ::= "x"'])
def test_a_sound_grammar_goes_as_it_is(grammar: str):
    assert ebnf(grammar).params() == {"ebnf": grammar}


def test_any_object_is_an_object():
    assert json_object(tokens=50).ebnf.startswith("root ::= ")
