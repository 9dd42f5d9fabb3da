"""The cells of the fault matrix: every program, by every route that serves it, streaming or not, asked at once over real HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from gemma3n_sgl.registry import Registry

MEDIA = Path(__file__).parent / "media"
PICTURE = "data:image/png;base64," + base64.b64encode((MEDIA / "red-circle.png").read_bytes()).decode()
SOUND = (MEDIA / "314.mp3").read_bytes()
PARTS: dict[str, list[dict[str, Any]]] = {
    "text": [{"type": "text", "text": "What is this?"}],
    "image": [{"type": "image_url", "image_url": {"url": PICTURE}}],
    "audio": [{"type": "input_audio", "input_audio": {"data": base64.b64encode(SOUND).decode(), "format": "mp3"}}],
}
TOOLS = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object", "properties": {}}}}]
TOLD_IN_THE_TEXT = "could not be heard"
PROGRAMS = Registry.discover().programs


@dataclass(frozen=True, eq=False)
class Cell:
    """One request. `hears`: its program asks about a clip once more where the engine fails, and tells in the text what it could not hear."""

    route: str
    model: str
    stream: bool
    hears: bool = False
    body: dict[str, Any] = field(default_factory=dict)
    form: dict[str, str] | None = None

    def __str__(self) -> str:
        return f"{self.route} {self.model}{' stream' if self.stream else ''}"


@dataclass(frozen=True)
class Answer:
    """What came of it: the status, the text that was told (of a stream, or whole), and the error object with where it stood."""

    status: int
    text: str
    error: dict[str, Any] | None
    ended: bool
    headers: httpx.Headers
    raw: str


def cells() -> list[Cell]:
    made = []
    for stream in (False, True):
        for name, program in PROGRAMS.items():
            model, hears = f"gemma-3n:{name}", program.input_kinds[-1:] == ("audio",) and "image" not in program.input_kinds
            parts = [part for kind in program.input_kinds if kind != "image" or not hears for part in PARTS[kind]]
            if set(program.input_kinds) == {"text", "image", "audio"} and name != "audio":
                parts = PARTS["text"] + (PARTS["image"] if name == "vision" else [])
            chat = {"messages": [{"role": "user", "content": parts}]} | ({"tools": TOOLS} if name == "tools" else {})
            made.append(Cell("/v1/chat/completions", model, stream, hears, chat))
            made.append(Cell("/v1/responses", model, stream, hears, {"input": [{"role": "user", "content": parts}]}))
            if name in ("chat", "vision"):
                made.append(Cell("/v1/completions", model, stream, False, {"prompt": "Once"}))
        for route in ("transcriptions", "translations"):
            made.append(Cell(f"/v1/audio/{route}", "gemma-3n", stream, True, form={"response_format": "json"}))
    return made


async def ask(client: httpx.AsyncClient, cell: Cell) -> Answer:
    if cell.form is None:
        asked = client.build_request("POST", cell.route, json={"model": cell.model, "stream": cell.stream} | cell.body)
    else:
        fields = {"model": cell.model} | cell.form | ({"stream": "true"} if cell.stream else {})
        asked = client.build_request("POST", cell.route, data=fields, files={"file": ("a.mp3", SOUND)})
    response = await client.send(asked)
    if not response.headers.get("content-type", "").startswith("text/event-stream"):
        body = response.json()
        return Answer(response.status_code, _whole_text(body), body.get("error"), True, response.headers, response.text)
    events = [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: {")]
    error = next((_error_of(event) for event in events if _error_of(event)), None)
    ended = "[DONE]" in response.text.rstrip()[-20:] or not cell.route.endswith("completions")
    return Answer(response.status_code, "".join(map(_text_of, events)), error, ended, response.headers, response.text)


async def ask_all(base_url: str, asked: Sequence[Cell], seconds: float) -> dict[Cell, Answer]:
    """All at once; TimeoutError if one of them hangs."""
    limits = httpx.Limits(max_connections=None)
    async with asyncio.timeout(seconds), httpx.AsyncClient(base_url=base_url, timeout=seconds, limits=limits) as client:
        return dict(zip(asked, await asyncio.gather(*(ask(client, cell) for cell in asked)), strict=True))


def _error_of(event: dict[str, Any]) -> dict[str, Any] | None:
    if event.get("type") == "error":
        return {name: event.get(name) for name in ("message", "type", "param", "code")}
    return event.get("error")


def _text_of(event: dict[str, Any]) -> str:
    """What an event of a stream adds to the answer."""
    if event.get("type") in ("response.output_text.delta", "transcript.text.delta"):
        return event["delta"]
    return "".join(choice.get("text") or choice.get("delta", {}).get("content") or "" for choice in event.get("choices") or ())


def _whole_text(body: dict[str, Any]) -> str:
    if "output" in body:
        return "".join(part["text"] for item in body["output"] for part in item.get("content", ()))
    if "choices" in body:
        return "".join(choice.get("text") or choice["message"]["content"] or "" for choice in body["choices"])
    return str(body.get("text", ""))
