"""What suites of others need: their marks and fixtures without the plugins that come along, and one event loop for all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

LEFT_OUT_BY = {
    "test_langchain.py": "not engine",
    "test_langchain_knowing.py": "not slow",
    "test_specification.py": "not slow",
}
"""Files that take seconds to import, and the choice of tests that has none of theirs."""


def pytest_configure(config: pytest.Config) -> None:
    for mark in ("benchmark", "vcr"):
        config.addinivalue_line("markers", f"{mark}: langchain-tests', of a plugin that is left out here")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    choice = LEFT_OUT_BY.get(collection_path.name)
    return True if choice is not None and choice in config.getoption("markexpr") else None


@pytest.fixture(scope="session")
async def one_loop(anyio_backend: str) -> AsyncIterator[None]:
    """A client that keeps its connections from test to test needs the loop they belong to."""
    yield  # noqa: PT022 - the loop is there as long as this is


@pytest.fixture
def benchmark() -> None:
    """For a test that is skipped."""


@pytest.fixture
def vcr() -> None:
    """For a test that is skipped."""
