"""The real engine, serving the demo checkpoint, for the tests that need it (mark them `engine`)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gemma3n_sgl.engine import LocalEngine, Progress, choose, install

VENV = Path(__file__).parent.parent / ".venv-engine"

GIVEN_URL = os.environ.pop("GEMMA3N_TEST_ENGINE_URL", "")
"""An engine that runs already, taken as it is. Taken out of the environment, because the settings refuse a variable they don't know."""


@pytest.fixture(scope="session")
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """The URL of an engine: the one of GEMMA3N_TEST_ENGINE_URL, else our own, on a free port; installed first where it is not."""
    if GIVEN_URL:
        yield GIVEN_URL.rstrip("/")
        return
    choice, progress = choose("cpu"), Progress()
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with ExitStack() as stack:
        with capture.global_and_fixture_disabled():  # minutes at worst, which nobody should spend in the dark
            install(choice.device, VENV, progress=progress)
            running = stack.enter_context(LocalEngine(choice, venv=VENV, port=0, progress=progress))
        yield running.url
