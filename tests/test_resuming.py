"""`gemma3n transcribe` goes on where a long job was broken off: what was heard is not asked again, and the text is as if nothing had happened."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import sglang as sgl
from listening_engine import ListeningEngine, spoken
from PIL import Image as Picture
from scripted_engine import Reply, Say
from serving import until

from gemma3n_sgl import Image, Recording, assistant, connect, hear, open_image, open_recording, user
from gemma3n_sgl.errors import InvalidValue, MediaError
from gemma3n_sgl.events import Segment, Step
from gemma3n_sgl.hearing import AT_ONCE
from gemma3n_sgl.sampling import Sampling
from gemma3n_sgl.terminal.journal import Journal, fingerprint

TALK = spoken(150, 5)


@pytest.fixture
def ear() -> Iterator[ListeningEngine]:
    engine = ListeningEngine()
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture
def talk(tmp_path: Path) -> Path:
    path = tmp_path / "talk.wav"
    path.write_bytes(TALK.wav)
    return path


def asked(ear: ListeningEngine) -> int:
    return len([body for body in ear.requests if "<audio_soft_token>" in body["text"]])


def begin(ear: ListeningEngine, *words: str | Path) -> subprocess.Popen[str]:
    env = os.environ | {"GEMMA3N_RUNTIME_URL": ear.url, "PYTHONPATH": str(Path(__file__).parent.parent)}
    command = [sys.executable, "-m", "cli", "transcribe", *map(str, words)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def end(job: subprocess.Popen[str], code: int = 0) -> str:
    _, said = job.communicate(timeout=60)
    assert job.returncode == code, said
    return said


def broken_off(ear: ListeningEngine, source: Path, target: Path, how: signal.Signals) -> tuple[int, str]:
    """How many answers are kept when a job ends in this way, of some that were given, while the next ones take for ever."""
    ear.begin(0)
    ear.script = lambda prompt: Reply(prompt.partition("\n")[0], delay=0 if asked(ear) < 6 else 60)
    journal = target.with_name(f"{target.name}.part")
    job = begin(ear, source, "-o", target)
    limit = time.monotonic() + 30
    while not journal.exists() or len(journal.read_text().splitlines()) < 4:
        assert time.monotonic() < limit and job.poll() is None, "nothing is kept"
        time.sleep(0.02)
    time.sleep(0.2)
    job.send_signal(how)
    said = end(job, -9 if how == signal.SIGKILL else 130)
    ear.begin(0)
    ear.script = lambda prompt: Reply(prompt.partition("\n")[0])
    assert not target.exists()
    return len(journal.read_text().splitlines()) - 1, said


@pytest.mark.slow
@pytest.mark.parametrize(("how", "form"), [(signal.SIGKILL, "json"), (signal.SIGINT, "srt")])
def test_a_job_that_was_ended_goes_on_where_it_stopped(ear: ListeningEngine, talk: Path, how: signal.Signals, form: str):
    """Clips heard before don't reach the engine again, and the file is that of an uninterrupted run, byte for byte."""
    kept, said = broken_off(ear, talk, target := talk.with_name(f"talk.{form}"), how)
    assert kept >= 3 and (how == signal.SIGKILL or "goes on from there" in said)
    said = end(begin(ear, talk, "-o", target))
    assert f"where {kept} parts are heard already" in said
    went_on, written = asked(ear), target.read_bytes()
    assert sorted(file.name for file in talk.parent.iterdir()) == [target.name, "talk.wav"], "nothing else is left"
    ear.begin(0)
    end(begin(ear, talk, "-o", target, "--again"))
    assert target.read_bytes() == written and went_on == asked(ear) - kept


@pytest.mark.slow
def test_what_was_heard_of_another_sound_or_in_another_way_is_not_taken_up(ear: ListeningEngine, talk: Path):
    broken_off(ear, talk, target := talk.with_name("talk.srt"), signal.SIGKILL)
    assert "begun anew" in (said := end(begin(ear, talk, "-o", target, "--language", "French"))) and "another way" in said
    everything = asked(ear)
    target.unlink()
    broken_off(ear, talk, target, signal.SIGKILL)
    os.utime(talk, (1, 1))
    assert "the recording has changed" in end(begin(ear, talk, "-o", target))
    assert asked(ear) == everything


