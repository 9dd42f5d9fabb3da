"""`hear`: sound of any length through an engine that can be judged, since it says which words it heard. Nothing lost, doubled or out of order."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import sglang as sgl
from listening_engine import ListeningEngine, Spoken, spoken, wav
from scripted_engine import Die, Hang, Reply, Say

from gemma3n_sgl import Gemma3nEndpoint, Recording, Segment, assistant, hear, open_recording, running, user
from gemma3n_sgl.errors import EngineError, EngineTimeout, EngineUnavailable, MediaError, RunTimeout, TooLarge
from gemma3n_sgl.events import Delta, Done, Event, Step
from gemma3n_sgl.media import Limits
from gemma3n_sgl.program import Program
from gemma3n_sgl.running import Budget
from gemma3n_sgl.sampling import Sampling
from gemma3n_sgl.transport import Deadlines

FEW = Budget(seconds=600, calls=3)
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


@pytest.fixture
def ear() -> Iterator[ListeningEngine]:
    with listening() as engine:
        yield engine


@pytest.fixture
async def endpoint(ear: ListeningEngine) -> AsyncIterator[Gemma3nEndpoint]:
    made = Gemma3nEndpoint(ear.url, deadlines=Deadlines(1, 2, 2))
    yield made
    await made.client.aclose()


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
    assert all(a.end <= b.start + 1e-6 for a, b in zip(done.segments, done.segments[1:], strict=False))
    around = {at for segment in unheard for at in (segment.start, segment.end)}
    ends, starts = {segment.end for segment in done.segments}, {segment.start for segment in done.segments}
    for segment in done.segments:
        whole = re.findall(r"\bw(\d+)\b", segment.text)
        if not segment.error and whole:
            halves = len(segment.text.split()) - len(whole)
            assert halves <= len({segment.start, segment.end} & around), "a word is told in halves only where its other half failed"
            assert abs(segment.start - sound.words[int(whole[0])].start) <= (1.3 if segment.start in ends else 0.1), "1.3: cut without a pause"
            assert abs(segment.end - sound.words[int(whole[-1])].end) <= (1.3 if segment.end in starts else 0.1)


async def some(seeds: range, longest: float, side_by_side: int = 8) -> None:
    """Random recordings of 1 s to `longest`, random clips, delays and failures; some runs are left in the middle."""
    left = iter(seeds)

    async def worker() -> None:
        with listening() as ear:
            endpoint = Gemma3nEndpoint(ear.url, deadlines=Deadlines(1, 2, 2))
            for seed in left:
                await one(ear, endpoint, seed, longest)
            await endpoint.client.aclose()

    async with asyncio.TaskGroup() as group:
        for _ in range(side_by_side):
            group.create_task(worker())


async def one(ear: ListeningEngine, endpoint: Gemma3nEndpoint, seed: int, longest: float) -> None:
    rng = random.Random(seed)
    seconds = rng.uniform(1, 90) if rng.random() < 0.95 else min(longest, 10 ** rng.uniform(1, 3.857))
    if seconds > 600:
        sound = spoken(seconds, seed, pause=120, fluent=0.3)
    else:
        sound = spoken(seconds, seed, pause=rng.choice([0.5, 3, 60]), fluent=rng.choice([0.3, 0.95, 1]))
    ear.begin(seed)
    ear.delay, ear.unlucky, ear.faults = rng.choice([0, 0.01]), rng.choice([0, 0, 0.2]), ONCE + rng.choice([(), EVER])
    task = asyncio.create_task(run(endpoint, recording=recording(sound), seconds=rng.choice([29.5, rng.uniform(5, 29.5)])))
    if rng.random() < 0.15:
        await asyncio.sleep(rng.uniform(0, 0.1))
        task.cancel()
    try:
        done = await task
    except asyncio.CancelledError:
        pass
    except EngineError:
        assert ear.unlucky and ear.faults[-1] in EVER, "every clip failed"
    else:
        check(sound, done)
        assert max(ear.clips, default=0) <= 29.5
        assert ear.most <= 20
    await until(lambda: ear.open == 0)


async def test_random_recordings_are_heard_whole() -> None:
    await some(range(16), 300)


@pytest.mark.slow
async def test_a_thousand_random_recordings_of_a_second_to_two_hours_are_heard_whole() -> None:
    await some(range(1000, 2000), 7200)


async def until(true: Any, seconds: float = 2) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come about in time"
        await asyncio.sleep(0.005)


TWO_WORDS = spoken(9, 11, pause=3, fluent=0)
TALK = spoken(300, 12)
NOISE = np.random.default_rng(0).normal(0, 3000, 16_000 * 300)


async def test_text_comes_in_order_and_the_first_while_the_rest_is_still_being_heard(ear: ListeningEngine, endpoint: Gemma3nEndpoint) -> None:
    """The first clip's words are told one by one while fifteen others are at work, though those are done sooner."""
    ear.script = lambda prompt: Reply(prompt.partition("\n")[0], delay=0.05 if prompt.startswith("w0 ") else 0)
    program = Program.of(listen, file_doc="A program.")
    told, heard_then = "", -1
    async for event in running.stream(program, {"recording": recording(TALK), "seconds": 29.5}, endpoint, None, FEW):
        if isinstance(event, Delta):
            told += event.text
            heard_then = len(ear.clips) if heard_then < 0 else heard_then
            assert told == " ".join(f"w{word.number}" for word in TALK.words)[: len(told)]
    assert 0 < heard_then < len(ear.clips)


