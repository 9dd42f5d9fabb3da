"""A request's messages → `Conversation`, with every picture and sound fetched, decoded and within limits.

What the template can't express is mended where the meaning stays the same: system and developer messages anywhere become the system prompt,
neighbours of one role are merged, a talk that the assistant opens or ends gets an empty turn of the user's, calls of tools stand in the
assistant's turns as the model writes them, and their results in the user's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from gemma3n_sgl.calling import call_text, result_text
from gemma3n_sgl.conversation import Conversation, Part, Turn
from gemma3n_sgl.errors import FetchError, Gemma3nError, InvalidValue, TooLarge
from gemma3n_sgl.media import Limits, Turns, base64_bytes, data_uri, fetch, open_image, open_sound
from gemma3n_sgl.openai.requests import Message
from gemma3n_sgl.settings import Settings

Fetch = Callable[[str], Awaitable[bytes]]


@dataclass(frozen=True)
class Reader:
    """Reads messages within the settings' limits. `fetch` is what gets a URL (None: as the settings say); `fetched` is told what came of it."""

    settings: Settings
    fetch: Fetch | None = None
    fetched: Callable[[str], object] = str
    turns: Turns = field(default_factory=Turns)

    async def read(self, messages: list[Message], who: str = "") -> Conversation:
        """The conversation the messages of the client `who` hold. Errors name the part they are about as `param`."""
        messages = _told(messages)
        parts = [_Parts(message, f"messages[{i}]") for i, message in enumerate(messages)]
        self._count(parts)
        media = [self._value(kind, value, param, who) for part in parts for kind, value, param in part.found if kind != "text"]
        made = iter(await _all_or_first_error(media) if media else ())
        return _conversation(messages, [tuple(value if kind == "text" else next(made) for kind, value, _ in part.found) for part in parts])

    def _count(self, parts: list[_Parts]) -> None:
        """Too many are refused before any is decoded."""
        kinds = [kind for part in parts for kind, _, _ in part.found]
        for kind, limit, name in (("image", self.settings.max_images, "pictures"), ("audio", self.settings.max_sounds, "sounds")):
            if (count := kinds.count(kind)) > limit:
                setting = "GEMMA3N_MAX_IMAGES" if kind == "image" else "GEMMA3N_MAX_SOUNDS"
                raise TooLarge(f"The messages hold {count} {name}; at most {limit} are taken at once ({setting}).", param="messages")

    async def _value(self, kind: str, value: str, param: str, who: str) -> Part:
        limits = Limits.of(self.settings)
        try:
            source = await self._given(value, kind, limits, who)
            if kind == "image":
                return await self.turns.decoded(who, lambda: open_image(source(), limits=limits))
            return await self.turns.decoded(who, lambda: open_sound(source(), limits=limits))
        except Gemma3nError as error:
            error.param = error.param or param
            raise

    async def _given(self, value: str, kind: str, limits: Limits, who: str) -> Callable[[], bytes]:
        """What gives the file's bytes: it may take some time, and does not wait for anything."""
        if value[:5].lower() == "data:":
            return lambda: data_uri(value, limits=limits)
        if value[:7].lower() == "http://" or value[:8].lower() == "https://":
            data = await self.turns.fetched(who, lambda: self._fetch(value, limits))
            return lambda: data
        if kind == "audio":
            return lambda: base64_bytes(value, limits=limits)
        raise InvalidValue("A picture is a data URI (data:image/png;base64,…) or an http(s) URL.")

    async def _fetch(self, url: str, limits: Limits) -> bytes:
        outcome = "cancelled"
        try:
            if self.fetch is None and self.settings.image_urls == ("off",):
                raise FetchError("This server fetches no URLs. Send the file itself, as a data URI.")
            data = await (fetch(url, limits=limits) if self.fetch is None else self.fetch(url))
            outcome = "ok"
            return data
        except Gemma3nError as error:
            outcome = error.code
            raise
        finally:
            self.fetched(outcome)


class _Parts:
    """What one message holds, in order: (kind, text or source, where it stands)."""

    def __init__(self, message: Message, where: str) -> None:
        self.found: list[tuple[str, str, str]] = []
        if message.role not in ("system", "developer", "user", "assistant", "tool"):
            roles = "system, developer, user, assistant and tool"
            raise InvalidValue(f"The role {message.role!r} is not supported; roles are {roles}.", param=f"{where}.role")
        content = message.content
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        for i, part in enumerate(content or []):
            self.found.append((*_part(part, f"{where}.content[{i}]"), f"{where}.content[{i}]"))
        if message.role == "tool":
            self.found.insert(0, ("text", result_text(message.name or "", ""), where))
        empty = not any(kind != "text" or value.strip() for kind, value, _ in self.found)
        if message.role == "user" and empty:
            raise InvalidValue("A user message holds text, a picture or a sound; this one is empty.", param=f"{where}.content")
        if message.role in ("system", "developer", "assistant") and any(kind != "text" for kind, _, _ in self.found):
            raise InvalidValue("Pictures and sound go into user messages.", param=f"{where}.content")