@pytest.mark.slow
def test_what_an_engine_failed_on_is_asked_again_and_nothing_else(ear: ListeningEngine, talk: Path):
    """The file is there, with a word on what it lacks; the same command makes it whole."""
    failed = Say(data=b"out of memory", status=500, content_type="text/plain")
    ear.script = lambda prompt: Reply(prompt.partition("\n")[0], fault=failed if "w50 " in prompt else None)
    said = end(begin(ear, talk, "-o", target := talk.with_name("talk.txt")))
    assert "could not be heard]" in target.read_text() and "1 part is not heard; the same command asks about it again." in said
    ear.begin(0)
    ear.script = lambda prompt: Reply(prompt.partition("\n")[0])
    end(begin(ear, talk, "-o", target))
    assert asked(ear) == 1 and target.read_text() == " ".join(f"w{word.number}" for word in TALK.words) + "\n"
    assert "is there already" in end(begin(ear, talk, "-o", target)) and not target.with_name("talk.txt.part").exists()


ABOUT = {"recording": {"bytes": 7}, "program": "transcribe"}


def test_a_journal_holds_every_answer_that_was_written_whole(tmp_path: Path):
    journal = Journal(tmp_path / "deeper" / "a.srt", ABOUT)
    assert not (tmp_path / "deeper").exists(), "nothing is written before there is something to keep"
    journal["one"], journal["two"] = [["eins", {}]], [["zwei", {}]]
    journal.path.write_bytes(journal.path.read_bytes()[:-5])
    again = Journal(tmp_path / "deeper" / "a.srt", ABOUT)
    assert (dict(again), again.anew) == ({"one": [["eins", {}]]}, "")
    again["3"] = []
    assert list(Journal(tmp_path / "deeper" / "a.srt", ABOUT)) == ["one", "3"]
    assert again.path.read_bytes().endswith(b'["3", []]\n'), "nothing is left of the half line, which was longer"
    again.forget()
    again["four"] = []
    assert list(Journal(tmp_path / "deeper" / "a.srt", ABOUT)) == ["four"]
    again.remove()
    assert list((tmp_path / "deeper").iterdir()) == []


@pytest.mark.parametrize("about", [ABOUT | {"program": "other"}, ABOUT | {"recording": {"bytes": 8}}])
def test_a_journal_about_something_else_is_begun_anew(tmp_path: Path, about: dict[str, object]):
    Journal(tmp_path / "a.srt", ABOUT)["one"] = [["eins", {}]]
    other = Journal(tmp_path / "a.srt", about)
    assert not other and other.anew
    other["two"] = [["zwei", {}]]
    assert list(Journal(tmp_path / "a.srt", about)) == ["two"]


@pytest.mark.parametrize("half", [b"", b'{"gemma3n journal": 1, "rec'])
def test_a_journal_that_was_hardly_begun_is_none(tmp_path: Path, half: bytes):
    (tmp_path / "a.srt.part").write_bytes(half)
    journal = Journal(tmp_path / "a.srt", ABOUT)
    journal["one"] = [["eins", {}]]
    assert list(Journal(tmp_path / "a.srt", ABOUT)) == ["one"]


def test_what_could_not_be_written_down_is_not_kept(tmp_path: Path):
    (tmp_path / "file").touch()
    journal = Journal(tmp_path / "file" / "a.srt", ABOUT)
    with pytest.raises(MediaError, match="can't be written"):
        journal["one"] = [["eins", {}]]
    assert not journal, "and nobody is told that it is"


