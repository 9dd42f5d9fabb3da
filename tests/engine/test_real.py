"""The real engine: ready with the right name and sampling, out of everybody else's reach, and gone without remains."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from typing import Any
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import psutil
import pytest
from real_engine import GIVEN_URL, VENV

from gemma3n_sgl.engine import DEMO_NAME, choose
from gemma3n_sgl.engine.records import running

pytestmark = pytest.mark.engine

ours = pytest.mark.skipif(bool(GIVEN_URL), reason="says something of an engine that we start ourselves")

GUARD_AND_ENGINE = 2
PROMPT = "<start_of_turn>user\nRepeat: star moon<end_of_turn>\n<start_of_turn>model\n"


def ask(url: str, body: dict[str, Any] | None = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urlopen(Request(url, data, {"Content-Type": "application/json"}), timeout=60) as response:
        return json.load(response)


def texts(engine: str, **sampling: Any) -> list[str]:
    answers = ask(engine + "/generate", {"text": PROMPT, "sampling_params": {"max_new_tokens": 16, **sampling}})
    return [answer["text"] for answer in (answers if isinstance(answers, list) else [answers])]


@ours
def test_it_is_served_under_a_name_and_says_which_sampling_it_prefers(engine: str) -> None:
    info = ask(engine + "/model_info")
    assert info["served_model_name"] == DEMO_NAME
    assert info["preferred_sampling_params"] == choose("cpu").sampling == {"temperature": 0}


def test_it_answers_truly_with_the_sampling_it_prefers(engine: str) -> None:
    assert [texts(engine) for _ in range(3)] == [["star moon"]] * 3


def test_a_request_with_sampling_of_its_own_gets_that(engine: str) -> None:
    assert len(set(texts(engine, temperature=5.0, n=8))) > 1
    assert set(texts(engine, temperature=1.0, top_k=1, n=2)) == {"star moon"}


@ours
def test_nothing_of_it_can_be_reached_from_another_machine(engine: str) -> None:
    (record,) = [record for record in running(VENV) if record.url == engine]
    family = [psutil.Process(record.pid), *psutil.Process(record.pid).children(recursive=True)]
    sockets = [c for process in family for c in process.net_connections("tcp") if c.status == psutil.CONN_LISTEN]
    assert urlsplit(engine).port in {connection.laddr.port for connection in sockets}
    assert {connection.laddr.ip for connection in sockets} == {"127.0.0.1"}


@ours
def test_its_parent_killed_while_it_loads_leaves_nothing(engine: str) -> None:
    """Killed once the engine's own children are there."""
    code = (
        f"from pathlib import Path\nfrom gemma3n_sgl.engine import *\nLocalEngine(choose('cpu'), venv=Path({str(VENV)!r}), port=0).start()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while len(family := psutil.Process(parent.pid).children(recursive=True)) < GUARD_AND_ENGINE + 1:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    _, alive = psutil.wait_procs(family, timeout=5)
    assert alive == []
    assert texts(engine) == ["star moon"]
