"""The soak counts what it says it counts; a short one, since what memory does shows only over many requests."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parent.parent / "bench"
HELD: dict[str, Any] = {"mb": 100.0, "files": 50, "tasks": 3, "generations": 0, "statuses": {200: 9, 400: 1}}


@pytest.mark.parametrize(
    ("last", "says"),
    [
        ({}, []),
        ({"mb": 101.9, "files": 49}, []),
        ({"mb": 102.1}, ["memory grown by 2.1%"]),
        ({"files": 51}, ["files left: 1"]),
        ({"tasks": 5}, ["tasks left: 2"]),
        ({"generations": 1}, ["generations left: 1"]),
        ({"statuses": {200: 9, 500: 2}}, ["status 500: 2"]),
    ],
)
def test_what_is_lost_is_told(last: dict[str, Any], says: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCH))
    assert __import__("soak").lost([HELD, HELD | last]) == says


@pytest.mark.parametrize(
    ("mb", "says"),
    [
        ([100, 103, 101, 104, 99, 102, 103], []),
        ([100, 101, 102, 103, 104, 105, 106], ["memory grown by 4.0%"]),
    ],
    ids=["up and down", "up"],
)
def test_memory_that_goes_up_and_down_is_not_taken_for_growth(mb: list[float], says: list[str], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(BENCH))
    assert __import__("soak").lost([HELD | {"mb": held} for held in mb]) == says


@pytest.mark.slow
def test_a_mixture_of_requests_leaves_no_task_and_no_generation():
    done = subprocess.run([sys.executable, str(BENCH / "soak.py"), "--requests", "300", "--rounds", "1"], capture_output=True, text=True)
    first, *_, last = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert (last["tasks"], last["generations"]) == (first["tasks"], 0), done.stdout
    assert last["files"] <= first["files"], done.stdout
    assert sum(last["statuses"].values()) >= 300 and set(last["statuses"]) <= {"200", "400", "404"}, done.stdout
