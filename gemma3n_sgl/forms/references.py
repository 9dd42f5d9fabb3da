"""`$ref` within one schema: where it leads, and which of them lead back to themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from gemma3n_sgl.forms.bounds import MOST_REFERENCES
from gemma3n_sgl.forms.grammar import Unkept
from gemma3n_sgl.forms.keywords import at

Path = tuple[str, ...]


def resolved(root: Any, ref: str, place: str) -> Any:
    """What a reference names. Unkept where there is nothing."""
    found = root
    for step in _path(ref):
        if isinstance(found, dict) and step in found:
            found = found[step]
        elif isinstance(found, list) and step.isdecimal() and int(step) < len(found):
            found = found[int(step)]
        else:
            raise Unkept(f"has a `$ref`{at(place)} that leads nowhere: {ref[:80]}")
    return found


def recursive(root: Any) -> set[str]:
    """References that what they name holds again, at whatever remove."""
    places = list(_references(root, ()))
    paths = {ref: _path(ref) for _, ref in places}
    if len(paths) > MOST_REFERENCES:
        raise Unkept(f"has more than {MOST_REFERENCES} different references")
    direct = {ref: {other for place, other in places if place[: len(path)] == path} for ref, path in paths.items()}
    return {ref for ref in paths if ref in _reached(ref, direct)}


def _reached(ref: str, direct: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    ahead = [ref]
    while ahead:
        new = direct[ahead.pop()] - found
        found |= new
        ahead += new
    return found


def _references(node: Any, path: Path) -> Iterator[tuple[Path, str]]:
    """Every reference and its place."""
    if isinstance(node, dict):
        ref = node.get("$ref")
        if isinstance(ref, str):
            yield path, ref
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for step, child in children:
        if isinstance(child, dict | list):
            yield from _references(child, (*path, str(step)))


def _path(ref: str) -> Path:
    """`#/$defs/a%20b` → ("$defs", "a b")."""
    return tuple(unquote(step).replace("~1", "/").replace("~0", "~") for step in ref.removeprefix("#").split("/")[1:])
