"""`hear` judged: random recordings through an engine that says which words it heard, slow, failing, and left in the middle.

`SEED=… COUNT=… python tests/judged_hearing.py` hears so many and says what befell them; 1,000 of 1 s to 2 h without more words.
"""

from __future__ import annotations

import asyncio
import os
import random
import re
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import sglang as sgl
from listening_engine import ListeningEngine, Spoken, spoken, wav
from scripted_engine import Die, Say

from gemma3n_sgl import Gemma3nEndpoint, Recording, Segment, hear, open_recording, running
from gemma3n_sgl.errors import EngineError
from gemma3n_sgl.events import Delta, Done, Event
from gemma3n_sgl.media import Limits
from gemma3n_sgl.program import Program
from gemma3n_sgl.running import Budget
from gemma3n_sgl.sampling import Sampling
from gemma3n_sgl.transport import Deadlines

TALLIED = ("recordings", "hours", "words", "cancelled", "failed", "clips that failed", "gone on with")
PATIENCE = 600.0
"""Seconds to get somewhere, on a machine that has other things to do."""

FEW = Budget(seconds=PATIENCE, calls=3)
"""What a recording's length asks for comes on top."""
FAILED = Say(data=b"out of memory", status=500, content_type="text/plain")
ONCE: tuple[tuple[int, Any], ...] = ((1, Die(after=0)), (1, Die(after=1)), (1, Die()), (1, FAILED))
EVER: tuple[tuple[int, Any], ...] = ((9, Die(after=2)), (9, FAILED))


@sgl.function
def listen(s, recording: Recording, seconds: float = 29.5):
    """Write down a recording."""
    hear(s, "answer", recording, "Transcribe this audio.", clip_seconds=seconds)


@contextmanager
def listening() -> Iterator[ListeningEngine]:
    engine = ListeningEngine()
    engine.start()
    try:
        yield engine
    finally:
        engine.stop()


def recording(sound: Spoken | np.ndarray | bytes, **limits: Any) -> Recording:
    data = sound.wav if isinstance(sound, Spoken) else sound if isinstance(sound, bytes) else wav(sound.astype("<i2").tobytes())
    return open_recording(data, limits=Limits(**limits))


async def events(endpoint: Gemma3nEndpoint, function: Any = listen, sampling: Sampling | None = None, **values: Any) -> list[Event]:
    program = Program.of(function, file_doc="A program.")
    return [event async for event in running.stream(program, program.arguments(values), endpoint, sampling, FEW)]


async def run(endpoint: Gemma3nEndpoint, **values: Any) -> Done:
    """The end of a run, whose events agree with each other."""
    *said, done = await events(endpoint, **values)
    assert isinstance(done, Done)
    assert "".join(event.text for event in said if isinstance(event, Delta)) == done.answer
    assert tuple(event for event in said if isinstance(event, Segment)) == done.segments
    assert " ".join(segment.text for segment in done.segments) == done.answer
    return done


def check(sound: Spoken, done: Done) -> None:
    """Every word once and in order; each within its segment's time, or, where the engine failed, within a stretch that says so."""
    texts = [s.text if not s.error else " ".join(s.text.partition("[")[0].split()[:-1]) for s in done.segments]  # the last word may be half one
    told = [int(number) for number in re.findall(r"\bw(\d+)\b", " ".join(texts))]
    assert told == sorted(set(told))
    lost = {word.number for word in sound.words} - set(told)
    unheard = [segment for segment in done.segments if segment.error]
    for number in lost:
        word = sound.words[number]
        assert any(segment.start - 0.1 <= word.start and word.end <= segment.end + 0.1 for segment in unheard), f"{word} is lost"
    assert all(a.end <= b.start + 1e-6 for a, b in pairwise(done.segments))
    around = {at for segment in unheard for at in (segment.start, segment.end)}
    ends, starts = {segment.end for segment in done.segments}, {segment.start for segment in done.segments}
    for segment in done.segments:
        whole = re.findall(r"\bw(\d+)\b", segment.text)
        if not segment.error and whole:
            halves = len(segment.text.split()) - len(whole)
            assert halves <= len({segment.start, segment.end} & around), "a word is told in halves only where its other half failed"
            assert abs(segment.start - sound.words[int(whole[0])].start) <= slack(segment.start, ends, around)
            assert abs(segment.end - sound.words[int(whole[-1])].end) <= slack(segment.end, starts, around)


