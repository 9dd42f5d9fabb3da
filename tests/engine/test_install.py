"""An installation is whole or not there; what is in its way is said before, what went wrong after. Played by short scripts."""

from __future__ import annotations

import fcntl
import io
import os
import platform
import shutil
import signal
import sys
import threading
import time
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from gemma3n_sgl.engine import LocalEngine, Progress, choose, install, installing, is_installed
from gemma3n_sgl.engine.packages import Step
from gemma3n_sgl.errors import EngineUnavailable, SettingsError

pytestmark = pytest.mark.slow

Remains = Callable[[], list[psutil.Process]]
Play = Callable[..., None]

PYTHON = "import os, sys; os.makedirs('bin'); os.symlink(sys.executable, 'bin/python'); print('made')"


@pytest.fixture
def venv(tmp_path: Path) -> Path:
    return tmp_path / "venv"


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch, venv: Path) -> Play:
    """`play(code, …)`: these scripts are the steps, run in the environment's folder; without any, one that makes a Python."""

    def set_steps(*codes: str) -> None:
        commands = [[sys.executable, "-c", f"import os; os.chdir({str(venv)!r})\n{code}"] for code in codes or (PYTHON,)]
        monkeypatch.setattr(installing, "steps", lambda *_: [Step(f"Step {i}", command) for i, command in enumerate(commands)])

    set_steps()
    return set_steps


def test_an_installation_is_made_once(play: Play, venv: Path, progress: Progress, told: io.StringIO) -> None:
    assert not is_installed("cpu", venv)
    assert install("cpu", venv, progress=progress)
    assert is_installed("cpu", venv)
    assert "Step 0: done" in told.getvalue()
    assert not install("cpu", venv, progress=progress)


def test_a_step_that_fails_shows_its_last_words_and_nothing_counts_as_installed(play: Play, venv: Path, progress: Progress) -> None:
    play(PYTHON, "print('ERROR: No matching distribution found for torch'); raise SystemExit(1)", "open('never', 'w')")
    with pytest.raises(EngineUnavailable, match=r"Step 1 failed.*--torch-index[\s\S]*No matching distribution"):
        install("cpu", venv, progress=progress)
    assert not is_installed("cpu", venv)
    assert not (venv / "never").exists()


def test_what_a_broken_off_installation_left_is_replaced(play: Play, venv: Path, progress: Progress) -> None:
    play(PYTHON, "os.makedirs('lib/torch/half'); open('file', 'w'); os.symlink('/', 'link'); raise SystemExit(1)")
    with pytest.raises(EngineUnavailable):
        install("cpu", venv, progress=progress)
    play()
    assert install("cpu", venv, progress=progress)
    assert not (venv / "lib").exists()
    assert not (venv / "file").exists()
    assert not (venv / "link").is_symlink()
    assert is_installed("cpu", venv)


def test_other_packages_or_a_lost_python_are_installed_anew(
    play: Play, venv: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("cpu", venv, progress=progress)
    monkeypatch.setattr(installing, "fingerprint", lambda device: "newer packages")
    assert install("cpu", venv, progress=progress)
    (venv / "bin" / "python").unlink()
    assert install("cpu", venv, progress=progress)


def test_somebody_elses_folder_stays_untouched(play: Play, venv: Path, progress: Progress) -> None:
    venv.mkdir()
    (venv / "thesis.tex").write_text("years of work")
    with pytest.raises(SettingsError, match="stays untouched"):
        install("cpu", venv, progress=progress)
    assert (venv / "thesis.tex").read_text() == "years of work"


def test_ctrl_c_ends_the_step_under_way_and_the_next_try_repairs(play: Play, venv: Path, progress: Progress, remains: Remains) -> None:
    play(PYTHON, "import time; time.sleep(600)")
    threading.Timer(1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        install("cpu", venv, progress=progress)
    assert remains() == []
    play()
    assert install("cpu", venv, progress=progress)


def test_a_full_disk_is_noticed_before(play: Play, venv: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")(10**11, 10**11, 2 * 10**9)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(SettingsError, match=r"takes about 4 GB, and the disk of .* has 2.0 GB free"):
        install("cpu", venv, progress=progress)
    assert not (venv / "bin").exists()


def test_a_disk_that_fills_up_is_called_that(play: Play, venv: Path, progress: Progress) -> None:
    play("raise OSError(28, 'No space left on device')")
    with pytest.raises(EngineUnavailable, match="became full") as caught:
        install("cpu", venv, progress=progress)
    assert "Traceback" not in caught.value.message


def test_another_python_is_refused_by_name(play: Play, venv: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "python_version", lambda: "3.13.1")
    with pytest.raises(SettingsError, match=r"needs Python 3.11 or 3.12; this is 3.13.1"):
        install("cpu", venv, progress=progress)
    assert not venv.exists()


def test_a_python_without_ensurepip_says_what_to_install(play: Play, venv: Path, progress: Progress) -> None:
    play("print('The virtual environment was not created successfully because ensurepip is not available.'); raise SystemExit(1)")
    with pytest.raises(EngineUnavailable, match="apt install python3-venv"):
        install("cpu", venv, progress=progress)


def test_a_place_that_can_not_be_written_is_said(play: Play, tmp_path: Path, progress: Progress) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="can't be installed in"):
        install("cpu", tmp_path / "file" / "venv", progress=progress)


def test_a_second_installation_waits_for_the_first(play: Play, venv: Path, progress: Progress, told: io.StringIO) -> None:
    venv.mkdir()
    first = os.open(venv, os.O_RDONLY)
    fcntl.flock(first, fcntl.LOCK_EX)
    second = threading.Thread(target=install, args=("cpu", venv), kwargs={"progress": progress})
    second.start()
    deadline = time.monotonic() + 5
    while "Waiting" not in told.getvalue():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not (venv / "bin").exists()
    os.close(first)
    second.join(10)
    assert is_installed("cpu", venv)


def test_an_engine_that_runs_is_not_replaced(
    make_venv: Callable[..., Path], play: Play, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    venv = make_venv()
    with LocalEngine(choose("cpu"), venv=venv, port=0, progress=progress) as engine:
        monkeypatch.setattr(installing, "fingerprint", lambda device: "newer packages")
        with pytest.raises(SettingsError, match=f"an engine runs from it, on port {engine.port}"):
            install("cpu", venv, progress=progress)
        assert engine.alive()
