"""What calls of one run share is read by the engine once: each prompt goes on byte for byte from one before it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import sglang as sgl
from scripted_engine import Reply, ScriptedEngine

from gemma3n_sgl import Conversation, Gemma3nEndpoint, Image, assistant, open_image, open_recording, running, user
from gemma3n_sgl.conversation import Part
from gemma3n_sgl.generated import whole
from gemma3n_sgl.language import AUDIO_TOKEN, IMAGE_TOKEN
from gemma3n_sgl.program import Program
from gemma3n_sgl.registry import Registry
from gemma3n_sgl.transport import EngineClient, EngineStream

MEDIA = Path(__file__).parent / "media"
PICTURE = open_image(MEDIA / "red-circle.png")
LONG = "This is what it is all about. " * 40


@sgl.function
def sides(s, text: str, image: Image):
    """Look from four sides, with or without a thought before."""
    s += user(text)
    if text != LONG:
        s += assistant(sgl.gen("thought"))
    if text == "Look.":
        s += user(image)
    forks = s.fork(4)
    for i, fork in enumerate(forks):
        fork += user(f"Side {i}?")
        fork += assistant(sgl.gen("side"))
    s += user(*[fork["side"] for fork in forks])
    s += assistant(sgl.gen("answer"))


class Kept(EngineStream):
    def __init__(self, client: EngineClient, body: dict[str, Any]) -> None:
        super().__init__(client, body)
        self.events: list[dict[str, Any]] = []

    async def next(self) -> list[bytes]:
        new = await super().next()
        self.events.extend(map(whole, new))
        return new


class Recorder(EngineClient):
    """Keeps the body of each generation and the last `meta_info` of its answer."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.calls: list[tuple[dict[str, Any], list[dict[str, Any]]]] = []

    def stream(self, body: dict[str, Any]) -> EngineStream:
        stream = Kept(self, body)
        self.calls.append((body, stream.events))
        return stream

    async def tokens(self, text: str, body: dict[str, Any]) -> int:
        """How many tokens the engine reads a beginning of a prompt as."""
        media = {"image_data": text.count(IMAGE_TOKEN), "audio_data": text.count(AUDIO_TOKEN)}
        kept = {name: body[name][:count] for name, count in media.items() if count}
        [answer] = await self.prefill({"text": text, "sampling_params": {"max_new_tokens": 0}} | kept)
        return int(answer["meta_info"]["prompt_tokens"])


def shared_beginning(one: dict[str, Any], other: dict[str, Any]) -> str:
    """How far two prompts are the same, their media too."""
    a, b = _pieces(one), _pieces(other)
    same = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    return "".join(piece if isinstance(piece, str) else piece[0] for piece in a[:same])


def _pieces(body: dict[str, Any]) -> list[str | tuple[str, str]]:
    """The characters of a prompt, with each place of a picture or a sound beside what stands there."""
    media = {IMAGE_TOKEN: iter(body.get("image_data", [])), AUDIO_TOKEN: iter(body.get("audio_data", []))}
    pieces = re.split(f"({re.escape(IMAGE_TOKEN)}|{re.escape(AUDIO_TOKEN)})", body["text"])
    return [item for piece in pieces for item in ([(piece, next(media[piece]))] if piece in media else piece)]


async def recorded(url: str, program: Program, arguments: dict[str, Any]) -> Recorder:
    endpoint = Gemma3nEndpoint(url)
    endpoint.client = Recorder(url)
    await running.run(program, arguments, endpoint)
    return endpoint.client


@pytest.mark.parametrize(("text", "read_first"), [("Hi.", False), (LONG, True), ("Look.", True)], ids=["a thought", "a long text", "a picture"])
async def test_forks_ask_for_a_prefill_only_where_it_pays(scripted: ScriptedEngine, text: str, read_first: bool) -> None:
    scripted.script = Reply("yes")
    client = await recorded(scripted.url, Program.of(sides), {"text": text, "image": PICTURE})
    await client.aclose()
    prefills = [body for body in scripted.requests if body["sampling_params"].get("max_new_tokens") == 0]
    assert len(prefills) == read_first
    assert all(body["text"].startswith(prefill["text"]) for prefill in prefills for body in scripted.requests[-5:])


PICTURES: tuple[Part, ...] = (PICTURE, "What is it?")
SOUND: tuple[Part, ...] = (open_recording(MEDIA / "31s.mp3"), "Which digits are these?")


@pytest.mark.engine
@pytest.mark.parametrize(
    ("name", "parts", "options"),
    [("vision", PICTURES, {"effort": "low"}), ("vision", PICTURES, {"effort": "high"}), ("audio", SOUND, {"effort": "high"}), ("sides", (), {})],
)
async def test_the_engine_finds_what_calls_share_in_its_cache(engine: str, name: str, parts: tuple[Part, ...], options: dict[str, Any]) -> None:
    if name == "sides":
        program, arguments = Program.of(sides), {"text": LONG + "Go.", "image": PICTURE}
    else:
        program = Registry.discover().named(name)
        arguments = program.bind(Conversation.of(*parts), options)
    await Gemma3nEndpoint(engine).client.post("/flush_cache", {})
    client = await recorded(engine, program, arguments)
    calls, shared, cached = client.calls[:], 0, 0
    for i, (body, events) in enumerate(calls):
        longest = max((shared_beginning(body, other) for other, _ in calls[:i]), key=len, default="")
        shared += await client.tokens(longest, body) if longest else 0
        cached += events[-1]["meta_info"]["cached_tokens"] if longest else 0
    await client.aclose()
    assert shared > 100 and cached >= 0.95 * shared, f"{cached} of {shared} tokens"
