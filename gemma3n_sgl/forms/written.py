"""Grammars that a client wrote itself: what is wrong with one is told before the engine meets it."""

from __future__ import annotations

import re

from gemma3n_sgl.errors import InvalidValue

MOST_CHARACTERS = 16_384
MOST_REPEATS = 1024
_FEW = 8

_TOKEN = re.compile(
    r"""\s+ | \#[^\n]* | (?P<string>"(?:[^"\\\n]|\\.)*") | (?P<class>\[\^?(?:[^\]\\\n]|\\.)*\]) | (?P<define>::=)
      | (?P<name>[A-Za-z_][A-Za-z0-9_.-]*) | (?P<repeat>\{\s*\d+\s*(?:,\s*\d*\s*)?\}) | (?P<sign>[()|?*+])""",
    re.VERBOSE,
)
_Token = tuple[str, str]


def check_grammar(text: str, param: str) -> None:
    """Raise InvalidValue where a grammar is too large, can't be read, names rules it lacks, or begins a rule with itself."""
    if len(text) > MOST_CHARACTERS:
        raise InvalidValue(f"The grammar is longer than {MOST_CHARACTERS} characters. Simplify it.", param=param)
    if any(character == "\0" or "\ud800" <= character <= "\udfff" for character in text):
        raise InvalidValue("The grammar holds a character that no text has: NUL, or half of a surrogate pair.", param=param)
    rules = _rules(_tokens(text, param), param)
    if "root" not in rules:
        raise InvalidValue("The grammar has no rule `root`, with which it begins.", param=param)
    for name, body in rules.items():
        for kind, token in body:
            if kind == "name" and token not in rules:
                raise InvalidValue(f"The grammar's rule `{name}` names `{token}`, which is not defined.", param=param)
            if kind == "repeat" and any(int(number) > MOST_REPEATS for number in re.findall(r"\d+", token)):
                raise InvalidValue(f"The grammar's rule `{name}` repeats more than {MOST_REPEATS} times.", param=param)
    _refuse_unclear_repeats(rules, param)
    _refuse_left_recursion(rules, param)
    _refuse_endless(rules, param)


def _tokens(text: str, param: str) -> list[_Token]:
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise InvalidValue(f"The grammar can't be read in line {text.count(chr(10), 0, at) + 1}.", param=param)
        if match.lastgroup:
            found.append((match.lastgroup, match[0]))
        at = match.end()
    return found


def _rules(tokens: list[_Token], param: str) -> dict[str, list[_Token]]:
    rules: dict[str, list[_Token]] = {}
    starts = [i for i, (kind, _) in enumerate(tokens) if kind == "define"]
    for i, start in enumerate(starts):
        if start == 0 or tokens[start - 1][0] != "name":
            raise InvalidValue("The grammar has a `::=` without the name of a rule before it.", param=param)
        end = starts[i + 1] - 1 if i + 1 < len(starts) else len(tokens)
        name, body = tokens[start - 1][1], tokens[start + 1 : end]
        if name in rules:
            raise InvalidValue(f"The grammar defines `{name}` twice.", param=param)
        _check_body(name, body, param)
        rules[name] = body
    if not starts or starts[0] != 1:
        raise InvalidValue("The grammar begins with a rule: `root ::= …`.", param=param)
    return rules


def _check_body(name: str, body: list[_Token], param: str) -> None:
    depth, operand = 0, False
    for kind, token in body:
        if kind == "repeat" or token in ("?", "*", "+"):
            if not operand:
                raise InvalidValue(f"The grammar's rule `{name}` repeats nothing.", param=param)
        elif token == ")":
            depth -= 1
            operand = True
        else:
            depth += token == "("
            operand = token not in ("(", "|")
        if depth < 0:
            break
    if depth or not body:
        raise InvalidValue(f"The grammar's rule `{name}` is empty, or its brackets don't close.", param=param)


