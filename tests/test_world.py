"""On the real engine: a picture, a clip or a turn that gets lost, doubled or mixed up on its way shows in the answer.

Each promise is kept twice: by the server as it is, and, with the defect put in, by the test, which then sees another answer.
"""

from __future__ import annotations

import base64
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from listening_engine import wav
from serving import Served, serving

from gemma3n_sgl import Conversation, hearing
from gemma3n_sgl.endpoint import Gemma3nEndpoint
from gemma3n_sgl.media import Clip, batches, clips, open_recording
from gemma3n_sgl.settings import Settings

pytestmark = pytest.mark.engine

MEDIA = Path(__file__).parent / "media"
SAID = ["7 8 1", "5 6 5 0", "1 4 4 2 6", "9 4 2", "8 7 3 8"]
"""What the clips of 2min.mp3 say."""

Defect = Callable[[pytest.MonkeyPatch], None]
Message = dict[str, Any]


@pytest.fixture(scope="module")
def real(engine: str) -> Iterator[Served]:
    with serving(Settings(runtime_url=engine)) as served:
        served.client = served.client.with_options(timeout=120)
        yield served


def picture(name: str) -> Message:
    return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode((MEDIA / name).read_bytes()).decode()}"}}


def sound(name: str) -> Message:
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode((MEDIA / name).read_bytes()).decode(), "format": "wav"}}


def user(*parts: str | Message) -> Message:
    return {"role": "user", "content": [{"type": "text", "text": part} if isinstance(part, str) else part for part in parts]}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


RED, BLUE, YELLOW = (picture(name) for name in ("red-circle.png", "blue-square.jpg", "yellow-star.webp"))
SHOWN, DIGITS = assistant("A red circle."), sound("314.wav")
TRANSCRIBE = "Transcribe this audio."
THEN = "then a red circle, then a yellow star."


def pictures_swapped(patch: pytest.MonkeyPatch) -> None:
    original = Gemma3nEndpoint._add_images

    def swapped(self: Gemma3nEndpoint, s: Any, data: dict[str, Any]) -> None:
        original(self, s, data)
        data.get("image_data", []).reverse()

    patch.setattr(Gemma3nEndpoint, "_add_images", swapped)


def sounds_swapped(patch: pytest.MonkeyPatch) -> None:
    original = Gemma3nEndpoint._add_images

    def swapped(self: Gemma3nEndpoint, s: Any, data: dict[str, Any]) -> None:
        original(self, s, data)
        data.get("audio_data", []).reverse()

    patch.setattr(Gemma3nEndpoint, "_add_images", swapped)


class _Changed:
    """A recording's clips as they come, each so many times as `times` of its number says."""

    def __init__(self, clips: Any, times: Callable[[int], int]) -> None:
        self._clips, self._times, self._count = clips, times, 0

    def __iter__(self) -> _Changed:
        return self

    def __next__(self) -> list[Any]:
        heard: list[Any] = []
        for clip in next(self._clips):
            heard += [replace(clip) for _ in range(self._times(self._count))]
            self._count += 1
        return heard

    def __getattr__(self, name: str) -> Any:
        return getattr(self._clips, name)


