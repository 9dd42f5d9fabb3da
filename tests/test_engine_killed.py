"""A real engine that is killed in the middle of an answer: told in the stream, and by /health from then on."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from real_engine import GIVEN_URL, VENV
from serving import serving, until

from gemma3n_sgl.engine import LocalEngine, choose
from gemma3n_sgl.settings import Settings

pytestmark = [pytest.mark.engine, pytest.mark.skipif(bool(GIVEN_URL), reason="kills an engine that we start ourselves")]

LONG = '''
import sglang as sgl
from gemma3n_sgl import assistant, user

@sgl.function
def long(s, question: str):
    """Go on and on."""
    s += user(question)
    s += assistant(sgl.gen("answer", max_tokens=3000, regex="[a-z ]{9000}"))
'''


def kill(engine: LocalEngine) -> None:
    """As the kernel does when memory runs out: the scheduler first, without a word."""
    processes = [process for process in psutil.process_iter(["cmdline"]) if f"--port {engine.port}" in " ".join(process.info["cmdline"] or [])]
    with suppress(psutil.NoSuchProcess):  # a parent's end may be quicker than we are in asking for its children
        processes = [child for parent in processes for child in parent.children(recursive=True)] + processes
    for process in processes:
        with suppress(psutil.NoSuchProcess):  # it followed one that was killed before
            process.kill()


@pytest.mark.usefixtures("engine")  # so that it is installed
def test_an_engine_killed_in_mid_answer_is_told_in_the_stream_and_by_health(tmp_path: Path):
    (tmp_path / "long.py").write_text(LONG)
    with LocalEngine(choose("cpu"), venv=VENV, port=0) as engine, serving(Settings(runtime_url=engine.url, programs=(str(tmp_path),))) as served:
        asked = {"model": "gemma-3n:long", "messages": [{"role": "user", "content": "Go"}], "stream": True}
        with served.http.stream("POST", "/v1/chat/completions", json=asked) as response:
            lines = (line for line in response.iter_lines() if line)
            for _ in range(20):
                next(lines)
            kill(engine)
            killed = time.monotonic()
            *_, error, last = lines
        assert time.monotonic() - killed < 2
        assert json.loads(error.removeprefix("data: "))["error"]["code"] == "engine_error"
        assert last == "data: [DONE]"
        until(lambda: served.http.get("/health").status_code == 503, 3)
        assert served.ask().status_code == 503
        until(lambda: not engine.alive(), 10)
