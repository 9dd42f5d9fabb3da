"""Clips of different lengths never meet in the engine, which would die of it; those of one length go in together; nobody waits for ever."""

from __future__ import annotations

import asyncio
import random
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scripted_engine import Reply, ScriptedEngine
from serving import SHORT, serving

from gemma3n_sgl import Audio, connect, open_audio
from gemma3n_sgl.language import AUDIO_TOKEN
from gemma3n_sgl.lengths import Lengths
from gemma3n_sgl.settings import Settings
from programs.transcribe import transcribe


@given(st.lists(st.tuples(st.integers(1, 3), st.integers(0, 3), st.booleans()), max_size=30), st.randoms(use_true_random=False))
def test_only_one_length_is_inside_and_everybody_gets_in(visits: list[tuple[int, int, bool]], chance: random.Random):
    inside: list[int] = []
    through = 0

    async def visit(gate: Lengths, length: int, stay: int) -> None:
        nonlocal through
        await gate.enter(length)
        inside.append(length)
        try:
            for _ in range(stay + 1):
                assert set(inside) == {length}
                await asyncio.sleep(0)
        finally:
            inside.remove(length)
            gate.leave()
        through += 1

    async def all_of_them() -> None:
        gate = Lengths()
        tasks = []
        for length, stay, leaves in visits:
            tasks.append((asyncio.ensure_future(visit(gate, length, stay)), leaves))
            if chance.random() < 0.3:
                await asyncio.sleep(0)
        for task, leaves in tasks:
            if leaves:
                task.cancel()
                await asyncio.sleep(0)
        await asyncio.wait_for(asyncio.gather(*(task for task, _ in tasks), return_exceptions=True), 30)
        await asyncio.wait_for(gate.enter(9), 30)
        assert through >= sum(not leaves for _, _, leaves in visits)

    asyncio.run(all_of_them())


@pytest.fixture
def clips() -> list[Audio]:
    tone = b"\0\x30\0\xd0" * 8000
    return [Audio.from_pcm((tone * 30)[: round(32_000 * seconds)]) for seconds in (1, 4, 6, 9, 12, 2, 28)]


def test_requests_wait_until_clips_of_another_length_are_encoded(scripted: ScriptedEngine, clips: list[Audio]):
    prefill, arrived = 0.06, []

    def script(prompt: str) -> Reply:
        arrived.append((time.monotonic(), len(scripted.requests[-1]["audio_data"][0])))
        return Reply("heard", delay=prefill)

    scripted.script = script
    gemma = connect(scripted.url)
    with ThreadPoolExecutor(len(clips) * 2) as pool:
        answers = list(pool.map(lambda clip: gemma.run(transcribe, clip).answer, sorted(clips * 2, key=len)))
    assert answers == ["heard"] * len(answers)
    gaps = [(abs(one - other), length == another) for (one, length), (other, another) in combinations(arrived, 2)]
    assert all(gap > 0.9 * prefill for gap, same in gaps if not same)
    assert any(gap < 0.9 * prefill for gap, same in gaps if same), "clips of one length go in together"
    assert len({length for _, length in arrived}) == 6, "lengths are rounded up, so that there are few"


def test_a_client_that_leaves_while_it_waits_holds_nobody_up(scripted: ScriptedEngine, clips: list[Audio]):
    scripted.script = Reply("a b c", delay=0.1)
    with serving(Settings(runtime_url=scripted.url, **SHORT)) as served:
        body = [{"type": "input_audio", "input_audio": {"data": clip.data_uri.split(",")[1], "format": "wav"}} for clip in clips[:3]]

        def ask(part: Any, timeout: float) -> int:
            fields = {"model": "gemma-3n", "messages": [{"role": "user", "content": [part]}]}
            try:
                return served.http.post("/v1/chat/completions", json=fields, timeout=timeout).status_code
            except Exception:
                return 0

        with ThreadPoolExecutor(3) as pool:
            assert list(pool.map(ask, body, [0.05, 0.05, 30])) == [0, 0, 200]


def test_those_who_share_an_engine_send_clips_of_one_length(scripted: ScriptedEngine, clips: list[Audio]):
    settings = Settings(runtime_url=scripted.url, runtime_shared=True)
    for clip in clips:
        connect(settings=settings).run(transcribe, clip)
    assert len(scripted.requests) == len(clips) and len({len(request["audio_data"][0]) for request in scripted.requests}) == 1


@pytest.mark.engine
def test_the_real_engine_survives_clips_of_all_lengths_at_once(engine: str):
    digits = open_audio(Path(__file__).parent / "media/314.wav")
    lengths = [digits.seconds, 2.1, 3.3, 4.2, 5.7, 7.5, 9.9, 12, 18.4, 24, 28.8, 29.5]
    gemma = connect(engine)
    with ThreadPoolExecutor(24) as pool:
        answers = list(pool.map(lambda seconds: gemma.run(transcribe, digits.padded(seconds)).answer, lengths * 3))
    assert all(answer.startswith("3 1 4") for answer in answers)


@pytest.mark.engine
def test_our_engine_for_a_cpu_takes_clips_of_several_lengths_in_one_batch(engine: str):
    """As two frontends send them that know nothing of each other."""
    digits = open_audio(Path(__file__).parent / "media/314.wav")
    prompt = f"<start_of_turn>user\n{AUDIO_TOKEN}Transcribe this audio.<end_of_turn>\n<start_of_turn>model\n"
    clips = [[digits.padded(seconds).data_uri] for seconds in range(3, 29)]
    body = {"text": [prompt] * len(clips), "audio_data": clips, "sampling_params": {"temperature": 0, "max_new_tokens": 20}}
    answers = httpx.post(f"{engine}/generate", json=body, timeout=60).json()
    assert ["3 1 4"] * len(clips) == [answer["text"][:5] for answer in answers]
