"""One client's slow files are waited for by that client alone: there are turns for decoding and for fetching."""

from __future__ import annotations

import asyncio
import base64
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from scripted_engine import ScriptedEngine
from serving import Served, serving, until

from gemma3n_sgl.media import Turns
from gemma3n_sgl.media.turns import DECODED, FETCHED
from gemma3n_sgl.openai import reading
from gemma3n_sgl.settings import Settings

CHAT = "/v1/chat/completions"
MANY = 50
GOOD = base64.b64encode((Path(__file__).parent / "media" / "red-circle.png").read_bytes()).decode()
BAD = base64.b64encode(b"one that takes long").decode()


def pictures(*urls: str) -> dict[str, Any]:
    return {"model": "gemma-3n", "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}} for url in urls]}]}


def ask(served: Served, key: str, *urls: str) -> int:
    with httpx.Client(base_url=str(served.http.base_url), timeout=10) as client:
        return client.post(CHAT, json=pictures(*urls), headers={"authorization": f"Bearer {key}"}).status_code


@pytest.fixture
def released() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def in_threads(stack: ExitStack, served: Served, released: threading.Event, *urls: str) -> None:
    """MANY requests of a bad neighbour's, under way until the block ends."""
    threads = [threading.Thread(target=ask, args=(served, "bad", *urls)) for _ in range(MANY)]
    for thread in threads:
        stack.callback(thread.join)
        thread.start()
    stack.callback(released.set)


def test_a_neighbour_whose_pictures_take_long_to_decode_delays_nobody(
    scripted: ScriptedEngine, released: threading.Event, monkeypatch: pytest.MonkeyPatch
):
    decoding: list[bytes] = []
    open_image = reading.open_image

    def slow(data: bytes, **options: Any) -> Any:
        if data.startswith(b"one that"):
            decoding.append(data)
            assert released.wait(30)
        return open_image(data, **options)

    monkeypatch.setattr(reading, "open_image", slow)
    with serving(Settings(runtime_url=scripted.url, api_keys=("good", "bad"))) as served, ExitStack() as stack:
        in_threads(stack, served, released, f"data:;base64,{BAD}")
        until(lambda: len(decoding) == DECODED, 5)
        assert [ask(served, "good", f"data:;base64,{GOOD}") for _ in range(3)] == [200] * 3
        assert len(decoding) == DECODED, "the others of the neighbour's wait for their turn"


def test_a_neighbour_whose_addresses_lead_nowhere_delays_nobody_and_takes_few_threads(scripted: ScriptedEngine, released: threading.Event):
    fetching: list[str] = []

    async def fetch(url: str) -> bytes:
        fetching.append(url)
        await asyncio.to_thread(released.wait, 30) if "bad" in url else None
        return base64.b64decode(GOOD)

    with serving(Settings(runtime_url=scripted.url, api_keys=("good", "bad")), fetch=fetch) as served, ExitStack() as stack:
        in_threads(stack, served, released, *["https://bad.example/"] * 4)
        until(lambda: len(fetching) == FETCHED, 5)
        assert ask(served, "good", "https://good.example/") == 200
        assert len(fetching) == FETCHED + 1


async def test_a_client_that_leaves_has_its_places_back_when_its_files_are_done(released: threading.Event):
    """Else who asks and leaves over and over would have as many decoders as it likes."""
    turns = Turns()
    left = [asyncio.ensure_future(turns.decoded("who", lambda: released.wait(30))) for _ in range(DECODED)]
    waiting = asyncio.ensure_future(turns.decoded("who", lambda: "done"))
    await asyncio.sleep(0.05)
    for each in left:
        each.cancel()
    await asyncio.wait(left)
    await asyncio.sleep(0.05)
    assert not waiting.done()
    assert await turns.decoded("another", lambda: "at once") == "at once"
    released.set()
    assert await asyncio.wait_for(waiting, 5) == "done"


async def test_who_leaves_while_it_waits_for_its_turn_is_not_decoded(released: threading.Event):
    turns, decoded = Turns(), []
    busy = [asyncio.ensure_future(turns.decoded("who", lambda: released.wait(30))) for _ in range(DECODED)]
    waiting = asyncio.ensure_future(turns.decoded("who", lambda: decoded.append(1)))
    await asyncio.sleep(0.05)
    waiting.cancel()
    released.set()
    await asyncio.wait([*busy, waiting])
    assert await turns.decoded("who", lambda: "next") == "next" and decoded == []
