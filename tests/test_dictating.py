"""`gemma3n transcribe --microphone`: what is said is written down while it is said, through whichever recorder is there, until Ctrl-C."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from listening_engine import ListeningEngine, Spoken, spoken

from gemma3n_sgl import Recording, connect, hearing
from gemma3n_sgl.bridge import in_thread
from gemma3n_sgl.errors import EngineUnavailable, MediaError
from gemma3n_sgl.events import Done, Segment
from gemma3n_sgl.media import clips, microphone, open_microphone
from gemma3n_sgl.media.microphone import RECORDERS
from gemma3n_sgl.terminal.dictating import dictate
from programs.transcribe import transcribe

ROOT = Path(__file__).parent.parent
TALK = spoken(40.5, 8, pause=1)
WORDS = " ".join(f"w{word.number}" for word in TALK.words)


@pytest.fixture
def ear() -> Iterator[ListeningEngine]:
    engine = ListeningEngine()
    engine.start()
    yield engine
    engine.stop()


@pytest.fixture
def recorders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that alone is looked through for recorders."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def put(folder: Path, name: str, sound: Spoken | None = TALK, *, then: str = "exec /bin/sleep 60") -> Path:
    """A recorder that gives all of a sound at once and then waits, and writes down how it was called; without a sound one that fails."""
    log = folder / f"{name}.called"
    raw = folder / f"{name}.raw"
    raw.write_bytes(sound.wav[44:] + b"\1" if sound else b"")  # ended in the middle of a sample
    path = folder / name
    path.write_text(f'#!/bin/sh\necho "$@" >> {log}\n' + (f"/bin/cat {raw}\n{then}\n" if sound else "exit 1\n"))
    path.chmod(0o755)
    return log


def begin(ear: ListeningEngine, *words: str | Path) -> subprocess.Popen[bytes]:
    env = os.environ | {"GEMMA3N_RUNTIME_URL": ear.url, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "cli", "transcribe", *map(str, words)]
    return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def read_until(job: subprocess.Popen[bytes], piece: str) -> str:
    """What is printed up to a piece of text. The recorder is still at work then."""
    assert job.stdout is not None
    said = b""
    limit = time.monotonic() + 40
    while piece.encode() not in said:
        byte = os.read(job.stdout.fileno(), 1)
        said += byte
        assert byte and time.monotonic() < limit, said
    return said.decode()


@pytest.mark.slow
def test_text_comes_while_one_speaks_and_ctrl_c_ends_the_recording_but_loses_no_word(ear: ListeningEngine, recorders: Path):
    put(recorders, "arecord")
    job = begin(ear, "--microphone")
    said = read_until(job, "w20 ")
    assert job.poll() is None
    job.send_signal(signal.SIGINT)
    rest, told = job.communicate(timeout=30)
    assert (job.returncode, said + rest.decode()) == (0, WORDS + "\n"), told.decode()
    assert "Listening, through arecord. Ctrl-C ends it." in told.decode()


@pytest.mark.slow
def test_what_is_said_goes_into_a_file_with_its_times(ear: ListeningEngine, recorders: Path, tmp_path: Path):
    put(recorders, "parec", then="exit 0")
    job = begin(ear, "--microphone", "-o", target := tmp_path / "notes.srt")
    told = job.communicate(timeout=60)[1].decode()
    assert job.returncode == 0 and "the microphone → " in told and "[0:" in told, told
    assert target.read_text().startswith("1\n00:00:0") and len(target.read_text().split("\n\n")) >= 4
    again = begin(ear, "--microphone", "-o", target)
    assert "is there already" in again.communicate(timeout=60)[1].decode() and again.returncode == 2


@pytest.mark.slow
def test_a_second_ctrl_c_ends_the_program(ear: ListeningEngine, recorders: Path):
    ear.delay = 20
    put(recorders, "arecord")
    job = begin(ear, "--microphone")
    limit = time.monotonic() + 30
    while not ear.requests:
        assert time.monotonic() < limit
        time.sleep(0.05)
    began = time.monotonic()
    for _ in range(2):
        job.send_signal(signal.SIGINT)
        time.sleep(0.5)
    job.communicate(timeout=15)
    assert job.returncode == 130 and time.monotonic() - began < 10


@pytest.mark.slow
def test_an_engine_that_goes_for_good_leaves_what_was_heard(ear: ListeningEngine, recorders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """While the recorder goes on, what is said meanwhile can't be heard; what was heard before goes into the file."""
    monkeypatch.setattr(hearing, "RETURNS", (0.1, 0.1))
    put(recorders, "parec", then=f"while :; do /bin/cat {recorders}/parec.raw; /bin/sleep 0.2; done")

    async def hear(recording: Recording, told: Callable[[Segment], None], write: Callable[[str], None]) -> Done:
        def tell(segment: Segment) -> None:
            told(segment)
            ear.refuse()

        events = connect(ear.url).stream(transcribe, recording=recording)
        return await in_thread(lambda: [tell(event) if isinstance(event, Segment) else event for event in events][-1])

    with pytest.raises(EngineUnavailable):
        asyncio.run(dictate(str(tmp_path / "notes.txt"), "txt", hear, again=False))
    assert (tmp_path / "notes.txt").read_text().startswith("w0 w1 ")


