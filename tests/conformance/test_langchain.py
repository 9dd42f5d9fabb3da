"""LangChain's own suite for chat models, with its client for OpenAI, against our server and the real engine."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests, chat_models
from serving import Served, serving

from gemma3n_sgl.settings import Settings

MEDIA = Path(__file__).parent.parent / "media"
PICTURE, SOUND = MEDIA / "red-circle.png", MEDIA / "314.wav"

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def real(engine: str) -> Iterator[Served]:
    async def fetch(url: str) -> bytes:
        return PICTURE.read_bytes()

    with serving(Settings(runtime_url=engine), fetch=fetch) as served:
        yield served


@pytest.fixture(scope="module", autouse=True)
async def one_loop(anyio_backend: str) -> Any:
    """The client keeps its connections from test to test, so all run on one loop."""
    yield


@pytest.fixture
def benchmark() -> None:
    pass


@pytest.fixture
def vcr() -> None:
    pass


class TestLangChain(ChatModelIntegrationTests):
    base_url = ""

    @pytest.fixture(autouse=True)
    def without_network(self, real: Served, monkeypatch: pytest.MonkeyPatch) -> None:
        """Hands the picture and the sound that two tests would download."""
        self.base_url = real.base_url
        monkeypatch.setattr(chat_models.httpx, "get", lambda url, **_: httpx.Response(200, content=PICTURE.read_bytes()))
        monkeypatch.setattr(chat_models, "_get_base64_from_url", lambda url: base64.b64encode(SOUND.read_bytes()).decode())

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"model": "gemma-3n", "base_url": self.base_url, "api_key": "none", "temperature": 0, "max_retries": 0, "timeout": 60, "stream_usage": True}

    supports_json_mode = True
    supports_image_inputs = True
    supports_image_urls = True
    supports_image_tool_message = True
    supports_audio_inputs = True
    supports_anthropic_inputs = True
    supports_model_override = True
    model_override_value = "gemma-3n:chat"
    supported_usage_metadata_details = {
        "invoke": ["audio_input", "reasoning_output", "cache_read_input"],
        "stream": ["audio_input", "reasoning_output", "cache_read_input"],
    }

    def invoke_with_audio_input(self, *, stream: bool = False) -> AIMessage:
        sound = {"type": "input_audio", "input_audio": {"data": base64.b64encode(SOUND.read_bytes()).decode(), "format": "wav"}}
        return self._asked([HumanMessage([sound, {"type": "text", "text": "Transcribe this audio."}])], stream)

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> AIMessage:
        picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(PICTURE.read_bytes()).decode()}"}}
        return self._asked([HumanMessage([picture, {"type": "text", "text": "What is in this image?"}])], stream, reasoning_effort="low")

    def invoke_with_cache_read_input(self, *, stream: bool = False) -> AIMessage:
        self._asked("Hello", stream)
        return self._asked("Hello", stream)

    def _asked(self, messages: Any, stream: bool, **fields: Any) -> AIMessage:
        model = ChatOpenAI(**self.chat_model_params, **fields)
        if not stream:
            return model.invoke(messages)
        first, *rest = model.stream(messages)
        return sum(rest, start=first)