async def test_at_most_sixteen_clips_are_heard_at_once_and_at_least_twelve(ear: ListeningEngine, endpoint: Gemma3nEndpoint) -> None:
    ear.script = lambda prompt: Reply("yes", delay=0.2)
    await events(endpoint, recording=recording(NOISE), seconds=7.5)
    assert 12 <= ear.most <= 18


async def test_an_answer_about_a_clip_is_bounded_so_that_none_repeats_itself_for_ever(ear: ListeningEngine, endpoint: Gemma3nEndpoint) -> None:
    await events(endpoint, recording=recording(NOISE), seconds=7.5)
    assert {request["sampling_params"]["max_new_tokens"] for request in ear.requests} == {1024}


@pytest.mark.parametrize("samples", [np.zeros(16_000 * 90), np.full(16_000 * 40, -700), np.random.default_rng(0).normal(0, 2, 16_000 * 40)])
async def test_silence_is_an_empty_answer_without_any_engine(ear: ListeningEngine, endpoint: Gemma3nEndpoint, samples: np.ndarray) -> None:
    done = await run(endpoint, recording=recording(samples))
    assert (done.answer, done.segments, ear.requests) == ("", (), [])


async def test_a_clip_that_fails_twice_is_told_with_its_time_and_the_others_are_heard(ear: ListeningEngine, endpoint: Gemma3nEndpoint) -> None:
    ear.script = lambda prompt: Reply(fault=FAILED) if "w100 " in prompt else Reply(prompt.partition("\n")[0])
    done = await run(endpoint, recording=recording(TALK))
    [failed] = [segment for segment in done.segments if segment.error]
    assert failed.text in done.answer and re.fullmatch(r"\[\d:\d\d–\d:\d\d could not be heard\]", failed.text)
    assert failed.start <= TALK.words[100].start < failed.end
    assert failed.error and "engine failed" in failed.error
    assert len([body for body in ear.requests if "Transcribe" in body["text"]]) == len(done.segments) + 1, "it was asked about twice"
    check(TALK, done)


async def test_if_every_clip_fails_so_does_the_run_and_nothing_is_told(ear: ListeningEngine, endpoint: Gemma3nEndpoint) -> None:
    ear.script = Reply(fault=FAILED)
    stream = running.stream(Program.of(listen, file_doc="A program."), {"recording": recording(NOISE), "seconds": 7.5}, endpoint)
    with pytest.raises(EngineError, match="engine failed"):
        await anext(stream)
    assert len(ear.clips) <= 48, "the rest of an hour is not tried"


