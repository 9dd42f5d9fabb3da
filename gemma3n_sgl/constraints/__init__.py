"""What an answer must look like, in the engine's words."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Constraint:
    """What an answer must look like; exactly one of the three is set."""

    ebnf: str = ""
    regex: str = ""
    json_schema: str = ""

    def params(self) -> dict[str, str]:
        """What goes into the engine's `sampling_params`."""
        return {name: value for name, value in vars(self).items() if value}


def json_schema(schema: Any, *, tokens: int | None = None, param: str = "response_format") -> Constraint:
    return Constraint(json_schema=json.dumps(schema))


def json_object(*, tokens: int | None = None) -> Constraint:
    return json_schema({"type": "object"}, tokens=tokens)


def regex(pattern: str) -> Constraint:
    return Constraint(regex=pattern)


def ebnf(grammar: str) -> Constraint:
    return Constraint(ebnf=grammar)