def a_clip_dropped(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(hearing, "batches", lambda *args, **options: _Changed(batches(*args, **options), lambda count: 0 if count == 3 else 1))


def a_clip_heard_twice(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(hearing, "batches", lambda *args, **options: _Changed(batches(*args, **options), lambda count: 2 if count == 1 else 1))


def _every_talk(patch: pytest.MonkeyPatch, **changed: Callable[[Conversation], Any]) -> None:
    original = Conversation.__post_init__

    def otherwise(self: Conversation) -> None:
        for name, value in changed.items():
            object.__setattr__(self, name, value(self))
        original(self)

    patch.setattr(Conversation, "__post_init__", otherwise)


def the_system_prompt_lost(patch: pytest.MonkeyPatch) -> None:
    _every_talk(patch, system=lambda talk: "")


def the_history_lost(patch: pytest.MonkeyPatch) -> None:
    _every_talk(patch, turns=lambda talk: talk.turns[-1:])


CASES: list[tuple[str, list[Message], str, Defect]] = [
    ("gemma-3n", [user(RED, BLUE, "Describe both pictures.")], "First a red circle, then a blue square.", pictures_swapped),
    ("gemma-3n", [user(BLUE, RED, YELLOW, "Describe these images.")], f"First a blue square, {THEN}", pictures_swapped),
    ("gemma-3n", [user(RED, YELLOW, DIGITS, "Describe both.")], "First a red circle, then a yellow star; you said 3 1 4.", pictures_swapped),
    ("gemma-3n", [user(DIGITS, sound("20s.mp3"), "What is said in both?")], "First 3 1 4, then 2 7 1 8 2", sounds_swapped),
    ("gemma-3n", [user(sound("2min.mp3"), "Transcribe this audio.")], " ".join(SAID), a_clip_dropped),
    ("gemma-3n:transcribe", [user(sound("2min.mp3"))], " ".join(SAID), a_clip_heard_twice),
    ("gemma-3n", [{"role": "system", "content": "Your name is Clara."}, user("What is your name?")], "I am Clara.", the_system_prompt_lost),
    ("gemma-3n", [user("My name is Felix."), assistant("Hello, Felix!"), user("What is my name?")], "You are Felix.", the_history_lost),
    ("gemma-3n", [user(RED, "What is this?"), SHOWN, user("What colour is it?")], "Red.", the_history_lost),
    ("gemma-3n", [user(DIGITS, "Transcribe this audio."), assistant("3 1 4"), user("What did I say?")], "3 1 4", the_history_lost),
    ("gemma-3n", [user(RED, "What is this?"), SHOWN, user(BLUE, "What is this?")], "A blue square.", pictures_swapped),
    ("gemma-3n", [user(DIGITS, TRANSCRIBE), assistant("3 1 4"), user(sound("20s.mp3"), TRANSCRIBE)], "2 7 1 8 2", sounds_swapped),
]


def answer(real: Served, model: str, messages: list[Any]) -> str:
    said = real.client.chat.completions.create(model=model, messages=messages, temperature=0, max_tokens=100)
    return (said.choices[0].message.content or "").strip()


@pytest.mark.parametrize(("model", "messages", "wanted", "defect"), CASES)
def test_nothing_is_lost_doubled_or_mixed_up(real: Served, model: str, messages: list[Message], wanted: str, defect: Defect):
    assert answer(real, model, messages) == wanted


@pytest.mark.parametrize(("model", "messages", "wanted", "defect"), CASES)
def test_and_if_it_were_the_answer_would_tell(
    real: Served, monkeypatch: pytest.MonkeyPatch, model: str, messages: list[Message], wanted: str, defect: Defect
):
    defect(monkeypatch)
    assert answer(real, model, messages) != wanted


def test_five_minutes_of_digits_with_pauses_are_written_down_each_in_order_and_at_its_time(real: Served):
    spoken = [part for part in clips(open_recording(MEDIA / "2min.mp3")) if isinstance(part, Clip)]
    rng, at = random.Random(5), 0.7
    samples, groups = np.zeros(16_000 * 300, dtype="<i2"), list[tuple[float, str]]()
    while at < 296:
        number = rng.randrange(len(spoken))
        pcm = np.frombuffer(spoken[number].sound.pcm, dtype="<i2")
        samples[round(at * 16_000) :][: len(pcm)] = pcm
        groups.append((at + 0.2, SAID[number]))  # a clip begins 0.2 s before its first word
        at += len(pcm) / 16_000 + rng.uniform(0.5, 9)
    files = {"file": ("digits.wav", wav(samples.tobytes())), "model": (None, "whisper-1"), "response_format": (None, "verbose_json")}
    heard = real.http.post("/v1/audio/transcriptions", files=files, timeout=240).json()
    assert heard["text"].split() == " ".join(digits for _, digits in groups).split()
    assert heard["duration"] == pytest.approx(300, abs=0.1)
    for segment in heard["segments"]:
        inside = [(start, digits) for start, digits in groups if segment["start"] - 0.3 <= start <= segment["end"]]
        assert segment["text"].split() == " ".join(digits for _, digits in inside).split(), segment
        assert abs(segment["start"] - inside[0][0]) <= 0.3, segment
