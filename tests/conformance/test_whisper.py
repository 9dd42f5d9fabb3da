"""Those who speak to Whisper read what is written here: OpenAI's client for Python, curl, and the tools that read subtitles."""

from __future__ import annotations

import html
import io
import json
import re
import subprocess
from collections.abc import Iterator
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pysubs2
import pytest
import webvtt
from listening_engine import ListeningEngine, spoken, wav
from scripted_engine import Reply
from serving import SHORT, Served, serving

from gemma3n_sgl.settings import Settings

TALK = spoken(75, 21, pause=4)
WILD = ("Grüße aus 東京 🎉", "a --> b", "<i>& {\\an8}</i>", "one\n\ntwo", "00:00:01,000", "NOTE nothing", "17", "WEBVTT", " ")
"""What may be said, one for each clip: letters of all kinds, what means something in subtitles, nothing."""

SAID = [" ".join(text.split()) for text in WILD if text.strip()]


@pytest.fixture(scope="module")
def standing() -> Iterator[tuple[ListeningEngine, Served]]:
    engine = ListeningEngine()
    engine.start()
    with serving(Settings(runtime_url=engine.url, **SHORT)) as served:
        yield engine, served
    engine.stop()


@pytest.fixture
def served(standing: tuple[ListeningEngine, Served]) -> Served:
    """Each clip is heard as the next of the wild texts."""
    numbers: dict[str, int] = {}
    counting = count()

    def script(prompt: str) -> Reply:
        words = prompt.partition("\n")[0]
        return Reply(WILD[numbers.setdefault(words, next(counting)) % len(WILD)])

    standing[0].script = script
    return standing[1]


def hear(served: Served, **fields: Any) -> Any:
    return served.client.audio.transcriptions.create(**{"model": "whisper-1", "file": ("talk.wav", TALK.wav)} | fields)


def in_order(times: list[tuple[float, float]]) -> None:
    assert len(times) > len(WILD), "every text was said"
    assert all(start < end for start, end in times)
    assert all(a[1] <= b[0] for a, b in pairwise(times))
    assert times[0][0] >= 0 and times[-1][1] <= TALK.seconds


def told(texts: list[str], *, unsaid: str = "") -> None:
    """All of the wild texts are there and nothing else, but for what a reader takes for markup."""
    said = {" ".join(text.replace("→", "-->").split()) for text in texts}
    assert said == {re.sub(unsaid, "", text) for text in SAID}


def test_the_client_for_python_reads_segments_whose_times_are_in_order(served: Served):
    heard = hear(served, response_format="verbose_json", timestamp_granularities=["segment"])
    in_order([(segment.start, segment.end) for segment in heard.segments])
    told([segment.text for segment in heard.segments])
    assert [segment.id for segment in heard.segments] == list(range(len(heard.segments)))


def test_the_length_told_is_the_recordings_own_with_the_silence_behind_the_last_word(served: Served):
    heard = hear(served, response_format="verbose_json")
    assert heard.duration == pytest.approx(TALK.seconds, abs=0.01)
    silence = hear(served, response_format="verbose_json", file=("silence.wav", wav(bytes(32_000 * 3))))
    assert (silence.duration, silence.text, silence.segments) == (3, "", [])


@pytest.mark.parametrize("form", ["srt", "vtt"])
def test_a_tool_for_subtitles_reads_them(served: Served, form: str):
    cues = pysubs2.SSAFile.from_string(hear(served, response_format=form), format_=form)
    in_order([(cue.start / 1000, cue.end / 1000) for cue in cues])
    assert len(cues) == len(hear(served, response_format="verbose_json").segments)


def test_a_strict_reader_of_webvtt_finds_every_word(served: Served):
    cues = webvtt.from_string(hear(served, response_format="vtt")).captions
    told([html.unescape(re.sub("<[^>]*>", "", cue.text)) for cue in cues])  # as a player shows it


def test_a_strict_reader_of_subrip_finds_every_word(served: Served):
    captions = webvtt.from_buffer(io.StringIO(hear(served, response_format="srt")), format="srt").captions
    told([cue.text for cue in captions], unsaid="</?i>")  # SubRip has no way to write what is not meant as such


@pytest.mark.parametrize("form", ["json", "text"])
def test_a_stream_says_in_pieces_what_the_whole_says(served: Served, form: str):
    events = list(hear(served, response_format=form, stream=True))
    assert events[-1].type == "transcript.text.done" and {event.type for event in events[:-1]} == {"transcript.text.delta"}
    assert "".join(event.delta for event in events[:-1]) == events[-1].text
    assert all(text.split()[0] in events[-1].text for text in SAID[:3])


SILENT = {"json": '"text":""', "text": "\n", "srt": "", "vtt": "WEBVTT\n\n", "verbose_json": '"segments":[]'}


def curl(served: Served, *more: str, stdin: bytes = TALK.wav) -> tuple[str, str]:
    """The content type and the body, as a shell gets them."""
    command = ["curl", "-sS", "--fail-with-body", "-w", "\n%{content_type}", f"{served.base_url}/audio/transcriptions", "-F", "model=whisper-1"]
    done = subprocess.run([*command, "-F", "file=@-;filename=a.wav", *more], input=stdin, capture_output=True, timeout=30, check=True)
    body, _, kind = done.stdout.decode().rpartition("\n")
    return kind, body


@pytest.mark.parametrize("form", SILENT)
def test_curl_gets_silence_in_every_form(served: Served, form: str):
    kind, body = curl(served, "-F", f"response_format={form}", stdin=wav(bytes(32_000)))
    assert body == SILENT[form] if not kind.endswith("json") else SILENT[form] in body


def test_curl_gets_what_is_said_as_utf_8(served: Served):
    for form in ("text", "srt", "vtt"):
        kind, body = curl(served, "-F", f"response_format={form}")
        assert "charset=utf-8" in kind and "東京 🎉" in body
    assert "東京 🎉" in json.loads(curl(served)[1])["text"]


@pytest.mark.parametrize("name", ["talk.wav", "talk", "Rede über 東京.wav"])
def test_a_file_may_be_called_anything(served: Served, name: str, tmp_path: Path):
    (tmp_path / name).write_bytes(TALK.wav)
    assert hear(served, file=tmp_path / name, response_format="text").strip()
