"""The programs for recordings: what they ask, what they answer, and that the answer comes while the rest is still being heard."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sglang as sgl
from listening_engine import ListeningEngine, spoken, wav
from scripted_engine import Reply

from gemma3n_sgl import Conversation, Gemma3nEndpoint, Recording, assistant, condensed, open_recording, running, user
from gemma3n_sgl.condensing import MOST
from gemma3n_sgl.events import Delta, Done, Event, Segment, Step
from gemma3n_sgl.media import Clip, clips
from gemma3n_sgl.program import Program
from gemma3n_sgl.registry import Registry
from gemma3n_sgl.subtitles import srt, vtt

MEDIA = Path(__file__).parent / "media"
PROGRAMS = Registry.discover().programs
TALK = spoken(120, 5, pause=3, fluent=0.8)
WORDS = " ".join(f"w{word.number}" for word in TALK.words)


@pytest.fixture
def ear() -> Iterator[ListeningEngine]:
    engine = ListeningEngine()
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture
async def endpoint(ear: ListeningEngine) -> AsyncIterator[Gemma3nEndpoint]:
    made = Gemma3nEndpoint(ear.url)
    yield made
    await made.client.aclose()


async def events(endpoint: Gemma3nEndpoint, name: str, *parts: Any, **options: Any) -> tuple[list[Event], Done]:
    parts = parts or (open_recording(TALK.wav),)
    program = PROGRAMS[name]
    *said, done = [e async for e in running.stream(program, program.bind(Conversation.of(*parts), options), endpoint)]
    assert isinstance(done, Done)
    assert "".join(event.text for event in said if isinstance(event, Delta)) == done.answer
    return said, done


def asked(ear: ListeningEngine) -> list[str]:
    return [body["text"] for body in ear.requests]


async def test_a_talk_without_tools_hears_long_sound_as_any_other(ear: ListeningEngine, endpoint: Gemma3nEndpoint) -> None:
    ear.script = lambda prompt: Reply(prompt.partition("\n")[0] or "A talk.")
    _, done = await events(endpoint, "tools")
    assert done.answer == "A talk." and f'What is said in the recording: "{WORDS}"' in asked(ear)[-1]


async def test_a_transcript_is_asked_for_in_the_language_and_with_the_names_that_occur(ear: ListeningEngine, endpoint: Gemma3nEndpoint) -> None:
    _, done = await events(endpoint, "transcribe", language="French", prompt="Zoé, Gemma 3n")
    assert done.answer == WORDS
    assert set(asked(ear)) == {
        "<start_of_turn>user\nNames and words that may occur: Zoé, Gemma 3n<audio_soft_token>"
        "Transcribe the following speech segment in French into French text.<end_of_turn>\n<start_of_turn>model\n"
    }


async def test_with_timestamps_the_text_is_the_same_and_its_parts_are_shorter(endpoint: Gemma3nEndpoint) -> None:
    _, rough = await events(endpoint, "transcribe")
    _, fine = await events(endpoint, "transcribe", timestamps=True)
    assert rough.answer == fine.answer == WORDS
    assert max(segment.end - segment.start for segment in fine.segments) <= 8 < max(segment.end - segment.start for segment in rough.segments)


@pytest.mark.parametrize(("form", "whole"), [("srt", srt), ("vtt", vtt)])
async def test_subtitles_are_those_of_the_segments_and_come_one_by_one(endpoint: Gemma3nEndpoint, form: str, whole: Any) -> None:
    said, done = await events(endpoint, "subtitles", form=form)
    assert done.answer == whole(done.segments)
    assert max(segment.end - segment.start for segment in done.segments) <= 7
    kinds = [type(event) for event in said if not isinstance(event, Step)]
    assert kinds.index(Delta) < len(kinds) - 1 - kinds[::-1].index(Segment), "the first is told before the last is heard"


async def test_lines_with_times(endpoint: Gemma3nEndpoint) -> None:
    _, done = await events(endpoint, "subtitles", form="text")
    assert done.answer.splitlines()[0].startswith("[0:0")
    assert len(done.answer.splitlines()) == len(done.segments)


async def test_a_translation_is_made_of_each_parts_transcript(ear: ListeningEngine, endpoint: Gemma3nEndpoint) -> None:
    ear.script = lambda prompt: Reply(prompt.partition("\n")[0].replace("w", "W" if "into Greek" in prompt else "w"))
    said, done = await events(endpoint, "translate_speech", language="Greek")
    assert done.answer == WORDS.replace("w", "W")
    assert " ".join(event.text for event in said if isinstance(event, Step)) == WORDS
    assert [segment.text for segment in done.segments] == [event.text.replace("w", "W") for event in said if isinstance(event, Step)]


async def test_a_question_about_a_short_recording_is_asked_of_its_transcript(ear: ListeningEngine, endpoint: Gemma3nEndpoint) -> None:
    ear.script = lambda prompt: Reply(prompt.partition("\n")[0] or "Of words.")
    _, done = await events(endpoint, "ask_recording", open_recording(TALK.wav), "What is it about?")
    assert done.answer == "Of words."
    final = asked(ear)[-1]
    assert "[0:0" in final and "w0 w1" in final and final.count("What is it about?") == 1


async def test_of_a_long_recording_notes_on_its_parts_are_asked(ear: ListeningEngine, endpoint: Gemma3nEndpoint) -> None:
    """Side by side, with one prefix, each part within the context."""
    long = "Something is said at length. " * 60
    ear.script = lambda prompt: Reply("Notes." if "Note down" in prompt else "It is." if "with times:" in prompt else long)
    said, done = await events(endpoint, "ask_recording", open_recording(spoken(400, 6, pause=2).wav), "What is it?")
    maps = [text for text in asked(ear) if "Note down" in text]
    assert done.answer == "It is." and len(maps) > 1
    assert all(len(text.encode()) < MOST + 1000 and "Question: What is it?" in text for text in maps)
    assert [event.text for event in said if isinstance(event, Step) and event.name == "notes"] == ["Notes."] * len(maps)
    assert "Notes.\nNotes." in asked(ear)[-1] and long[:100] not in asked(ear)[-1]


@pytest.mark.parametrize("effort", ["low", "high"])
async def test_reasoning_about_a_long_recording_begins_with_what_is_said_in_it(ear: ListeningEngine, endpoint: Gemma3nEndpoint, effort: str) -> None:
    """Never is anything asked about a sound that is not there."""
    await events(endpoint, "audio", open_recording(TALK.wav), "What is w3?", effort=effort)
    thinking = [text for text in asked(ear) if "Transcribe this audio." not in text]
    assert len(thinking) == 2 and all(WORDS in " ".join(text.split()) and "What is w3?" in text for text in thinking)
    assert ("part by part" in thinking[0]) == (effort == "high") and "Write down what is said" not in thinking[0]


async def test_minutes_are_held_to_their_schema(ear: ListeningEngine, endpoint: Gemma3nEndpoint) -> None:
    ear.script = lambda prompt: Reply(prompt.partition("\n")[0] or '{"summary": "Talk.", "decisions": [], "action_items": []}')
    _, done = await events(endpoint, "minutes")
    assert json.loads(done.answer)["summary"] == "Talk."
    last = ear.requests[-1]["sampling_params"]
    assert any(last.get(kind) for kind in ("json_schema", "ebnf", "regex"))


async def test_nothing_but_silence_is_answered_all_the_same(ear: ListeningEngine, endpoint: Gemma3nEndpoint) -> None:
    silence = open_recording(wav(bytes(2 * 16_000 * 60)))
    for name in ("transcribe", "translate_speech", "subtitles"):
        assert (await events(endpoint, name, silence))[1].answer == ""
    assert ear.requests == []


@sgl.function
def digest(s, text: str):
    """Sum up."""
    s += user(condensed(s, "notes", text, "Sum up.")) + assistant(sgl.gen("answer"))


@pytest.mark.slow
async def test_condensing_ends_whatever_the_model_says(ear: ListeningEngine, endpoint: Gemma3nEndpoint) -> None:
    """Also where what it makes of a part is longer than the part."""
    ear.script = Reply(("So long a word that it never fits 好" * 5,) * 400)
    program = Program.of(digest, file_doc="")
    await running.run(program, {"text": "A sentence. " * 10_000 + "x" * 20_000}, endpoint)
    assert 1000 < len(asked(ear)[-1].encode()) <= MOST + 100


@pytest.mark.engine
def test_minutes_of_spoken_digits_with_pauses_are_heard_in_order_and_at_their_times(engine: str) -> None:
    """Four minutes: groups of digits, cut from the test media, at random times."""
    groups = [(part, said) for part, said in zip(clips(open_recording(MEDIA / "2min.mp3")), [
        "7 8 1", "5 6 5 0", "1 4 4 2 6", "9 4 2", "8 7 3 8"], strict=True)]  # fmt: skip
    rng, at, samples, said = random.Random(1), 1.0, np.zeros(16_000 * 240, dtype="<i2"), []
    while at < 230:
        part, digits = rng.choice(groups)
        assert isinstance(part, Clip)
        pcm = np.frombuffer(part.sound.pcm, dtype="<i2")
        samples[round(at * 16_000) :][: len(pcm)] = pcm
        said.append((at + min(0.2, part.start), digits))
        at += len(pcm) / 16_000 + rng.uniform(2.2, 9)
    done = asyncio.run(_hear(engine, open_recording(wav(samples.tobytes()))))
    assert done.answer == " ".join(digits for _, digits in said)
    assert [segment.text for segment in done.segments] == [digits for _, digits in said]
    assert max(abs(segment.start - start) for segment, (start, _) in zip(done.segments, said, strict=True)) <= 0.1


async def _hear(engine: str, recording: Recording) -> Done:
    endpoint = Gemma3nEndpoint(engine)
    try:
        return await running.run(PROGRAMS["transcribe"], {"recording": recording, "language": "", "prompt": "", "timestamps": False}, endpoint)
    finally:
        await endpoint.client.aclose()
