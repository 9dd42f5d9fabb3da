"""What an answer must look like: schemas are kept or refused by keyword and place, their openness is bounded, and nobody's grammar hurts."""

from __future__ import annotations

import json
import re
import time
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_schemas import SCHEMAS, TREE

from gemma3n_sgl.calling import Tool
from gemma3n_sgl.errors import InvalidValue
from gemma3n_sgl.forms import _compiled, ebnf, json_object, json_schema, regex
from gemma3n_sgl.forms.bounds import LEVELS, UNASKED_TOKENS
from gemma3n_sgl.forms.grammar import Piece, one_of, union
from gemma3n_sgl.forms.numbers import decimals, integers, multiples
from gemma3n_sgl.forms.written import check_grammar


def as_regex(piece: Piece | None) -> re.Pattern[str]:
    """A grammar of digits alone as Python's own regular expression."""
    if piece is None:
        return re.compile("(?!)")
    return re.compile(re.sub(r'"([^"]*)"', lambda found: re.escape(found[1]) or "(?:)", piece.text).replace(" ", ""))


def language(text: str) -> re.Pattern[str]:
    """A grammar without recursion as Python's own regular expression; the counts of tokens and characters are left out."""
    rules = dict(re.findall(r"^([a-z0-9]+)(?:\[.*?\])? ::= (.*)$", text, re.MULTILINE))
    token = re.compile(r'''"((?:[^"\\]|\\.)*)"|(\[(?:[^\]\\]|\\.)*\])|([a-z][a-z0-9]*)|( )''')

    def inlined(name: str) -> str:
        body = token.sub(lambda m: exactly(m[1]) if m[1] is not None else m[2] or ("" if m[4] else inlined(m[3])), rules[name])
        return f"(?:{body})"

    def exactly(escaped: str) -> str:
        plain = re.sub(r"\\(U[0-9a-f]{8}|.)", lambda m: chr(int(m[1][1:], 16)) if len(m[1]) > 1 else m[1], escaped)
        return f"(?:{re.escape(plain)})"

    return re.compile(inlined("root"))


@given(st.integers(-1200, 1200), st.integers(0, 1500))
def test_a_range_of_integers_holds_all_within_and_none_beyond(low: int, width: int):
    pattern = as_regex(integers(low, low + width, 15))
    for value in (*range(low - 15, low + 15), *range(low + width - 15, low + width + 15), 0, -low, 10**6):
        assert bool(pattern.fullmatch(str(value))) == (low <= value <= low + width)


@pytest.mark.parametrize(("low", "high"), [(None, None), (0, None), (95, None), (None, 5), (None, -17), (-3, None), (1000, None)])
def test_an_open_range_of_integers_goes_as_far_as_its_digits(low: int | None, high: int | None):
    pattern = as_regex(integers(low, high, 4))
    for value in range(-10_500, 10_500, 7):
        assert bool(pattern.fullmatch(str(value))) == (max(low or -9999, -9999) <= value <= (9999 if high is None else high)) or low == 0 > value
    assert not pattern.fullmatch("007") and not pattern.fullmatch("-0")


@given(st.integers(-400, 400), st.integers(0, 500), st.booleans(), st.booleans())
def test_a_range_of_decimals_is_exact_to_its_ends(low: int, width: int, above: bool, below: bool):
    first, last = Decimal(low) / 100, Decimal(low + width) / 100
    pattern = as_regex(decimals(first, last, 15, open_low=above, open_high=below, places=2))
    for value in range(low - 12, low + width + 12):
        inside = (low < value if above else low <= value) and (value < low + width if below else value <= low + width)
        for shown in {f"{Decimal(value) / 100:.2f}", f"{Decimal(value) / 100:f}", f"{(Decimal(value) / 100).normalize():f}"}:
            assert bool(pattern.fullmatch(shown)) == inside, shown


@pytest.mark.parametrize("step", [1, 2, 5, 10, 25, 50, 100, 125])
def test_multiples_are_known_by_their_last_digits(step: int):
    pattern = as_regex(multiples(step, None, None, 6, 100))
    assert all(bool(pattern.fullmatch(str(value))) == (value % step == 0) for value in range(-3000, 3000))