def _refuse_unclear_repeats(rules: dict[str, list[_Token]], param: str) -> None:
    """A counted repeat of nothing but repeats, `([a-z]{0,16}){0,16}`: a text is read in so many ways that each token takes the engine seconds."""
    loose = {name for name, body in rules.items() if _only_repeats(body, set())}
    while more := {name for name, body in rules.items() if name not in loose and _only_repeats(body, loose)}:
        loose |= more
    for name, body in rules.items():
        starts: list[int] = []
        for i, (kind, token) in enumerate(body):
            if token == "(":
                starts.append(i)
            inner = body[starts.pop() + 1 : i] if token == ")" else [(kind, token)] if kind == "name" else []
            following = body[i + 1][1] if i + 1 < len(body) else ""
            if inner and _count(following) > _FEW and _only_repeats(inner, loose):
                raise InvalidValue(f"The grammar's rule `{name}` repeats what only consists of repeats. Put something fixed into it.", param=param)


def _only_repeats(body: list[_Token], loose: set[str]) -> bool:
    """Whether some way through a body consists of repeated elements alone, or of rules that do."""
    depth, fixed, any_ = 0, False, False
    for i, (kind, token) in enumerate(body):
        following = body[i + 1] if i + 1 < len(body) else ("", "")
        repeats = following[0] == "repeat" or following[1] in ("?", "*", "+")
        if token == "|" and depth == 0:
            any_, fixed = any_ or not fixed, False
        elif token in ("(", ")"):
            depth += 1 if token == "(" else -1
            fixed = fixed or (depth == 0 and token == ")" and not repeats)
        elif depth == 0 and kind in ("string", "class", "name") and not repeats and token not in loose:
            fixed = True
    return any_ or not fixed


def _count(token: str) -> int:
    """How often at most; an open repeat is no counted one."""
    numbers = re.findall(r"\d+", token) if token.startswith("{") else []
    return int(numbers[-1]) if numbers else 0


def _refuse_left_recursion(rules: dict[str, list[_Token]], param: str) -> None:
    """Left recursion never ends in a parser that goes down; what a rule may begin with is taken for all it names until a text must come."""
    begins = {name: _first_names(body) for name, body in rules.items()}
    for name in rules:
        seen: set[str] = set()
        ahead = list(begins[name])
        while ahead:
            each = ahead.pop()
            if each == name:
                raise InvalidValue(f"The grammar's rule `{name}` begins with itself. Put something before it.", param=param)
            if each not in seen:
                seen.add(each)
                ahead += begins.get(each, set())


def _first_names(body: list[_Token]) -> set[str]:
    """The rules that a body may begin with. What follows a name, an optional part or an empty text counts as well, to be sure."""
    found, stack, open_ = set(), [], True
    for i, (kind, token) in enumerate(body):
        following = body[i + 1][1] if i + 1 < len(body) else ""
        optional = following in ("?", "*") or following.startswith(("{0", "{ 0"))
        if token == "(":
            stack.append(open_)
        elif token == "|":
            open_ = stack[-1] if stack else True
        elif token == ")":
            before = stack.pop()
            open_ = open_ or (before and optional)
        elif open_ and kind == "name":
            found.add(token)
            open_ = True
        elif open_ and kind in ("string", "class"):
            open_ = optional or token == '""'
    return found


def _refuse_endless(rules: dict[str, list[_Token]], param: str) -> None:
    """A rule that can never be left: every way through it leads into itself."""
    ending: set[str] = set()
    while more := {name for name, body in rules.items() if name not in ending and _can_end(body, ending)}:
        ending |= more
    if "root" not in ending:
        raise InvalidValue("The grammar allows no text that ends.", param=param)


def _can_end(body: list[_Token], ending: set[str]) -> bool:
    """Whether some way through the body needs only rules that can end."""
    stack: list[tuple[bool, bool]] = []
    any_, all_ = False, True
    for i, (kind, token) in enumerate(body):
        following = body[i + 1][1] if i + 1 < len(body) else ""
        skippable = following in ("?", "*") or following.replace(" ", "").startswith("{0")
        if token == "(":
            stack.append((any_, all_))
            any_, all_ = False, True
        elif token == "|":
            any_, all_ = any_ or all_, True
        elif token == ")":
            inner = any_ or all_ or skippable
            any_, all_ = stack.pop()
            all_ = all_ and inner
        elif kind == "name":
            all_ = all_ and (token in ending or skippable)
    return any_ or all_
