"""How much one request may ask for, before anything of it is compiled, fetched or decoded. Each refusal names its setting."""

from __future__ import annotations

from typing import Any

from gemma3n_sgl.errors import InvalidValue, TooLarge
from gemma3n_sgl.openai.requests import ChatRequest, Message
from gemma3n_sgl.settings import Settings, by

_COSTLY = (b",", b"{", b"[")
"""Each of them may make a value, which takes fifty times the room of its text."""


def check_values(body: bytes, settings: Settings) -> None:
    """Refuse JSON of a great many values without reading it: that would take seconds and gigabytes."""
    if sum(map(body.count, _COSTLY)) > settings.max_values:
        raise TooLarge(f"The body holds more than {settings.max_values:,} commas and brackets{by('max_values')}. Send less.")


def check_amounts(asked: ChatRequest, settings: Settings) -> None:
    """Refuse what there is too much of: messages, parts, text, stop strings, options, tools, and schemas in size and depth."""
    _most("messages", len(asked.messages), "messages", settings, "max_messages")
    contents = [message.content for message in asked.messages]
    _most("messages", sum(len(content) for content in contents if isinstance(content, list)), "parts", settings, "max_parts")
    _most("messages", sum(map(_characters, asked.messages)), "characters of text", settings, "max_text")
    if asked.stop:
        stops = [asked.stop] if isinstance(asked.stop, str) else asked.stop
        _most("stop", len(stops), "stop strings", settings, "max_stops")
        _most("stop", max(map(len, stops)), "characters in a stop string", settings, "max_stop_length")
    for name, options in (("program_options", asked.program_options), ("metadata", asked.metadata)):
        if options:
            _most(name, len(options), "options", settings, "max_options")
    if asked.tools:
        _most("tools", len(asked.tools), "tools", settings, "max_tools")
        for i, tool in enumerate(asked.tools):
            _check_schema(tool.function.parameters, f"tools[{i}].function.parameters", settings)
    if asked.response_format and asked.response_format.json_schema:
        _check_schema(asked.response_format.json_schema.schema_, "response_format.json_schema.schema", settings)


def _most(param: str, count: int, what: str, settings: Settings, setting: str) -> None:
    if count > (limit := getattr(settings, setting)):
        kind = TooLarge if param == "messages" else InvalidValue
        raise kind(f"`{param}` has {count:,} {what}; at most {limit:,} are taken here{by(setting)}.", param=param)


def _characters(message: Message) -> int:
    """Text of a message, as far as the model is to read it; pictures and sound have limits of their own."""
    content = message.content
    parts = [content] if isinstance(content, str) else [part.get("text", part.get("refusal")) for part in content or ()]
    calls = [call.function.name + call.function.arguments for call in message.tool_calls or ()]
    return sum(len(text) for text in (*parts, *calls) if isinstance(text, str))


def _check_schema(schema: Any, param: str, settings: Settings) -> None:
    """Looks no further than the limits, however large it is."""
    size, waiting = 0, [(schema, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > 2 * settings.max_schema_depth + 1:  # a schema inside a schema stands in `properties` or the like
            raise InvalidValue(f"The schema is nested deeper than {settings.max_schema_depth}{by('max_schema_depth')}.", param=param)
        children: list[Any] = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
        size += 2 + len(children) + (sum(map(len, value)) if isinstance(value, dict) else len(value) if isinstance(value, str) else 0)
        if size > settings.max_schema:
            raise InvalidValue(f"The schema has more than {settings.max_schema:,} characters{by('max_schema')}.", param=param)
        waiting += [(child, depth + 1) for child in children]