@given(st.lists(st.tuples(st.integers(0x20, 0xC000), st.integers(0, 3000)), min_size=1, max_size=3))
def test_a_class_written_in_blocks_of_utf8_is_the_same_class(ranges: list[tuple[int, int]]):
    wanted = union((low, low + width) for low, width in ranges)
    written = one_of(wanted).text
    parts = re.findall(r"(\\U[0-9a-f]{8}|\\.|[^\\])(?:-(\\U[0-9a-f]{8}|\\.|[^\\]))?", written[1:-1])
    codes = [tuple(int(one[2:], 16) if one[:2] == "\\U" else ord(one[-1]) for one in (low, high or low)) for low, high in parts]
    assert union(codes) == wanted
    for low, high in codes:
        if low > 0x7F:  # the bytes differ in one place, and behind it are all there
            first, last = chr(low).encode(), chr(high).encode()
            at = next((i for i, (a, b) in enumerate(zip(first, last, strict=True)) if a != b), len(first))
            assert set(first[at + 1 :]) <= {0x80} and set(last[at + 1 :]) <= {0xBF}


@given(SCHEMAS)
def test_every_schema_becomes_a_grammar_that_names_what_it_defines(schema: Any):
    written = json_schema(schema, tokens=300).ebnf
    check_grammar(re.sub(r"^(r\d+)\[max_[a-z0-9_=, ]+\]", r"\1", written, flags=re.MULTILINE), "schema")


