"""`hear`: sound of any length through an engine that can be judged, since it says which words it heard. Nothing lost, doubled or out of order."""

from __future__ import annotations

import asyncio
import gc
import os
import re
import time
import weakref
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sglang as sgl
from judged_hearing import FAILED, FEW, check, events, listen, listening, recording, run, some, until
from listening_engine import ListeningEngine, spoken, wav, wav_head
from scripted_engine import Die, Hang, Reply

from gemma3n_sgl import Gemma3nEndpoint, Recording, assistant, hear, hearing, open_recording, running, user
from gemma3n_sgl.errors import EngineError, EngineTimeout, EngineUnavailable, MediaError, RunTimeout, TooLarge
from gemma3n_sgl.events import Delta, Done, Step
from gemma3n_sgl.media import Live
from gemma3n_sgl.program import Program
from gemma3n_sgl.running import Budget
from gemma3n_sgl.sampling import Sampling
from gemma3n_sgl.transport import Deadlines


@pytest.fixture
def ear() -> Iterator[ListeningEngine]:
    with listening() as engine:
        yield engine


@pytest.fixture
async def endpoint(ear: ListeningEngine) -> AsyncIterator[Gemma3nEndpoint]:
    made = Gemma3nEndpoint(ear.url, deadlines=Deadlines())
    yield made
    await made.client.aclose()


@pytest.mark.slow
async def test_random_recordings_are_heard_whole() -> None:
    await some(range(16), 300)


@pytest.mark.slow
async def test_random_recordings_of_a_second_to_two_hours_are_heard_whole_through_failures_and_interruptions() -> None:
    """A sample; `python tests/judged_hearing.py` does a thousand."""
    tally = await some(range(1000, 1150), 7200)
    assert min(tally.values()) > 0, f"all that may happen did: {tally}"


TWO_WORDS = spoken(9, 11, pause=3, fluent=0)
TALK = spoken(150, 12)
NOISE = np.random.default_rng(0).normal(0, 3000, 16_000 * 300)


async def test_text_comes_in_order_and_the_first_while_the_rest_is_still_being_heard(ear: ListeningEngine, endpoint: Gemma3nEndpoint) -> None:
    """The first clip's words are told one by one while others are at work, though those are done sooner."""
    ear.script = lambda prompt: Reply(prompt.partition("\n")[0], delay=0.05 if prompt.startswith("w0 ") else 0)
    program = Program.of(listen, file_doc="A program.")
    told, heard_then = "", -1
    async for event in running.stream(program, {"recording": recording(TALK), "seconds": 9}, endpoint, None, FEW):
        if isinstance(event, Delta):
            told += event.text
            heard_then = len(ear.clips) if heard_then < 0 else heard_then
            assert told == " ".join(f"w{word.number}" for word in TALK.words)[: len(told)]
    assert 0 < heard_then < len(ear.clips)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.parametrize("returns", [True, False])
async def test_an_engine_that_is_gone_in_the_midst_is_waited_for(
    ear: ListeningEngine, endpoint: Gemma3nEndpoint, monkeypatch: pytest.MonkeyPatch, returns: bool
) -> None:
    """One that comes back hears the rest; one that does not fails the run, and the rest is not told as unheard."""
    monkeypatch.setattr(hearing, "RETURNS", (0.05,) * (100 if returns else 3))
    loop = asyncio.get_running_loop()

    def script(prompt: str) -> Reply:
        if not ear.loading and "w100 " in prompt and not loads:
            loads.append(True)
            ear.loading = True
            if returns:
                loop.call_soon_threadsafe(loop.call_later, 0.5, setattr, ear, "loading", False)
        return Reply(prompt.partition("\n")[0])

    loads: list[bool] = []
    ear.script = script
    if returns:
        done = await run(endpoint, recording=recording(TALK))
        assert loads and not any(segment.error for segment in done.segments)
        check(TALK, done)
    else:
        with pytest.raises(EngineUnavailable):
            await run(endpoint, recording=recording(TALK))


async def test_an_engine_that_hangs_on_one_clip_costs_that_clip(ear: ListeningEngine) -> None:
    endpoint = Gemma3nEndpoint(ear.url, deadlines=Deadlines(1, 1, 1))
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


