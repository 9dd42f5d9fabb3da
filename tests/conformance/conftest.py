"""What suites of others need to be collected without the plugins that come along with them."""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    for mark in ("benchmark", "vcr"):
        config.addinivalue_line("markers", f"{mark}: langchain-tests', of a plugin that is left out here")
