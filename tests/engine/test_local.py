"""A local engine is ready when it has started, tells why when it has not, and is gone when it has stopped. Played by a fake engine."""

from __future__ import annotations

import io
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from gemma3n_sgl.engine import LocalEngine, Progress, choose
from gemma3n_sgl.engine.asking import check_port, free_port, serves
from gemma3n_sgl.engine.records import running, stop
from gemma3n_sgl.errors import EngineUnavailable, SettingsError

pytestmark = pytest.mark.slow

MakeVenv = Callable[..., Path]
Remains = Callable[[], list[psutil.Process]]


def fake(venv: Path, progress: Progress, **options: object) -> LocalEngine:
    return LocalEngine(choose("cpu"), venv=venv, **{"port": 0, "progress": progress, **options})  # type: ignore[arg-type]


def test_an_engine_answers_once_started_and_is_gone_once_left(make_venv: MakeVenv, progress: Progress, remains: Remains) -> None:
    venv = make_venv()
    with fake(venv, progress) as engine:
        assert engine.alive()
        assert serves(engine.url) == "fake"
        assert engine.url.startswith("http://127.0.0.1:")
        assert [record.url for record in running(venv)] == [engine.url]
    assert not engine.alive()
    assert serves(engine.url) is None
    assert running(venv) == []
    assert remains() == []


def test_an_engine_that_dies_while_loading_shows_the_last_lines_of_its_log(
    make_venv: MakeVenv, progress: Progress, remains: Remains
) -> None:
    with pytest.raises(EngineUnavailable, match=r"ended while it was loading. Its exit code was 3") as caught:
        fake(make_venv("die"), progress).start()
    lines = caught.value.message.splitlines()
    assert lines[-1].strip() == "ValueError: no such weights"
    assert len(lines) == 1 + 15
    assert "Traceback" not in caught.value.message
    assert remains() == []


def test_an_engine_that_is_killed_points_at_memory(make_venv: MakeVenv, progress: Progress) -> None:
    with pytest.raises(EngineUnavailable, match="out of memory"):
        fake(make_venv("killed"), progress).start()


def test_an_engine_whose_worker_crashes_says_so_and_not_that_memory_ran_out(make_venv: MakeVenv, progress: Progress) -> None:
    with pytest.raises(EngineUnavailable, match=r"One of its processes crashed, with exit code -11\.") as caught:
        fake(make_venv("crash"), progress).start()
    assert "out of memory" not in caught.value.message


def test_an_engine_that_never_gets_ready_is_ended(make_venv: MakeVenv, progress: Progress, remains: Remains) -> None:
    with pytest.raises(EngineUnavailable, match="not ready within 1 s"):
        fake(make_venv("hang"), progress, loading_timeout=1).start()
    assert remains() == []


def test_ctrl_c_while_loading_leaves_nothing(make_venv: MakeVenv, progress: Progress, remains: Remains) -> None:
    engine = fake(make_venv("hang"), progress)
    timer = threading.Timer(0.7, lambda: os.kill(os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        engine.start()
    assert remains() == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_an_engine_ends_with_the_process_that_started_it(number: signal.Signals, make_venv: MakeVenv, remains: Remains) -> None:
    venv = make_venv()
    code = f"""
import time
from pathlib import Path
from gemma3n_sgl.engine import LocalEngine, choose
with LocalEngine(choose("cpu"), venv=Path({str(venv)!r}), port=0):
    print("ready", flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == b"ready\n"
        parent.send_signal(number)
    assert remains() == []


def test_an_engine_that_dies_later_is_noticed(make_venv: MakeVenv, progress: Progress) -> None:
    with fake(make_venv(), progress) as engine:
        engine.check_alive()
        (command,) = psutil.Process(running(engine.log.parent.parent)[0].pid).children()
        command.kill()
        deadline = time.monotonic() + 5
        while engine.alive() and time.monotonic() < deadline:
            time.sleep(0.05)
        with pytest.raises(EngineUnavailable, match="ended by itself"):
            engine.check_alive()
        assert engine.last_lines(1)


def test_loading_is_told_as_it_goes(make_venv: MakeVenv, progress: Progress, told: io.StringIO) -> None:
    with fake(make_venv(), progress):
        assert re.fullmatch(r"Loading gemma-3n-demo …\nLoading gemma-3n-demo: done in \d+ s\n", told.getvalue())


def test_an_engine_that_is_not_installed_says_how_to_get_it(tmp_path: Path, progress: Progress) -> None:
    with pytest.raises(SettingsError, match="gemma3n engine install"):
        fake(tmp_path / "nowhere", progress).start()


@pytest.fixture
def taken() -> Iterator[int]:
    """A port on which something listens that is no engine and speaks no HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                connection.sendall(b"220 hello\r\n")
                connection.close()

        threading.Thread(target=answer, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_a_taken_port_names_who_has_it(taken: int) -> None:
    with pytest.raises(SettingsError, match=rf"Port {taken} is taken by another program \(.*process {os.getpid()}\)"):
        check_port(taken)


def test_a_port_with_an_engine_says_so(make_venv: MakeVenv, progress: Progress) -> None:
    venv = make_venv()
    with fake(venv, progress) as engine, pytest.raises(SettingsError, match="An engine that serves fake already answers"):
        fake(venv, progress, port=engine.port).start()


def test_a_port_where_an_engine_is_still_loading_is_taken_too(make_venv: MakeVenv, progress: Progress) -> None:
    venv, port = make_venv("hang"), free_port()
    first = fake(venv, progress, port=port, loading_timeout=2)
    loading = threading.Thread(target=lambda: pytest.raises(EngineUnavailable, first.start))
    loading.start()
    while not running(venv):
        time.sleep(0.02)
    with pytest.raises(SettingsError, match="is loading, on port"):
        fake(venv, progress, port=port).start()
    assert first.alive()
    loading.join()


def test_logs_are_kept_for_a_day(make_venv: MakeVenv, progress: Progress) -> None:
    venv = make_venv()
    with fake(venv, progress) as old, fake(venv, progress) as recent, fake(venv, progress) as still_running:
        for engine in (old, still_running):
            os.utime(engine.log.with_suffix(".json"), (0, 0))
        old.stop()
        recent.stop()
        with fake(venv, progress):
            assert not old.log.exists()
            assert recent.log.exists()
            assert {record.port for record in running(venv)} >= {still_running.port}


def test_a_record_left_by_a_crash_deceives_nobody(make_venv: MakeVenv, progress: Progress) -> None:
    """Its process number belongs to somebody else by now, whom `stop` must not touch."""
    venv = make_venv()
    with fake(venv, progress) as engine:
        (record,) = running(venv)
        written = (venv / "run" / f"{engine.port}.json").read_text()
    assert str(record.pid) in written
    stranger = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    (venv / "run" / f"{engine.port}.json").write_text(written.replace(str(record.pid), str(stranger.pid)))
    assert running(venv) == []
    assert stop(venv, record)
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
