"""`gemma3n transcribe`: recordings and folders of them become texts and subtitles; one that fails loses none of the others."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from fcntl import ioctl
from pathlib import Path
from termios import FIONREAD

import pytest
from rich.console import Console
from scripted_engine import Die, Reply, ScriptedEngine
from serving import until

from gemma3n_sgl.errors import InvalidValue
from gemma3n_sgl.terminal.showing import above_bars, say
from gemma3n_sgl.terminal.transcribing import format_of, jobs_of, write

MEDIA = Path(__file__).parent / "media"


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    folder = tmp_path / "talks"
    (folder / "deeper").mkdir(parents=True)
    shutil.copy(MEDIA / "314.mp3", folder / "a.mp3")
    shutil.copy(MEDIA / "314.ogg", folder / "deeper" / "b.ogg")
    (folder / "notes.mp3").write_text("no sound at all")
    return folder


def gemma3n(engine: ScriptedEngine, *words: str | Path, stdin: bytes = b"", code: int = 0) -> tuple[str, str]:
    env = os.environ | {"GEMMA3N_RUNTIME_URL": engine.url, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run([sys.executable, "-m", "cli", "transcribe", *map(str, words)], env=env, input=stdin, capture_output=True, timeout=60)
    assert done.returncode == code, done.stderr
    return done.stdout.decode(), done.stderr.decode()


@pytest.mark.slow
def test_one_recording_is_told_as_it_is_heard_and_a_pipe_is_one(scripted: ScriptedEngine):
    scripted.script = Reply("three one four")
    assert gemma3n(scripted, MEDIA / "314.mp3")[0] == "three one four\n"
    out, _ = gemma3n(scripted, "-", "--format", "srt", stdin=(MEDIA / "314.mp3").read_bytes())
    assert out.startswith("1\n00:00:00,") and out.endswith("three one four\n")


@pytest.mark.slow
def test_a_folder_becomes_a_folder_of_texts_and_nothing_is_heard_twice(scripted: ScriptedEngine, talks: Path, tmp_path: Path):
    scripted.script = Reply("heard")
    gemma3n(scripted, talks, "-o", f"{tmp_path}/out/", "--json")
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a.json", "b.json"]
    written = json.loads((tmp_path / "out" / "a.json").read_text())
    assert written["text"] == written["segments"][0]["text"] == "heard" and written["segments"][0]["end"] > 0.5
    calls = len(scripted.requests)
    _, said = gemma3n(scripted, talks, "-o", f"{tmp_path}/out/", "--json")
    assert len(scripted.requests) == calls and said.count("is there already") == 2
    gemma3n(scripted, talks, "-o", f"{tmp_path}/out/", "--json", "--again")
    assert len(scripted.requests) > calls


@pytest.mark.slow
def test_a_few_recordings_are_heard_side_by_side(scripted: ScriptedEngine, tmp_path: Path):
    open_then: list[int] = []

    def script(prompt: str) -> Reply:
        open_then.append(scripted.open)
        return Reply("heard", delay=0.3)

    scripted.script = script
    for number in range(9):
        shutil.copy(MEDIA / "314.mp3", tmp_path / f"{number}.mp3")
    gemma3n(scripted, tmp_path)
    assert len(list(tmp_path.glob("*.txt"))) == 9 and max(open_then) == 4


@pytest.mark.slow
def test_one_that_fails_loses_none_of_the_others_and_leaves_no_half_file(scripted: ScriptedEngine, talks: Path):
    scripted.script = Reply("heard")
    _, said = gemma3n(scripted, talks / "notes.mp3", talks / "a.mp3", code=1)
    assert "notes.mp3: This is no sound" in said and (talks / "a.txt").read_text() == "heard\n"
    scripted.script = Reply(fault=Die())
    gemma3n(scripted, talks / "deeper" / "b.ogg", "-o", talks / "b.srt", code=1)
    assert sorted(file.name for file in talks.iterdir()) == ["a.mp3", "a.txt", "deeper", "notes.mp3"]


@pytest.mark.slow
def test_one_that_cant_be_read_loses_none_of_the_others(scripted: ScriptedEngine, talks: Path):
    scripted.script = Reply("heard")
    (talks / "0.mp3").symlink_to("/proc/self/mem")  # opens, and fails as it is read
    _, said = gemma3n(scripted, talks / "0.mp3", talks / "a.mp3", "-o", f"{talks}/out/", code=1)
    assert f"Error: '{talks}/0.mp3' can't be read: input/output error." in said
    assert [file.name for file in (talks / "out").iterdir()] == ["a.txt"]


@pytest.mark.slow
@pytest.mark.parametrize("to_file", [False, True])
def test_a_named_pipe_is_read_once(scripted: ScriptedEngine, tmp_path: Path, to_file: bool):
    scripted.script = Reply("heard")
    os.mkfifo(pipe := tmp_path / "pipe.wav")
    with ThreadPoolExecutor(1) as beside:
        beside.submit(pipe.write_bytes, (MEDIA / "314.wav").read_bytes())
        out, _ = gemma3n(scripted, pipe, *(["-o", tmp_path / "pipe.txt"] if to_file else []))
    assert ((tmp_path / "pipe.txt").read_text() if to_file else out) == "heard\n"
    assert not (tmp_path / "pipe.txt.part").exists()


@pytest.mark.slow
def test_ctrl_c_ends_the_waiting_for_a_pipe(scripted: ScriptedEngine):
    env = os.environ | {"GEMMA3N_RUNTIME_URL": scripted.url, "PYTHONPATH": str(Path(__file__).parent.parent)}
    with subprocess.Popen([sys.executable, "-m", "cli", "transcribe", "-"], env=env, stdin=subprocess.PIPE, stderr=subprocess.PIPE) as job:
        assert job.stdin is not None and job.stderr is not None
        job.stdin.write(b"RIFF")
        job.stdin.flush()
        until(lambda: int.from_bytes(ioctl(job.stdin, FIONREAD, b"\0" * 4), sys.byteorder) == 0)  # it has read that, and waits for more
        job.send_signal(signal.SIGINT)
        assert (job.wait(10), job.stderr.read()) == (130, b"")


def test_what_is_said_commands_no_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    write("\x1b[2Jone\x07 two\n")
    assert capsys.readouterr().out == "\x1b[2Jone\x07 two\n", "a pipe gets it as it is"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    write("\x1b[2Jone\x07 two\n")
    assert capsys.readouterr().out == "[2Jone two\n"


def test_what_is_said_while_bars_are_drawn_is_said_by_their_console(capsys: pytest.CaptureFixture[str]):
    """Written past it, lines and bars would spoil each other."""
    there = Console(file=io.StringIO())
    with above_bars(there):
        say("done")
    say("afterwards")
    assert there.file.getvalue() == "done\n" and capsys.readouterr().err == "afterwards\n"  # type: ignore[attr-defined]


def test_the_outputs_name_tells_the_format():
    assert [format_of(name, None) for name in ("x.srt", "x.VTT", "x.json", "x", "")] == ["srt", "vtt", "json", "txt", "txt"]
    assert format_of("x.srt", "json") == "json"


def test_what_cant_be_done_is_said_before_anything_is_heard(talks: Path, tmp_path: Path):
    with pytest.raises(InvalidValue, match="no file"):
        jobs_of(["absent.mp3"], "", "txt")
    with pytest.raises(InvalidValue, match="into one file"):
        jobs_of([str(talks)], "all.txt", "txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidValue, match="no recording"):
        jobs_of([str(tmp_path / "empty")], "", "txt")
    shutil.copy(MEDIA / "314.mp3", talks / "deeper" / "a.mp3")
    with pytest.raises(InvalidValue, match="same name"):
        jobs_of([str(talks)], f"{tmp_path}/out/", "txt")