OBJECT = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "string", "maxLength": 9}, "c": {"type": "null"}}}
NAMES: dict[str, Any] = {"properties": {"age": {"type": "null"}, "ab": {"type": "null"}}, "additionalProperties": {"type": "boolean"}}
KEPT: list[tuple[Any, list[str], list[str]]] = [
    (OBJECT | {"required": ["b"]}, ['{"b": "x"}', '{"a": 1, "b": "é\\n", "c": null}'], ["{}", '{"b": "x", "a": 1}', '{"b":"x"}', '{"b": "\n"}']),
    (OBJECT, ["{}", '{"c": null}', '{"a": -5, "c": null}'], ['{"c": null, "a": 1}', '{, "c": null}', '{"d": 1}']),
    (OBJECT | {"minProperties": 1}, ['{"c": null}'], ["{}"]),
    (OBJECT | {"minProperties": 2}, ['{"a": 1, "b": ""}'], ["{}", '{"a": 1}', '{"c": null}']),
    (OBJECT | {"maxProperties": 1}, ["{}", '{"a": 1}'], ['{"a": 1, "b": ""}']),
    (OBJECT | {"required": ["z"]}, ['{"z": [true]}', '{"a": 1, "z": 1}'], ["{}"]),
    (NAMES, ["{}", '{"age": null, "agent": true}', '{"a": true, "ag": false}'], ['{"age": true}', '{"ab": false}', '{"": true}', '{"x": null}']),
    ({"type": "array", "items": {"enum": [1, "a"]}, "minItems": 1, "maxItems": 3}, ["[1]", '["a", 1, 1]'], ["[]", "[1,1]", "[1, 1, 1, 1]"]),
    ({"type": "array", "prefixItems": [{"type": "null"}], "items": False}, ["[]", "[null]"], ["[null, null]"]),
    ({"type": "array", "items": [{"type": "null"}, {"const": 1}], "additionalItems": False, "minItems": 1}, ["[null]", "[null, 1]"], ["[]", "[1]"]),
    ({"type": "array", "items": {"enum": [1, 2, 3]}, "uniqueItems": True, "minItems": 2}, ["[1, 3]", "[1, 2, 3]"], ["[1]", "[1, 1]", "[2, 1]", "[]"]),
    ({"type": ["integer", "null"], "minimum": 3}, ["3", "12", "null"], ["2", "-3", "3.5"]),
    ({"type": "integer", "nullable": True}, ["null", "0"], ["true"]),
    ({"type": "string", "enum": ["a", "bb"], "minLength": 2}, ['"bb"'], ['"a"']),
    ({"enum": [1, True, None, [1, {"x": 2}]]}, ["1", "true", "null", '[1, {"x": 2}]'], ["[1,1]"]),
    ({"const": "\ud800"}, ['"\\ud800"'], []),
    ({"anyOf": [{"required": ["a"]}, {"required": ["c"]}]} | OBJECT, ['{"a": 1}', '{"c": null}'], ["{}", '{"b": ""}']),
    ({"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 5}]}, ["3", "5"], ["2", "6"]),
    ({"oneOf": [{"type": "string"}, {"type": "number", "minimum": 2}, {"type": "number", "maximum": 1}]}, ['"x"', "2", "1"], ["1.5"]),
    ({"oneOf": [{"properties": {"a": {}}, "required": ["a"]}, {"properties": {"b": {}}, "required": ["b"]}]}, ['{"a": 1}', '{"b": 1}'], ["{}"]),
    ({"type": "string", "pattern": "^https?://"}, ['"http://"', '"https://x.org/é"'], ['"ftp://x"', '"xhttp://"']),
    ({"type": "string", "pattern": r"\.png$"}, ['".png"', '"a b.png"'], ['"a.png "', '"apng"']),
    ({"type": "string", "pattern": "^a$|^b"}, ['"a"', '"bcd"'], ['"ab"', '"c"']),
    ({"type": "string", "pattern": "[가-힣]{2}"}, ['"한국"', '"x하나y"'], ['"한"']),
    ({"type": "string", "format": "date"}, ['"2024-12-31"', '"1789-07-14"'], ['"2024-02-30"', '"2024-13-01"', '"24-01-01"']),
    ({"type": "string", "format": "unheard-of"}, ['"anything"'], ["1"]),
    ({"type": "number", "multipleOf": 0.01, "minimum": 0}, ["0", "12.5", "0.07"], ["0.001", "-1"]),
    ({"type": "integer", "minimum": 0, "exclusiveMinimum": True, "maximum": 2}, ["1", "2"], ["0", "3"]),
    ({"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}, ["0", "-999999999999999"], ["1.0"]),
    ({"$defs": {"a b": {"type": "null"}}, "$ref": "#/$defs/a%20b", "description": "x"}, ["null"], ["1"]),
    ({"type": "string", "propertyOrdering": [], "x-y": 1, "markdownDescription": "", "$anchor": "z"}, ['"x"'], ["1"]),
    (TREE, ['{"value": 1, "left": null}', '{"value": 1, "left": {"value": 2, "left": null}}'], ['{"value": 1}']),
]


@pytest.mark.parametrize(("schema", "fits", "others"), KEPT, ids=lambda value: str(value)[:50] if isinstance(value, dict) else "")
def test_a_grammar_allows_what_the_schema_does(schema: Any, fits: list[str], others: list[str]):
    allowed = language(json_schema(schema, tokens=1000).ebnf)
    assert [text for text in fits if not allowed.fullmatch(text)] == []
    assert [text for text in others if allowed.fullmatch(text)] == []


@pytest.mark.parametrize(
    ("limits", "written"),
    [
        ({"maxLength": 9}, "[max_chars=9] ::= "),
        ({"minLength": 2, "maxLength": 9}, "[max_chars=9] ::= "),
        ({"minLength": 3, "maxLength": 3}, "{3}"),
        ({"pattern": "^[a-z]+$", "maxLength": 9}, "[max_chars=9] ::= [a-z] [a-z]*"),
        ({"pattern": "^x[a-z]*$", "minLength": 4, "maxLength": 19}, "[max_chars=18] ::= [a-z]{3} [a-z]*"),
        ({}, "[max_tokens="),
    ],
)
def test_lengths_are_counted_in_characters_and_bounded_in_tokens(limits: dict[str, Any], written: str):
    assert written in json_schema({"type": "string"} | limits, tokens=300).ebnf


REFUSED: list[tuple[Any, str, str]] = [
    *(({keyword: {}}, f"`{keyword}`", "not supported") for keyword in ("not", "if", "patternProperties", "propertyNames", "contains")),
    *(({keyword: {}}, f"`{keyword}`", "not supported") for keyword in ("dependentRequired", "dependencies", "unevaluatedProperties")),
    ({"properties": {"tags": {"type": "array", "uniqueItems": True}}}, "`uniqueItems`", "`properties.tags`"),
    ({"properties": {"tags": {"minLenght": 1}}}, "`minLenght` at `properties.tags`", "`minLength` may be meant"),
    ({"$ref": "https://example.com/schema"}, "`$ref`", "leads out"),
    ({"$ref": "#/$defs/absent"}, "`$ref`", "leads nowhere"),
    ({"$defs": {"a": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"}, "allows nothing", ""),
    ({"properties": {"a": {"items": {"type": "text"}}}}, "`type`", "`properties.a.items`"),
    ({"type": [{}]}, "`type`", "one of"),
    ({"type": "string", "minLength": 5, "maxLength": 4}, "`minLength`", "allows nothing"),
    ({"type": "string", "minLength": 5000}, "`minLength`", "not supported"),
    ({"type": "string", "minLength": float("inf")}, "a number", ""),
    ({"type": "string", "pattern": "(?=a)b"}, "`pattern`", "look-around"),
    ({"type": "string", "pattern": "a|bc", "minLength": 900}, "`pattern`", "lengths"),
    ({"type": "integer", "minimum": 5, "maximum": 4}, "lower bound", "allows nothing"),
    ({"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2}, "no number", "allows nothing"),
    ({"type": "integer", "minimum": 10**16}, "`minimum`", "15 digits"),
    ({"type": "integer", "multipleOf": 7}, "`multipleOf`", "maximum"),
    ({"type": "number", "multipleOf": 0.3}, "`multipleOf`", "not supported"),
    ({"type": "number", "multipleOf": 0}, "`multipleOf`", "above 0"),
    ({"type": "number", "minimum": "1"}, "`minimum`", "number"),
    ({"type": "array", "minItems": 3, "maxItems": 2}, "`minItems`", "allows nothing"),
    ({"type": "array", "items": False, "minItems": 1}, "allows nothing", "items"),
    ({"enum": ["a"], "type": "integer"}, "allows nothing", "values"),
    ({"enum": []}, "`enum`", "at least one"),
    ({"const": float("nan")}, "no word", ""),
    (False, "nothing", ""),
    (5, "no schema", ""),
    ({"required": [{}]}, "`required`", "names"),
    ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "`oneOf`", "overlap"),
    ({"oneOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}, "required": ["b"]}]}, "`oneOf`", "overlap"),
    ({"anyOf": {}}, "`anyOf`", "list"),
    ({"allOf": [{"type": "string"}, {"type": "integer"}]}, "exclude", ""),
    ({"type": "object", "required": ["a"], "additionalProperties": False}, "allows nothing", ""),
    ({"type": "object", "minProperties": 3}, "`minProperties`", "not supported"),
    ({"type": "object", "properties": []}, "`properties`", "object"),
    ({"oneOf": [{"const": 1, "required": 5}, {"properties": []}]}, "`required` at `oneOf[0]`", "names"),
    ({"type": "object", "required": ["a", "b"], "maxProperties": 1}, "`maxProperties`", ""),
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
    costs = dict(_compiled(schema, bounds) for bounds in LEVELS)
    assert costs[json_schema(schema, tokens=tokens).ebnf] <= tokens


def test_without_a_budget_an_answer_is_of_reasonable_length():
    flat = {"type": "object", "properties": {name: {"type": "string"} for name in "abcde"}, "required": list("abcde")}
    costs = dict(_compiled(flat, bounds) for bounds in LEVELS)
    assert costs[json_schema(flat).ebnf] < 1500
    costs = dict(_compiled({"type": "object"}, bounds) for bounds in LEVELS)
    assert costs[json_object().ebnf] <= UNASKED_TOKENS


def test_what_a_schema_demands_is_kept_whatever_the_budget():
    assert "{100}" in json_schema({"type": "string", "minLength": 100}, tokens=5).ebnf
    assert language(json_schema({"const": "a" * 40}, tokens=1).ebnf).fullmatch(f'"{"a" * 40}"')


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
    "a value and a pattern that goes back": {"enum": ["a" * 90 + "!", "ok"], "pattern": "^(a+)+$|ok"},
    "a long search": {"enum": ["a" * 100, "ok"], "pattern": "((a{1,}){100}){100}"},
    "many searches": {"enum": [f"{i:05}" for i in range(3000)], "pattern": "(" + "|".join(f"[0-9]{i}x" for i in range(90)) + ")$|00001"},
    "a step of a huge number": {"enum": [1e30, 2], "multipleOf": 1},
    "beyond the size": {"description": "x" * 70_000},
}


@pytest.mark.parametrize(
    ("pattern", "fit"),
    [("^(a+)+$", ["a"]), ("b", ["ab", "b"]), ("^a?b$", ["ab", "b"]), (r"^\w{2,}$", ["ab"]), ("[^ab]", ["c d", ""][:1]), ("^$|^a$", ["a", ""])],
)
def test_of_values_those_stay_in_which_the_pattern_is_found(pattern: str, fit: list[str]):
    values = ["a", "ab", "b", "c d", ""]
    left = json_schema({"enum": values, "pattern": pattern}).ebnf
    assert [value for value in values if f'"\\"{value}\\""' in left] == [value for value in values if value in fit]


def test_a_pattern_beside_values_is_refused_with_the_reason():
    with pytest.raises(InvalidValue, match="has a `pattern` that has a look-around, which is not supported"):
        json_schema({"enum": ["ab"], "pattern": "(?=a)b"})


_NODE = {"type": "object", "properties": {"name": {"type": "string"}, "next": {"$ref": "#/$defs/Node"}}, "required": ["name"]}
_CITY = {"properties": {"city": {"type": "string"}}, "required": ["city"]}


@pytest.mark.parametrize(
    ("parameters", "has"),
    [
        ({"$defs": {"Node": _NODE}, "$ref": "#/$defs/Node"}, "name"),
        ({"allOf": [_CITY]}, "city"),
        ({"anyOf": [_CITY, {"properties": {"zip": {"type": "string"}}, "required": ["zip"]}]}, "zip"),
        (_CITY, "city"),
    ],
)
def test_a_tools_arguments_may_be_said_in_any_words_of_json_schema(parameters: dict[str, Any], has: str):
    assert f'\\"{has}\\"' in json_schema(Tool(name="f", parameters=parameters).object_schema).ebnf


@pytest.mark.parametrize("parameters", [{}, {"type": "object"}, {"type": "object", "properties": {}, "title": "Nothing"}])
def test_a_tool_of_which_nothing_is_said_has_no_arguments(parameters: dict[str, Any]):
    schema = json_schema(Tool(name="f", parameters=parameters).object_schema)
    assert schema.ebnf == json_schema({"type": "object", "properties": {}, "additionalProperties": False}).ebnf


@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_schema_is_refused_or_compiled_soon(case: str):
    start = time.thread_time()
    try:
        assert len(json_schema(HOSTILE[case], tokens=500).ebnf) < 300_000
    except InvalidValue as error:
        assert len(error.message) < 300
    assert time.thread_time() - start < 3, "what grows without bound takes minutes; 0.1 s is usual"


@pytest.mark.parametrize(
    ("pattern", "says"),
    [
        ("(?=a)b", "look-around"),
        (r"(a)\1", "backreference"),
        ("(", "no regular expression"),
        ("(?i)a", "flags"),
        (r"a\bc", "border"),
        ("a{99999}", "more than 1000"),
        ("a" * 3000, "1000 characters"),
        ("(.{0,16}){0,16}", "its beginning again"),
        ("(a{1,20}b?){9}", "its beginning again"),
        ("\0", "can't have"),
        ("[\ud800-\udfff]", "can't have"),
    ],
)
def test_a_regex_that_cant_be_kept_is_refused_with_the_reason(pattern: str, says: str):
    with pytest.raises(InvalidValue, match=says) as told:
        regex(pattern)
    assert told.value.param == "regex"


@pytest.mark.parametrize("pattern", [r"^\d+(\.\d*)?$", "a+", r"\w+( \w+)*", "(ab|c)*"])
def test_what_a_regex_leaves_open_ends(pattern: str):
    written = regex(pattern).ebnf
    assert all("[max_tokens=" in line or not re.search(r"[\])][*+]", line) for line in written.splitlines())


@pytest.mark.parametrize(
    ("pattern", "fits", "others"),
    [
        ("[ab]{2}", ["ab"], ["a", "abc"]),
        (r"\w+@\w+", ["é@é".replace("é", "e")], ["é@e", "e@"]),
        (r"[^\s\d]x?", ["ax", "é"], ["1", " x"]),
        ('"a\\\\"', ['"a\\"'], ["a"]),
        ("(?P<x>a)|b{2,3}?", ["a", "bb", "bbb"], ["b"]),
        ("한+|[\u00e0-\uffef]", ["한한", "ñ"], ["n"]),
    ],
)
def test_a_regex_is_met_by_the_whole_text(pattern: str, fits: list[str], others: list[str]):
    allowed = language(regex(pattern).ebnf)
    assert all(map(allowed.fullmatch, fits)) and not any(map(allowed.fullmatch, others))


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
        ("root ::= ([a-z]{0,16}){0,16}", "consists of repeats"),
        ("root ::= x{0,16}\nx ::= y{0,9} y?\ny ::= [a-z]", "consists of repeats"),
        ('root ::= "\0"', "NUL"),
        ('root ::= "\ud800"', "surrogate"),
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
