"""LangChain's suite against SGLang's own server and ours: run by `side_by_side.py`, not with the tests."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from langchain_suite import PICTURE, Suite
from serving import Served, serving

from gemma3n_sgl.settings import Settings


@pytest.fixture(scope="module")
def ours(engine: str) -> Iterator[Served]:
    async def picture(url: str) -> bytes:
        return PICTURE

    with serving(Settings(runtime_url=engine), fetch=picture) as served:
        yield served


@pytest.fixture(scope="module")
def engine_name(engine: str) -> str:
    return httpx.get(f"{engine}/model_info").json()["served_model_name"]


class TestSGLang(Suite):
    patience = 30
    supports_image_urls = False  # where the suite runs, it would have no network to fetch one

    @pytest.fixture(autouse=True)
    def _where(self, engine: str, engine_name: str) -> None:
        self.base_url, self.model_name, self.model_override_value = f"{engine}/v1", engine_name, engine_name


class TestOurs(Suite):
    patience = 30

    @pytest.fixture(autouse=True)
    def _where(self, ours: Served) -> None:
        self.base_url = ours.base_url