def test_a_file_of_another_program_is_left_alone(tmp_path: Path):
    (tmp_path / "a.srt.part").write_bytes(b"half a download\n")
    with pytest.raises(InvalidValue, match="in the way"):
        Journal(tmp_path / "a.srt", ABOUT)
    assert (tmp_path / "a.srt.part").read_bytes() == b"half a download\n"


def test_a_recording_is_known_by_its_size_time_and_beginning(talk: Path):
    first = fingerprint(talk)
    assert fingerprint(talk) == first and json.loads(json.dumps(first)) == first
    with talk.open("r+b") as file:
        file.write(b"RIFX")
    os.utime(talk, ns=(first["modified"], first["modified"]))
    assert fingerprint(talk)["bytes"] == first["bytes"] and fingerprint(talk) != first


@sgl.function
def listen(s, recording: Recording, form: str = "capitals"):
    """Write down a recording."""
    hear(s, "answer", recording, "Transcribe this audio.", then=f"Put it into {form}.", clip_seconds=8)


def test_what_is_heard_before_its_turn_is_kept_too(ear: ListeningEngine):
    """The first part takes long, and those behind it are heard meanwhile."""
    held = threading.Event()
    ear.script = lambda prompt: Reply("yes", held=held if prompt.startswith("w0 ") else None)
    memory: dict[str, object] = {}
    with ThreadPoolExecutor(1) as beside:
        run = beside.submit(connect(ear.url).run, listen, recording=replace(open_recording(TALK.wav), memory=memory))
        try:
            until(lambda: len(memory) >= AT_ONCE - 1, 20)
            assert not run.done()
        finally:
            held.set()
        run.result()
    assert len(memory) > AT_ONCE


def test_in_python_a_dict_is_a_recordings_memory(ear: ListeningEngine):
    """What a second run says and counts is what the first did, steps of a second question included; another question is asked anew."""
    ear.script = lambda prompt: Reply(prompt.partition("\n")[0].upper() if "capitals" in prompt else prompt.partition("\n")[0])
    recording = replace(open_recording(TALK.wav), memory={})
    gemma = connect(ear.url)
    first = list(gemma.stream(listen, recording=recording))
    calls = asked(ear)
    again = list(gemma.stream(listen, recording=recording))
    assert asked(ear) == calls > 10
    assert again[-1] == first[-1]
    for kind in (Segment, Step):
        assert [event for event in again if isinstance(event, kind)] == [event for event in first if isinstance(event, kind)] != []
    part = next(iter(recording.memory or {}))
    del recording.memory[part]  # type: ignore[union-attr]
    assert gemma.run(listen, recording=recording).answer == first[-1].answer  # type: ignore[union-attr]
    assert asked(ear) == calls + 2
    gemma.run(listen, recording=recording, form="small letters")
    assert asked(ear) == 2 * calls + 2, "another question is asked anew"


@sgl.function
def about(s, slide: Image, recording: Recording):
    """What is said about a slide."""
    s += user(slide, "This is the slide.")
    s += assistant("I see.")
    hear(s, "answer", recording, "What is said about it?", clip_seconds=8)


def test_a_memory_knows_the_picture_and_the_limit_an_answer_was_given_under(ear: ListeningEngine):
    ear.script = lambda prompt: Reply(tuple(f"{word} " for word in prompt.partition("\n")[0].split()))
    recording, gemma = replace(open_recording(TALK.wav), memory={}), connect(ear.url)
    red, blue = (open_image(Picture.new("RGB", (64, 64), colour)) for colour in ("red", "blue"))
    short = gemma.run(about, slide=red, recording=recording, sampling=Sampling(max_tokens=2)).answer
    calls = asked(ear)
    whole = gemma.run(about, slide=red, recording=recording).answer
    assert len(whole) > len(short) and asked(ear) == 2 * calls
    gemma.run(about, slide=blue, recording=recording)
    assert asked(ear) == 3 * calls
    assert gemma.run(about, slide=blue, recording=recording, sampling=Sampling(seed=7)).answer == whole
    assert asked(ear) == 3 * calls, "a seed changes nothing of what is heard greedily"
