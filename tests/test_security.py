"""SECURITY.md promises nothing that no test tries."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
ROWS = [line.strip("|").split("|") for line in TEXT.splitlines() if line.startswith("| ")][1:]
"""Promise, attack, tests."""
NAMED = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)


def test_every_promise_has_an_attack_and_a_test():
    assert len(ROWS) >= 15
    for promise, attack, tests in ROWS:
        assert promise.strip() and attack.strip() and re.search(r"`tests/.+::test_\w+`", tests), promise


@cache
def functions_of(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_the_test_of_a_promise_is_there():
    assert [f"{file}::{name}" for file, name in NAMED if name not in functions_of(file)] == []


def test_the_commands_that_try_more_are_there():
    for file in re.findall(r"^python (\S+\.py)", TEXT, re.MULTILINE):
        assert (ROOT / file).exists(), file