def slack(at: float, borders: set[float], around: set[float]) -> float:
    """How far a time may be off: where there is no pause a word may fall on either side, and beside what failed all that both clips heard."""
    return 1.3 if at in around else 0.7 if at in borders else 0.1


async def some(seeds: range, longest: float, side_by_side: int = 8) -> Counter[str]:
    """Random recordings of 1 s to `longest`, random clips, delays and failures; some runs are left in the middle, and then gone on with.

    What befell them, counted.
    """
    left, tally = iter(seeds), Counter(dict.fromkeys(TALLIED, 0))

    async def worker() -> None:
        with listening() as ear:
            endpoint = Gemma3nEndpoint(ear.url, deadlines=Deadlines())
            for seed in left:
                try:
                    await one(ear, endpoint, seed, longest, tally)
                except Exception as error:
                    error.add_note(f"the recording of SEED={seed} COUNT=1")
                    raise
            await endpoint.client.aclose()

    async with asyncio.TaskGroup() as group:
        for _ in range(side_by_side):
            group.create_task(worker())
    return tally


async def one(ear: ListeningEngine, endpoint: Gemma3nEndpoint, seed: int, longest: float, tally: Counter[str]) -> None:
    rng = random.Random(seed)
    seconds = rng.uniform(1, 90) if rng.random() < 0.9 else min(longest, 10 ** rng.uniform(1, 3.857))
    if seconds > 600:
        sound = spoken(seconds, seed, pause=120, fluent=0.3)
    else:
        sound = spoken(seconds, seed, pause=rng.choice([0.5, 3, 60]), fluent=rng.choice([0.3, 0.95, 1]))
    ear.begin(seed)
    ear.delay, ear.unlucky, ear.faults = rng.choice([0, 0.01, 0.03]), rng.choice([0, 0.2, 0.5]), rng.choice([ONCE, EVER, ONCE + EVER])
    heard = replace(recording(sound), memory=rng.choice([None, {}]))
    asked = {"recording": heard, "seconds": rng.choice([29.5, rng.uniform(5, 29.5)])}
    task = asyncio.create_task(run(endpoint, **asked))
    if rng.random() < 0.3:
        last = rng.randrange(1 + round(seconds / 10))
        await until(lambda: len(ear.requests) > last or task.done(), PATIENCE)
        await asyncio.sleep(rng.uniform(0, 0.05))
        task.cancel()
    tally.update(recordings=1, words=len(sound.words), hours=round(seconds) / 3600)
    try:
        done = await task
    except (asyncio.CancelledError, EngineError) as error:
        assert isinstance(error, asyncio.CancelledError) or (ear.unlucky and ear.faults[-1] in EVER), "every clip failed"
        tally["cancelled" if isinstance(error, asyncio.CancelledError) else "failed"] += 1
        await until(lambda: ear.open == 0)
        ear.begin(seed)
        ear.unlucky = 0
        tally["gone on with"] += len(heard.memory or ())
        done = await run(endpoint, **asked)
        assert not any(segment.error for segment in done.segments)
    check(sound, done)
    tally["clips that failed"] += sum(segment.error is not None for segment in done.segments)
    assert done.seconds == sound.seconds
    assert max(ear.clips, default=0) <= 29.5
    assert ear.most <= 20
    await until(lambda: ear.open == 0)


async def until(true: Any, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about in time"
        await asyncio.sleep(0.005)


async def main() -> None:
    seed, count = int(os.environ.get("SEED", 1000)), int(os.environ.get("COUNT", 1000))
    began = time.monotonic()
    tally = await some(range(seed, seed + count), 7200)
    print(", ".join(f"{name}: {number:,.0f}" for name, number in tally.items()), f"in {time.monotonic() - began:.0f} s: all as promised")


if __name__ == "__main__":
    asyncio.run(main())
