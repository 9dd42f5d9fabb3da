"""LangChain's suite finds nothing, but for what a small model does not know."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from langchain_suite import OUT_OF_REACH, PICTURE, Suite
from serving import Served, serving

from gemma3n_sgl.settings import Settings

pytestmark = pytest.mark.engine


async def picture(url: str) -> bytes:
    return PICTURE


@pytest.fixture(scope="module")
def real(engine: str) -> Iterator[Served]:
    with serving(Settings(runtime_url=engine), fetch=picture) as served:
        yield served


@pytest.fixture(scope="module")
def small(engine: str) -> bool:
    """Whether it is the demo checkpoint that is served; a real one knows more."""
    return "demo" in httpx.get(f"{engine}/model_info").json()["served_model_name"]


class TestLangChain(Suite):
    @pytest.fixture(autouse=True)
    def _where(self, real: Served, small: bool, request: pytest.FixtureRequest) -> None:
        self.base_url = real.base_url
        if small and (reason := OUT_OF_REACH.get(request.node.originalname)):
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