async def test_an_engine_that_is_not_there_is_said_so_at_once(ear: ListeningEngine, endpoint: Gemma3nEndpoint) -> None:
    ear.refuse()
    with pytest.raises(EngineUnavailable):
        await endpoint.client.get("/model_info", timeout=1)
    ear.accept()
    await endpoint.preferred_sampling()
    await endpoint.is_deterministic()
    ear.refuse()
    with pytest.raises(EngineUnavailable, match="can't be reached"):
        await events(endpoint, recording=recording(TALK))
    ear.accept()


async def test_an_engine_that_hangs_on_one_clip_costs_that_clip(ear: ListeningEngine) -> None:
    endpoint = Gemma3nEndpoint(ear.url, deadlines=Deadlines(1, 0.4, 0.4))
    ear.script = lambda prompt: Reply(prompt.partition("\n")[0], fault=Hang() if "w30 " in prompt else None)
    done = await run(endpoint, recording=recording(spoken(60, 3)))
    assert [bool(segment.error) for segment in done.segments].count(True) == 1
    await until(lambda: ear.open == 0)
    await endpoint.client.aclose()


async def test_a_retry_goes_on_where_the_first_try_broke_off(ear: ListeningEngine, endpoint: Gemma3nEndpoint) -> None:
    """What was told already is not told again."""
    tries = []

    def script(prompt: str) -> Reply:
        tries.append(prompt)
        return Reply(("one t", "wo th", "ree four"), delay=0.05, fault=Die(after=2) if len(tries) == 1 else None)

    ear.script = script
    assert (await run(endpoint, recording=recording(TWO_WORDS))).answer.startswith("one two three four one two three four")


async def test_a_stop_string_ends_the_joined_answer(ear: ListeningEngine, endpoint: Gemma3nEndpoint) -> None:
    *said, done = await events(endpoint, recording=recording(TALK), sampling=Sampling(stop=("w40",)))
    assert isinstance(done, Done)
    assert done.answer.rstrip() == " ".join(f"w{i}" for i in range(40))
    assert "".join(event.text for event in said if isinstance(event, Delta)) == done.answer


async def test_beyond_the_limit_of_length_a_recording_is_refused_while_it_is_decoded(ear: ListeningEngine, endpoint: Gemma3nEndpoint) -> None:
    with pytest.raises(TooLarge, match="limit of 100 s"):
        await events(endpoint, recording=recording(TALK, max_audio_seconds=100))
    await until(lambda: ear.open == 0)


async def test_bytes_that_are_no_sound_are_refused_without_any_engine(ear: ListeningEngine, endpoint: Gemma3nEndpoint) -> None:
    with pytest.raises(MediaError):
        await events(endpoint, recording=Recording(b"fLaC and nothing else"))
    assert ear.requests == []


async def test_long_decoding_leaves_the_pool_to_others(ear: ListeningEngine, endpoint: Gemma3nEndpoint) -> None:
    """Eight recordings of an hour's silence are looked through at once, and a short one is heard meanwhile."""
    hour = recording(np.zeros(16_000 * 3600))
    hours = [asyncio.create_task(events(endpoint, recording=hour)) for _ in range(8)]
    await asyncio.sleep(0.1)
    await run(endpoint, recording=recording(TWO_WORDS))
    assert sum(task.done() for task in hours) < 8
    for task in hours:
        task.cancel()
    await asyncio.gather(*hours, return_exceptions=True)


@sgl.function
def in_two_steps(s, recording: Recording):
    """Hear, then ask about what was heard, clip by clip."""
    hear(s, "answer", recording, "Transcribe this audio.", then="Put it into capitals.", context="Numbers.")


