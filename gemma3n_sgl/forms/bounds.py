"""How much room a grammar leaves where nobody said how much, and how big schemas and grammars may be.

A small model fills any room it is given, so all of it is bounded: an answer is closed after so many tokens at the latest.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

MOST_SCHEMA = 64_000
"""Characters of a schema, written as JSON."""

MOST_GRAMMAR = 160_000
"""Characters of a grammar; the engine compiles such a one in a second or two."""

MOST_STEPS = 4_000
"""Schemas looked at while one is compiled, those reached by `$ref`, `allOf` and `anyOf` each time they are."""

MOST_NESTING = 32
"""Schemas inside schemas."""

MOST_DEPTH = 12
"""Rounds of recursion, where a schema needs so many to come to an end."""

MOST_MINIMUM = 1_000
"""Characters or items that a schema may demand at least."""

MOST_MAXIMUM = 1_000_000
"""Above it, a maxLength or maxItems bounds nothing."""

MOST_PATTERN = 1_000
"""Characters of a regex."""

MOST_REPEATS = 1_000
"""Times a part of a regex may be asked for."""

MOST_REFERENCES = 200
"""Different places that `$ref` names."""

UNENDING = 10**12
"""Tokens; a cost as good as endless."""


@dataclass(frozen=True)
class Bounds:
    """Room for what is left open. `tokens`: of a string; `items`: of an array or of properties without names; `depth`: rounds of
    recursion; `digits`: of a number; `cap`: tokens and items where the schema itself names a maximum (None: that maximum)."""

    tokens: int
    items: int
    depth: int
    digits: int = 15
    cap: int | None = None

    def inside(self) -> Bounds:
        """For what may be there several times: an array of records has room for sixteen of them, but not for sixteen long letters."""
        return replace(self, tokens=max(self.tokens // 4, min(self.tokens, 16)), items=max(self.items // 2, min(self.items, 2)))


LEVELS = (
    Bounds(1024, 32, 5),
    Bounds(768, 24, 5),
    Bounds(512, 16, 5),
    Bounds(384, 16, 4),
    Bounds(256, 16, 4),
    Bounds(192, 16, 4),
    Bounds(128, 16, 3),
    Bounds(96, 16, 3),
    Bounds(96, 12, 3),
    Bounds(64, 10, 3),
    Bounds(48, 8, 3),
    Bounds(32, 8, 2),
    Bounds(24, 6, 2),
    Bounds(16, 4, 2),
    Bounds(12, 3, 1, digits=9),
    Bounds(8, 2, 1, digits=6),
    Bounds(4, 1, 1, digits=4),
    Bounds(4, 1, 1, digits=4, cap=64),
    Bounds(4, 1, 1, digits=4, cap=16),
    Bounds(2, 1, 1, digits=3, cap=4),
    Bounds(1, 1, 1, digits=2, cap=1),
)
"""From roomy to tight. The last ones take away from what the schema has room for, never from what it demands."""

UNASKED = LEVELS[4:14]
"""For an answer without a budget of its own: it ends within `UNASKED_TOKENS`, unless the schema itself asks for more."""

UNASKED_TOKENS = 2048