def _part(part: dict[str, Any], where: str) -> tuple[str, str]:
    """The kind and the text or source of one content part."""
    kind = part.get("type")
    if kind in ("text", "input_text", "refusal"):
        return "text", _string(part, "refusal" if kind == "refusal" else "text", where)
    if kind in ("image_url", "input_image"):
        return "image", _source(part, "image_url", where)
    if kind == "audio_url":
        return "audio", _source(part, "audio_url", where)
    if kind == "input_audio":
        inner = part.get("input_audio")
        if not isinstance(inner, dict):
            raise InvalidValue("`input_audio` is an object with `data` (base64) and `format`.", param=f"{where}.input_audio")
        return "audio", _string(inner, "data", f"{where}.input_audio")
    raise InvalidValue(f"Content of type {kind!r} is not supported; send text, image_url, input_audio or audio_url.", param=f"{where}.type")


def _source(part: dict[str, Any], name: str, where: str) -> str:
    inner = part.get(name)
    if isinstance(inner, str):
        return inner
    if isinstance(inner, dict):
        return _string(inner, "url", f"{where}.{name}")
    raise InvalidValue(f"`{name}` is an object with `url`.", param=f"{where}.{name}")


def _string(holder: dict[str, Any], name: str, where: str) -> str:
    value = holder.get(name)
    if not isinstance(value, str):
        raise InvalidValue(f"`{name}` must be a string.", param=f"{where}.{name}")
    return value


def _told(messages: list[Message]) -> list[Message]:
    """The messages with calls of tools and their results as text."""
    names: dict[str, str] = {}
    told = []
    for i, message in enumerate(messages):
        if message.role == "assistant" and message.tool_calls:
            names |= {call.id: call.function.name for call in message.tool_calls}
            calls = "\n".join(call_text(call.function.name, call.function.arguments) for call in message.tool_calls)
            said = _text_of(message, i)
            message = Message(role="assistant", content=f"{said}\n{calls}" if said.strip() else calls)
        elif message.role in ("tool", "function"):
            name = names.get(message.tool_call_id or "", message.name or "")
            if isinstance(message.content, list) and any(_part(part, f"messages[{i}].content")[0] != "text" for part in message.content):
                message = Message(role="tool", content=message.content, name=name)
            else:
                message = Message(role="user", content=result_text(name, _text_of(message, i)))
        told.append(message)
    return told


def _text_of(message: Message, index: int) -> str:
    """The text of a message that holds nothing else."""
    if not isinstance(message.content, list):
        return message.content or ""
    parts = [_part(part, f"messages[{index}].content[{i}]") for i, part in enumerate(message.content)]
    if any(kind != "text" for kind, _ in parts):
        raise InvalidValue("Pictures and sound go into user messages.", param=f"messages[{index}].content")
    return "\n".join(text for _, text in parts)


def _conversation(messages: list[Message], values: list[tuple[Part, ...]]) -> Conversation:
    system: list[str] = []
    turns: list[Turn] = []
    for message, parts in zip(messages, values, strict=True):
        if message.role in ("system", "developer"):
            system.append("\n".join(part for part in parts if isinstance(part, str)))
            continue
        role: Literal["user", "assistant"] = "assistant" if message.role == "assistant" else "user"
        if turns and turns[-1].role == role:
            turns[-1] = Turn(role, _merged(turns[-1].parts, parts))
        else:
            turns.append(Turn(role, parts))
    if not turns or turns[0].role == "assistant":
        turns.insert(0, Turn("user", ("",)))
    if turns[-1].role == "assistant":
        turns.append(Turn("user", ("",)))
    return Conversation(tuple(turns), "\n\n".join(filter(str.strip, system)))


def _merged(first: tuple[Part, ...], second: tuple[Part, ...]) -> tuple[Part, ...]:
    """Two messages of one role as one, an empty line between their texts."""
    if first and second and isinstance(first[-1], str) and isinstance(second[0], str):
        return (*first[:-1], f"{first[-1].strip()}\n\n{second[0].strip()}", *second[1:])
    return (*first, *second)


async def _all_or_first_error(coroutines: list[Any]) -> list[Any]:
    """Results in order; at the first error the others are cancelled."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()


