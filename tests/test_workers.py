"""`gemma3n serve --workers N`: several processes behind one port are one server, and the end of one of them is not the end of it."""

from __future__ import annotations

import base64
import os
import re
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from scripted_engine import Reply, ScriptedEngine
from serving import until
from test_shutdown import BODY, CHAT, Process, Start, in_the_middle, start

from gemma3n_sgl.endpoint import Gemma3nEndpoint
from gemma3n_sgl.serving.workers import SHARED_METRICS, share_of, shared_metrics
from gemma3n_sgl.settings import Settings

__all__ = ["start"]
pytestmark = pytest.mark.slow

DIGITS = (Path(__file__).parent / "media/314.wav").read_bytes()


def workers_of(server: Process) -> set[int]:
    return {child.pid for child in psutil.Process(server.process.pid).children()}


def ask(server: Process, **more: Any) -> int:
    return httpx.post(f"{server.http.base_url}{CHAT}", json=BODY | more, timeout=20).status_code


def test_all_of_them_answer_and_tell_one_story(scripted: ScriptedEngine, start: Start):
    scripted.script = Reply("Yes.", delay=0.02)
    server = start(workers=3)
    until(lambda: len(workers_of(server)) == 3, 20)
    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(lambda _: ask(server), range(60))) == {200}
    told = server.http.get("/metrics").text
    assert re.search(r'gemma3n_requests_total\{.*status="200"\} 60\.0', told)


def test_one_that_is_killed_is_replaced_and_the_others_go_on(scripted: ScriptedEngine, start: Start):
    server = start(workers=2)
    until(lambda: len(workers_of(server)) == 2, 20)
    before = workers_of(server)
    scripted.script = Reply("word " * 60, delay=0.02)
    with ThreadPoolExecutor() as pool:
        said, ends = in_the_middle(server, pool, 8)
        os.kill(min(before), signal.SIGKILL)
        until(lambda: len(workers_of(server) - {min(before)}) == 2, 10)
        for end in ends:
            end.exception(20)
    whole = [lines for lines in said if "data: [DONE]" in lines]
    assert all("error" not in "".join(lines) for lines in whole)
    assert f"server process {min(before)} was killed by SIGKILL; another takes its place" in server.log.read_text()
    assert all(ask(server) == 200 for _ in range(10))
    assert max(before) in workers_of(server)


def test_keys_that_are_lost_keep_none_from_being_replaced(scripted: ScriptedEngine, start: Start, tmp_path: Path):
    (keys := tmp_path / "keys").write_text("sesame\n")
    server = start(workers=2, api_keys_file=keys)
    until(lambda: len(workers_of(server)) == 2, 20)
    before = workers_of(server)
    keys.write_text("")
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(workers_of(server) - before) == 2, 20)
    held = {"authorization": "Bearer sesame"}
    assert httpx.post(f"{server.http.base_url}{CHAT}", json=BODY, headers=held, timeout=20).status_code == 200
    server.log.write_text(server.log.read_text().replace("ERROR", "").replace("SettingsError", ""))  # that the file is lost is told


def test_what_they_measure_lies_where_no_upload_can_fill_the_disk(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(SHARED_METRICS, "")  # names no folder
    with shared_metrics(Settings(workers=2)):
        assert Path(os.environ[SHARED_METRICS]).parent == Path("/dev/shm")
    assert SHARED_METRICS not in os.environ


def test_sigterm_lets_all_of_them_finish_and_ends_with_0(scripted: ScriptedEngine, start: Start):
    server = start(workers=2)
    scripted.script = Reply("word " * 40, delay=0.05)
    with ThreadPoolExecutor() as pool:
        said, ends = in_the_middle(server, pool, 6)
        server.told()
        until(lambda: _refused(server), 5)
        for end in ends:
            end.result(20)
    assert all("data: [DONE]" in lines and "error" not in "".join(lines) for lines in said)
    assert server.ended() == 0


def _refused(server: Process) -> bool:
    try:
        httpx.get(f"{server.http.base_url}/livez", timeout=0.2)
    except httpx.ConnectError:
        return True
    except httpx.HTTPError:
        pass
    return False


def test_they_end_with_a_parent_that_was_killed(scripted: ScriptedEngine, start: Start):
    server = start(workers=2)
    left = workers_of(server)
    server.process.kill()
    server.process.wait()
    until(lambda: not any(psutil.pid_exists(pid) for pid in left), 10)


def test_ctrl_c_ends_all_of_them_after_their_answers(scripted: ScriptedEngine, start: Start):
    server = start(workers=2)
    left = workers_of(server)
    server.told(signal.SIGINT)
    assert server.ended() == 130
    until(lambda: not any(psutil.pid_exists(pid) for pid in left), 5)


def test_clips_of_all_of_them_have_one_length(scripted: ScriptedEngine, start: Start):
    """An engine dies of two lengths at once, and the processes don't know of each other's."""
    server = start(workers=2)
    for seconds in (1, 7):
        sound = {"data": base64.b64encode(_lasting(seconds)).decode(), "format": "wav"}
        content = [{"type": "input_audio", "input_audio": sound}, {"type": "text", "text": "What did I say?"}]
        assert ask(server, messages=[{"role": "user", "content": content}]) == 200
    assert len({len(uri) for request in scripted.requests for uri in request["audio_data"]}) == 1


def _lasting(seconds: int) -> bytes:
    pcm = (DIGITS[44:] * 100)[: seconds * 32_000]
    return DIGITS[:4] + (36 + len(pcm)).to_bytes(4, "little") + DIGITS[8:40] + len(pcm).to_bytes(4, "little") + pcm


def test_limits_are_shared_out():
    own = share_of(Settings(workers=3, max_runs=10, max_queue=6))
    assert (own.max_runs, own.max_queue) == (4, 2)
    assert Gemma3nEndpoint("http://a", shared=True)._length_step == 29.5
