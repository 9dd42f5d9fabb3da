"""Tools: how they are told to the model, how it chooses among them, and how its calls and their results read in a conversation.

A model's turn names a tool or `none`, line by line; the name is chosen under a regex and the arguments are written under the tool's own
JSON schema, so that a call always validates:

    Tool: get_weather
    Arguments: {"city": "Paris"}
    Tool: none
    It is 20 degrees in Paris.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import BaseModel, ConfigDict, Field
from sglang.lang.ir import SglGen

from gemma3n_sgl.conversation import Conversation, Turn

NONE = "none"
"""What the model writes in place of a tool's name when it answers."""


_SILENT = {"type", "properties", "title", "description"}
"""Keywords of a schema that, without any properties, say nothing of arguments."""


class Tool(BaseModel):
    """A function the model may have called; `parameters` is the JSON schema of its arguments, an object."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    name: str = Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$", description="not `none`, which stands for no tool")
    description: str | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)

    @property
    def object_schema(self) -> dict[str, Any]:
        """The arguments' JSON schema: an object always, without arguments where nothing is said of any."""
        silent = not self.parameters.get("properties") and set(self.parameters) <= _SILENT
        return {"type": "object"} | ({"properties": {}, "additionalProperties": False} if silent else {}) | self.parameters


class SglArguments(SglGen):
    """The generation of a call's arguments: what it says goes to the client as a call of `tool`."""

    def __init__(self, name: str, tool: Tool) -> None:
        super().__init__(name, json_schema=json.dumps(tool.object_schema, ensure_ascii=False))
        self.tool = tool


def arguments(name: str, tool: Tool) -> SglArguments:
    """Have the model write the arguments of a call of `tool` into `name`. They reach the client as they are written."""
    return SglArguments(name, tool)


def any_of(tools: Sequence[Tool], *, none: bool) -> str:
    """The regex of a tool's name; with `none`, of that word too."""
    names = [re.escape(tool.name) for tool in tools] + ([NONE] if none else [])
    return f"({'|'.join(names)})"


def with_tools(conversation: Conversation, tools: Sequence[Tool]) -> Conversation:
    """The talk with the tools told in its system prompt, and with earlier answers as the model is asked to write them."""
    told = "\n".join(
        json.dumps({"name": tool.name, "description": tool.description or "", "parameters": tool.parameters}, ensure_ascii=False) for tool in tools
    )
    manual = (
        "You can call these tools:\n"
        f"{told}\n\n"
        'Reply with a line "Tool: " and the name of the tool that helps, then a line "Arguments: " and its arguments as JSON. '
        f'When no tool is needed, or you have its result, write "Tool: {NONE}" and answer on the next line.'
    )
    system = f"{conversation.system}\n\n{manual}" if conversation.system else manual
    return replace(conversation, turns=tuple(map(_as_written, conversation.turns)), system=system)


def call_text(name: str, arguments: str) -> str:
    """A call as the model writes it."""
    return f"Tool: {name}\nArguments: {arguments}"


def result_text(name: str, result: str) -> str:
    """What a tool gave back, as the user's turn tells it."""
    return f"Result of {name}:\n{result}" if name else f"Result:\n{result}"


def _as_written(turn: Turn) -> Turn:
    text = turn.text
    if turn.role == "user" or not text or text.startswith("Tool: "):
        return turn
    return Turn("assistant", (f"Tool: {NONE}\n{text}",))
