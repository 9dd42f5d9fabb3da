"""Fixtures every test may ask for, and coroutines as tests."""

from __future__ import annotations

import inspect
import signal
from importlib.util import find_spec
from typing import Any

import hypothesis
import pytest
from scripted_engine import scripted
from serving import served

__all__ = ["anyio_backend", "scripted", "served"]

hypothesis.settings.register_profile("brief", hypothesis.settings.get_profile("ci"), max_examples=15)

if find_spec("real_engine"):
    from real_engine import engine

    __all__ += ["engine"]

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell without job control starts its background jobs deaf to Ctrl-C, and all they start stays so.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.hookimpl(tryfirst=True)
def pytest_pycollect_makeitem(name: str, obj: Any) -> None:
    """`async def test_…` runs on an event loop, without a mark on each."""
    if name.startswith("test") and inspect.iscoroutinefunction(obj):
        pytest.mark.anyio(obj)