async def test_a_second_question_is_asked_about_each_clip_and_its_answers_count(ear: ListeningEngine, endpoint: Gemma3nEndpoint) -> None:
    ear.script = lambda prompt: Reply(prompt.partition("\n")[0].upper() if "capitals" in prompt else prompt.partition("\n")[0])
    *said, done = await events(endpoint, in_two_steps, recording=recording(TALK))
    assert isinstance(done, Done)
    assert done.answer == " ".join(segment.text for segment in done.segments) == " ".join(f"W{w.number}" for w in TALK.words)
    assert " ".join(event.text for event in said if isinstance(event, Step)) == done.answer.lower()
    asked = ear.requests[-1]["text"]
    assert asked.startswith("<start_of_turn>user\nNumbers.<audio_soft_token>Transcribe this audio.<end_of_turn>\n<start_of_turn>model\nw")


@sgl.function
def capitals(s, recording: Recording):
    """Hear, then answer from it."""
    heard = hear(s, "transcript", recording, "Transcribe this audio.", as_text=lambda segment: f"({segment.text})")
    s += user(f"{len(heard)} parts: ", s["transcript"])
    s += assistant(sgl.gen("answer"))


async def test_what_is_heard_on_the_way_is_a_step_and_can_be_written_in_any_form(ear: ListeningEngine, endpoint: Gemma3nEndpoint) -> None:
    ear.script = lambda prompt: Reply(prompt.partition("\n")[0] or "done")
    *said, done = await events(endpoint, capitals, recording=recording(TWO_WORDS))
    assert isinstance(done, Done)
    assert done.answer == "done"
    assert done.variables["transcript"] == "".join(f"({segment.text})" for segment in done.segments) != ""
    assert [event.text for event in said if isinstance(event, Step)] == [segment.text for segment in done.segments]


@pytest.mark.parametrize("function", [listen, in_two_steps])
def test_sglangs_own_run_hears_the_same(ear: ListeningEngine, function: Any) -> None:
    endpoint = Gemma3nEndpoint(ear.url)
    state = function.run(recording=recording(TALK), backend=endpoint)
    assert state["answer"] == " ".join(f"w{word.number}" for word in TALK.words)
    endpoint.shutdown()


def test_under_sglangs_own_run_a_failing_engine_ends_the_run(ear: ListeningEngine) -> None:
    endpoint = Gemma3nEndpoint(ear.url, deadlines=Deadlines(1, 0.4, 0.4))
    ear.script = lambda prompt: Reply(fault=Hang()) if "w100 " in prompt else Reply(prompt.partition("\n")[0])
    with pytest.raises(EngineTimeout):
        listen.run(recording=recording(TALK), backend=endpoint)
    endpoint.shutdown()


async def until_the_end(ear: ListeningEngine, budget: Budget) -> Done:
    endpoint = Gemma3nEndpoint(ear.url)
    try:
        return await running.run(Program.of(listen, file_doc="A program."), {"recording": recording(NOISE), "seconds": 7.5}, endpoint, None, budget)
    finally:
        await endpoint.client.aclose()


@pytest.mark.slow
async def test_a_long_recording_may_take_longer_than_a_run_as_long_as_it_gets_on(ear: ListeningEngine) -> None:
    """Three rounds of sixteen clips, each of some second."""
    ear.script = lambda prompt: Reply("yes", delay=0.3)
    began = time.monotonic()
    assert len((await until_the_end(ear, Budget(seconds=2.4, calls=1))).segments) > 32
    assert time.monotonic() - began > 2.4


async def test_a_recording_of_which_nothing_more_is_heard_is_ended(ear: ListeningEngine) -> None:
    ear.script = lambda prompt: Reply(fault=Hang())
    with pytest.raises(RunTimeout, match=r"0\.3 s without hearing more"):
        await until_the_end(ear, Budget(seconds=0.3))
    await until(lambda: ear.open == 0)


@pytest.mark.parametrize("data", [TALK.wav, wav(bytes(2 * 16_000 * 7))])
async def test_a_run_knows_how_long_a_recording_is_also_behind_the_last_word(ear: ListeningEngine, endpoint: Gemma3nEndpoint, data: bytes) -> None:
    assert (await run(endpoint, recording=recording(data))).seconds == pytest.approx((len(data) - 44) / 32_000, abs=1e-6)
