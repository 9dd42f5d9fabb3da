"""Tables of the documents that the code knows better: `python tools/tables.py` puts them in place, between `<!-- NAME -->` and `<!-- /NAME -->`.

A test asserts that they are up to date.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

import yaml

from gemma3n_sgl import errors
from gemma3n_sgl.openai.requests import EFFORTS, HARMLESS, NOTHING, ChatRequest
from gemma3n_sgl.registry import Registry
from gemma3n_sgl.serving.metrics import Metrics
from gemma3n_sgl.settings import PREFIX, Settings
from gemma3n_sgl.terminal.table import options_in_short

ROOT = Path(__file__).parent.parent
ERROR = re.compile(r"^[ │├└─]*(?P<name>\w+) +(?P<status>\d{3}) (?P<code>\w+) *(?P<when>.*)$", re.MULTILINE)
"""A line of the tree that `errors.py` draws."""

NEVER_TOLD = ("Gemma3nError", "SettingsError")
"""The base of all errors, and the one that ends the server before it serves."""


def settings() -> str:
    """Every setting, its default and its meaning, from `Settings`."""
    rows = []
    for name, field in Settings.model_fields.items():
        default = field.get_default()
        shown = f"{default:g}" if isinstance(default, float) else ",".join(default) if isinstance(default, tuple) else str(default or "")
        rows.append((f"`{PREFIX}{name.upper()}`", f"`{shown}`" if shown else "", field.description))
    return _table(("variable", "default", "what it sets"), rows)


def programs() -> str:
    """Every built-in program, from its signature and docstring."""
    found = Registry.discover().programs.values()
    rows = [(f"`{p.name}`", ", ".join(p.input_kinds), f"`{options}`" if (options := options_in_short(p)) else "", p.summary) for p in found]
    return _table(("program", "takes", "options", "what it does"), rows)


def error_codes() -> str:
    """Every error a client can be told, from the tree in `errors.py`."""
    rows = []
    for entry in ERROR.finditer(errors.__doc__ or ""):
        if entry["name"] in NEVER_TOLD:
            continue
        kind: type[errors.Gemma3nError] = getattr(errors, entry["name"])
        retry = f"after {kind.retry_after} s" if kind.retry_after else "no" if kind.retry is False or kind.status < 500 else "yes"
        rows.append((str(kind.status), f"`{kind.code}`", f"`{kind.type}`", re.split(r" {4,}", entry["when"])[0], retry))
    return _table(("status", "`code`", "`type`", "when", "try again?"), rows)


def fields() -> str:
    """Every field of a chat request that means something here, from `openai/requests.py`."""
    efforts = ", ".join(f"{asked} → {effort}" for asked, effort in EFFORTS.items())
    rows = [
        ("honoured", _named(ChatRequest.model_fields)),
        ("`reasoning_effort`, as a program's `effort`", efforts),
        ("taken, without any effect on an answer", _named(sorted(HARMLESS))),
        ("refused by name, unless they ask for nothing", _named(NOTHING)),
        ("any other", "refused by name (400 `invalid_value`)"),
    ]
    return _table(("fields", ""), rows)


def metrics() -> str:
    """Everything that is measured, with its labels."""
    rows = [(f"`{name}`", ", ".join(f"`{label}`" for label in labels), meaning) for name, labels, meaning in Metrics().described()]
    return _table(("metric", "labels", "what it is"), rows)


def alerts() -> str:
    """The alerts that are offered, and what each says to do."""
    rules = yaml.safe_load((ROOT / "examples" / "monitoring" / "alerts.yaml").read_text(encoding="utf-8"))["groups"][0]["rules"]
    return _table(("alert", "what to do"), [(f"`{rule['alert']}`", rule["annotations"]["description"]) for rule in rules])


TABLES: dict[str, dict[str, Callable[[], str]]] = {
    "README.md": {"programs": programs},
    "docs/settings.md": {"settings": settings},
    "docs/http.md": {"errors": error_codes, "fields": fields},
    "docs/operations.md": {"metrics": metrics, "alerts": alerts},
}


def renewed(file: str) -> str:
    """A document with its tables as they should be. ValueError if a place for one is missing."""
    text = (ROOT / file).read_text(encoding="utf-8")
    for name, table in TABLES[file].items():
        begin, end = f"<!-- {name} -->\n", f"<!-- /{name} -->"
        if text.count(begin) != 1 or text.count(end) != 1:
            raise ValueError(f"{file} needs one place for its table: {begin.strip()} … {end}")
        head, rest = text.split(begin)
        text = f"{head}{begin}{table()}{end}{rest.split(end)[1]}"
    return text


def _named(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str | None, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "".join(f"| {' | '.join((cell or '').replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


def main() -> None:
    for file in TABLES:
        (ROOT / file).write_text(renewed(file), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