def test_a_recorder_that_gives_nothing_is_left_for_the_next(recorders: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(microphone, "_PATIENCE", 0.2)
    (recorders / "parec").write_text("#!/bin/sh\nexec /bin/sleep 60\n")
    (recorders / "parec").chmod(0o755)
    put(recorders, "arecord")
    with open_microphone() as live:
        assert live.recorder == "arecord"


@pytest.mark.slow
def test_without_a_recorder_it_is_said_what_to_install(ear: ListeningEngine, recorders: Path):
    job = begin(ear, "--microphone")
    told = job.communicate(timeout=60)[1].decode()
    assert job.returncode == 2 and "Install one: pw-record (PipeWire)" in told and "Traceback" not in told
    neither = begin(ear)
    assert "--microphone for what is said now" in neither.communicate(timeout=60)[1].decode() and neither.returncode == 2


def test_the_first_recorder_that_hears_something_is_taken(recorders: Path):
    log = put(recorders, "pw-record", None)
    asked = put(recorders, "ffmpeg", then="exit 0")
    with open_microphone() as live:
        assert live.recorder == "ffmpeg" and b"".join(live.pieces) == TALK.wav[44:]
    assert log.read_text().startswith("-a --rate 16000") and "-f s16le" in asked.read_text()


def test_recorders_that_hear_nothing_are_named(recorders: Path):
    put(recorders, "arecord", None)
    put(recorders, "rec", None)
    with pytest.raises(MediaError, match="through arecord, rec"), open_microphone():
        pass


def test_a_microphone_is_a_recording_in_python_too(ear: ListeningEngine, recorders: Path):
    put(recorders, "rec", then="exit 0")
    with open_microphone() as live:
        done = connect(ear.url).run(transcribe, recording=live)
    assert done.answer == WORDS and done.seconds == pytest.approx(TALK.seconds)


def test_nothing_is_lost_while_nobody_listens_and_the_recorder_is_gone_afterwards(recorders: Path):
    """A pipe holds two seconds; the rest is kept here."""
    put(recorders, "arecord")
    with open_microphone() as live:
        assert live.process is not None
        time.sleep(0.3)
        threading.Timer(0.1, live.stop).start()
        assert len(list(clips(live, 8))) >= 5
        pid = live.process.pid
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        pytest.fail("it still runs")


def test_every_command_gives_raw_sound_as_the_model_hears_it():
    for name, *words in RECORDERS:
        said = " ".join(words)
        assert "16000" in said and ("s16" in said.lower() or "-b 16" in said), name
