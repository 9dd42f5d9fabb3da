"""The audio endpoints: Whisper's clients change the base URL, and get text, times and subtitles."""

from __future__ import annotations

import gc
import io
import os
import sys
import tempfile
import wave
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import httpx
import openai
import pytest
from scripted_engine import Die, Reply, ScriptedEngine
from serving import SHORT, Served, one_for_all, serving, until
from starlette.formparsers import MultiPartParser

from gemma3n_sgl.events import Segment
from gemma3n_sgl.media import sources
from gemma3n_sgl.settings import Settings
from gemma3n_sgl.subtitles import srt, vtt

DIGITS = Path(__file__).parent / "media/314.mp3"


standing, scripted, served = one_for_all(Reply("three one four"), max_upload_mb=1, max_upload_seconds=100, **SHORT)


def hear(served: Served, **fields: Any) -> Any:
    return served.client.audio.transcriptions.create(**{"model": "whisper-1", "file": DIGITS} | fields)


def post(served: Served, data: dict[str, Any] | None = None, files: Any = None, route: str = "transcriptions") -> httpx.Response:
    return served.http.post(f"/v1/audio/{route}", data={"model": "gemma-3n"} | (data or {}), files=files or {"file": DIGITS.read_bytes()})


def wav(seconds: float) -> bytes:
    """A loud tone, which is no silence."""
    held = io.BytesIO()
    with wave.open(held, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(1)
        file.setframerate(8000)
        file.writeframes(bytes(128 + 100 * (i // 8 % 2) for i in range(round(seconds * 8000))))
    return held.getvalue()


def test_a_transcript_comes_as_json_with_usage(served: Served):
    heard = hear(served)
    assert heard.text == "three one four"
    assert heard.usage.type == "tokens" and heard.usage.input_token_details.audio_tokens == 188


@pytest.mark.parametrize("model", ["gemma-3n", "whisper-1", "gemma-3n:transcribe", "gemma-3n-e4b"])
def test_the_models_of_speech_are_those_of_the_house_whispers_and_the_engines_own(served: Served, model: str):
    assert hear(served, model=model).text == "three one four"


def test_text_and_subtitles_come_as_such(served: Served):
    assert hear(served, response_format="text") == "three one four\n"
    shown = post(served, {"response_format": "srt"})
    assert shown.headers["content-type"].startswith("application/x-subrip")
    assert shown.text.startswith("1\n00:00:00,") and shown.text.endswith("\nthree one four\n")
    shown = post(served, {"response_format": "vtt"})
    assert shown.headers["content-type"].startswith("text/vtt") and shown.text.startswith("WEBVTT\n\n00:00:00.")


def test_segments_have_times(served: Served):
    heard = hear(served, response_format="verbose_json", timestamp_granularities=["segment"], language="de")
    assert (heard.task, heard.language, heard.text) == ("transcribe", "german", "three one four")
    (segment,) = heard.segments
    assert 0 <= segment.start < segment.end <= heard.duration <= 2 and segment.text == "three one four"


def test_the_language_is_asked_for_by_its_name(served: Served, scripted: ScriptedEngine):
    hear(served, language="fr")
    assert "French" in scripted.requests[-1]["text"]


def test_a_translation_is_into_english(served: Served, scripted: ScriptedEngine):
    scripted.script = {"into English": Reply("Three one four."), "": Reply("drei eins vier")}
    assert served.client.audio.translations.create(model="whisper-1", file=DIGITS).text == "Three one four."


def test_a_stream_has_the_pieces_and_then_the_whole(served: Served, scripted: ScriptedEngine):
    scripted.script = Reply("three one four", delay=0.02)
    events = list(hear(served, stream=True))
    assert [event.type for event in events[:-1]] == ["transcript.text.delta"] * (len(events) - 1) and len(events) > 2
    assert "".join(event.delta for event in events[:-1]) == events[-1].text == "three one four"
    assert events[-1].type == "transcript.text.done" and events[-1].usage.output_tokens > 0


def test_an_engine_that_is_gone_has_a_status(served: Served, scripted: ScriptedEngine):
    scripted.script = Reply(fault=Die())
    with pytest.raises(openai.InternalServerError):
        hear(served)


def test_a_client_that_leaves_frees_the_engine(served: Served, scripted: ScriptedEngine):
    scripted.script = Reply("a b c d e f g h", delay=0.2)
    with pytest.raises(httpx.ReadTimeout):
        served.http.post("/v1/audio/transcriptions", data={"model": "gemma-3n"}, files={"file": DIGITS.read_bytes()}, timeout=0.3)
    until(lambda: scripted.open == 0)


def open_in(folder: Path) -> list[str]:
    """Files that are open here and stand in a folder, with a name or without."""
    fds = Path("/proc/self/fd") if sys.platform == "linux" else folder
    found = []
    for fd in fds.iterdir():
        with suppress(OSError):  # the one by which the folder is read
            found.append(os.path.realpath(fd))
    return [path for path in found if path.startswith(str(folder))]


@pytest.mark.parametrize("way", ["heard", "failed", "left"])
def test_of_a_file_nothing_is_left_on_disk(served: Served, scripted: ScriptedEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str):
    monkeypatch.setattr(sources, "IN_MEMORY", 1000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    kept: list[str] = []

    def spooled(file: BinaryIO) -> tuple[bytes | Path, object]:
        made = sources.spooled(file)
        kept.extend(open_in(tmp_path))
        return made

    monkeypatch.setattr("gemma3n_sgl.media.audio.spooled", spooled)
    gc.disable()  # it may be long until it comes round
    try:
        scripted.script = Reply("a b c d " * 10, delay=0.2 if way == "left" else 0, fault=Die() if way == "failed" else None)
        asked: dict[str, Any] = {"data": {"model": "gemma-3n"}, "files": {"file": DIGITS.read_bytes()}, "timeout": 2 if way == "left" else 20}
        with suppress(httpx.ReadTimeout):
            served.http.post("/v1/audio/transcriptions", **asked)
        assert scripted.requests, "it was being heard"
        assert kept, "it was on disk"
        until(lambda: not open_in(tmp_path), 5)
    finally:
        gc.enable()


@pytest.mark.parametrize("in_memory", [1000, 10**6])
def test_a_full_disk_is_the_servers_state_and_no_bug(served: Served, monkeypatch: pytest.MonkeyPatch, in_memory: int):
    """While the file comes, and where what came is kept."""
    monkeypatch.setattr(MultiPartParser, "spool_max_size", in_memory)
    monkeypatch.setattr(sources, "IN_MEMORY", 1000)
    with monkeypatch.context() as full:
        for which in ("TemporaryFile", "NamedTemporaryFile"):
            full.setattr(tempfile, which, lambda **_: io.FileIO("/dev/full", "w+"))
        told = post(served)
    error = told.json()["error"]
    assert (told.status_code, error["code"], told.headers["retry-after"]) == (503, "server_full", "5") and "no room" in error["message"]
    assert hear(served).text == "three one four"


BAD: dict[str, tuple[dict[str, Any], Any, int, str | None, str]] = {
    "no sound": ({}, {"file": b"Once upon a time"}, 400, "file", "no sound"),
    "an empty file": ({}, {"file": b""}, 400, "file", ""),
    "no file": ({}, {"other": DIGITS.read_bytes()}, 400, "file", "`file`"),
    "a file's name": ({}, {"file": (None, "digits.mp3")}, 400, "file", "-F file=@talk.mp3"),
    "two files": ({}, [("file", b"a"), ("file", b"b")], 400, None, "one file"),
    "an unknown model": ({"model": "nothing"}, None, 404, "model", "does not exist"),
    "a program that hears nothing": ({"model": "gemma-3n:describe"}, None, 400, None, ""),
    "an unknown format": ({"response_format": "html"}, None, 400, "response_format", "json"),
    "times of words": ({"timestamp_granularities[]": "word", "response_format": "verbose_json"}, None, 400, "timestamp_granularities", "words"),
    "times without a place": ({"timestamp_granularities[]": "segment"}, None, 400, "timestamp_granularities", "verbose_json"),
    "a stream of subtitles": ({"stream": "true", "response_format": "srt"}, None, 400, "stream", "srt"),
    "a wild temperature": ({"temperature": "7"}, None, 400, "temperature", ""),
    "an unknown field": ({"nonsense": "1"}, None, 400, "nonsense", "not supported"),
    "too long": ({}, {"file": wav(101)}, 413, None, "100 s (GEMMA3N_MAX_UPLOAD_SECONDS)"),
    "too large": ({}, {"file": DIGITS.read_bytes() + bytes(2**20)}, 413, "file", "GEMMA3N_MAX_UPLOAD_MB"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cant_be_heard_is_told_and_the_next_is(served: Served, case: str):
    data, files, status, param, says = BAD[case]
    told = post(served, data, files)
    error = told.json()["error"]
    assert (told.status_code, says in error["message"]) == (status, True), error
    assert param is None or error["param"] == param, error
    assert hear(served).text == "three one four"


def test_a_body_that_is_no_form_is_told(served: Served):
    told = served.http.post("/v1/audio/transcriptions", json={"model": "gemma-3n"})
    assert told.status_code == 400 and "multipart" in told.json()["error"]["message"]


@pytest.mark.parametrize(("charset", "status"), [("utf-8", 200), ("nonsense", 200), ("undefined", 400), ("punycode", 400)])
@pytest.mark.parametrize("route", ["transcriptions", "translations"])
def test_a_form_in_an_encoding_that_cant_be_read_is_told(served: Served, route: str, charset: str, status: int):
    form = b"".join(
        b'--B\r\ncontent-disposition: form-data; name="%b"\r\n\r\n%b\r\n' % part
        for part in ((b"model", b"gemma-3n"), (b'file"; filename="a.wav', DIGITS.read_bytes()))
    )
    kind = f"multipart/form-data; boundary=B; charset={charset}"
    told = served.http.post(f"/v1/audio/{route}", content=form + b"--B--\r\n", headers={"content-type": kind})
    assert told.status_code == status and ("can't be read" in told.text) == (status == 400)


def test_subtitles_survive_whatever_was_said():
    segments = [Segment(0, 1.5, "a --> b\n\n<i>&"), Segment(3599.9996, 7322.25, "end")]
    assert srt(segments) == "1\n00:00:00,000 --> 00:00:01,500\na → b\n<i>&\n\n2\n01:00:00,000 --> 02:02:02,250\nend\n"
    assert vtt(segments).startswith("WEBVTT\n\n00:00:00.000 --> 00:00:01.500\na → b\n&lt;i&gt;&amp;\n\n01:00:00.000")


@pytest.mark.engine
def test_digits_are_heard_truly(engine: str):
    with serving(Settings(runtime_url=engine)) as served:
        assert hear(served).text == "3 1 4"
        assert "3 1 4" in hear(served, response_format="srt")