async def test_long_decoding_leaves_the_pool_to_others(ear: ListeningEngine, endpoint: Gemma3nEndpoint, tmp_path: Path) -> None:
    """Eight recordings of ten hours' silence are looked through at once, and a short one is heard meanwhile."""
    silence = tmp_path / "silence.wav"
    silence.write_bytes(wav_head(seconds := 36_000))
    os.truncate(silence, 44 + 32_000 * seconds)  # a hole, of which nothing is on the disk
    long = [asyncio.create_task(events(endpoint, recording=open_recording(silence))) for _ in range(8)]
    await asyncio.sleep(0.05)
    await run(endpoint, recording=recording(TWO_WORDS))
    assert not any(task.done() for task in long)
    for task in long:
        task.cancel()
    await asyncio.gather(*long, return_exceptions=True)


@pytest.mark.parametrize("ends", ["well", "by a failure", "by being left"])
async def test_when_a_run_is_over_nothing_holds_its_recording(ear: ListeningEngine, endpoint: Gemma3nEndpoint, ends: str) -> None:
    """At once, and not when the garbage collector comes round: sound in a request may have some 50 MB."""
    heard = recording(TALK)
    gone = weakref.ref(heard)
    gc.disable()
    try:
        if ends == "by a failure":
            ear.script = Reply(fault=FAILED)
            with pytest.raises(EngineError) as told:
                await events(endpoint, recording=heard)
            del told
        elif ends == "by being left":
            ear.script = Reply("yes", delay=10)
            task = asyncio.create_task(events(endpoint, recording=heard))
            await until(lambda: ear.open > 1)
            task.cancel()
            await asyncio.wait({task})
            del task
        else:
            await events(endpoint, recording=heard)
        del heard
        assert gone() is None
    finally:
        gc.enable()


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


@pytest.mark.parametrize("name", ["answer", "heard"])
async def test_a_variable_of_the_programs_own_may_have_the_name_of_the_step(ear: ListeningEngine, endpoint: Gemma3nEndpoint, name: str) -> None:
    @sgl.function
    def with_one(s, recording: Recording):
        """Hear in two steps what is named as the first one is."""
        s["heard"] = "nothing yet"
        hear(s, name, recording, "Transcribe this audio.", then="Put it into capitals.")
        if name != "answer":
            s["answer"] = s[name]

    ear.script = lambda prompt: Reply(prompt.partition("\n")[0].upper() if "capitals" in prompt else prompt.partition("\n")[0])
    done = (await events(endpoint, with_one, recording=recording(TALK)))[-1]
    assert isinstance(done, Done) and done.answer == " ".join(f"W{word.number}" for word in TALK.words)


async def test_a_step_is_told_once_where_the_second_question_is_asked_again(ear: ListeningEngine, endpoint: Gemma3nEndpoint) -> None:
    failed: list[str] = []

    def script(prompt: str) -> Reply:
        words = prompt.partition("\n")[0]
        if "capitals" not in prompt:
            return Reply(words)
        if "w0 " in words and not failed:
            failed.append(words)
            return Reply(fault=FAILED)
        return Reply(words.upper())

    ear.script = script
    *said, done = await events(endpoint, in_two_steps, recording=recording(TALK))
    assert failed and isinstance(done, Done)
    assert " ".join(event.text for event in said if isinstance(event, Step)) == done.answer.lower()


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
    endpoint = Gemma3nEndpoint(ear.url, deadlines=Deadlines(1, 1, 1))
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


@pytest.mark.slow
async def test_a_microphone_may_be_silent_for_longer_than_a_run_may_take(ear: ListeningEngine, endpoint: Gemma3nEndpoint) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(5):
            time.sleep(0.3)
            yield bytes(32_000)

    program = Program.of(listen, file_doc="A program.")
    done = await running.run(program, {"recording": Live(pieces=pieces()), "seconds": 8}, endpoint, None, Budget(seconds=1))
    assert (done.answer, done.seconds) == ("", 5)


async def test_a_recording_of_which_nothing_more_is_heard_is_ended(ear: ListeningEngine) -> None:
    ear.script = lambda prompt: Reply(fault=Hang())
    with pytest.raises(RunTimeout, match=r"0\.3 s without hearing more"):
        await until_the_end(ear, Budget(seconds=0.3))
    await until(lambda: ear.open == 0)


@pytest.mark.parametrize("data", [TALK.wav, wav(bytes(2 * 16_000 * 7))])
async def test_a_run_knows_how_long_a_recording_is_also_behind_the_last_word(ear: ListeningEngine, endpoint: Gemma3nEndpoint, data: bytes) -> None:
    assert (await run(endpoint, recording=recording(data))).seconds == pytest.approx((len(data) - 44) / 32_000, abs=1e-6)
