"""LangChain's own suite for chat models, with its client for OpenAI; all that Gemma 3n can do is declared as supported."""

from __future__ import annotations

import base64
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, HumanMessage
from langchain_openai import ChatOpenAI
from langchain_tests.integration_tests import ChatModelIntegrationTests, chat_models

MEDIA = Path(__file__).parent.parent / "media"
PICTURE = (MEDIA / "red-circle.png").read_bytes()
SOUND = (MEDIA / "314.wav").read_bytes()

SKIPPED = {
    "test_pdf_inputs": "Gemma 3n reads no PDF",
    "test_pdf_tool_message": "Gemma 3n reads no PDF",
    "test_stream_time": "plays a recorded service back, and measures LangChain",
}
"""Every test of the suite that is not run, and why."""

OUT_OF_REACH = {
    "test_tool_calling": "the arguments have to be those of the question, magic_function(3): the small model writes another number",
    "test_tool_calling_async": "the arguments have to be those of the question, magic_function(3): the small model writes another number",
    "test_json_mode": "the keys are told in the question alone: the small model writes an empty object",
    "test_unicode_tool_call_integration": "a name has to be copied from the question: the small model writes another",
}
"""Every test that asks the model for what the small one does not know; `test_langchain_knowing.py` shows them with an engine that does."""


class Suite(ChatModelIntegrationTests):
    """To be derived from, with `base_url` set before each test."""

    base_url = ""
    model_name = "gemma-3n"
    patience = 60  # seconds for an answer

    @pytest.fixture(autouse=True)
    def _surroundings(self, request: pytest.FixtureRequest, one_loop: None, monkeypatch: pytest.MonkeyPatch) -> None:
        """No network: the picture and the sound that tests would download are handed to them."""
        if reason := SKIPPED.get(request.node.originalname):
            pytest.skip(reason)
        monkeypatch.setattr(chat_models.httpx, "get", lambda url, **_: httpx.Response(200, content=PICTURE))
        monkeypatch.setattr(chat_models, "_get_base64_from_url", lambda url: base64.b64encode(SOUND).decode())

    @property
    def chat_model_class(self) -> type[BaseChatModel]:
        return ChatOpenAI

    @property
    def chat_model_params(self) -> dict[str, Any]:
        params = {"model": self.model_name, "base_url": self.base_url, "api_key": "none"}
        return params | {"temperature": 0, "max_retries": 0, "timeout": self.patience, "stream_usage": True}

    supports_json_mode = True
    supports_image_inputs = True
    supports_image_urls = True
    supports_image_tool_message = True
    supports_audio_inputs = True
    supports_anthropic_inputs = True
    supports_model_override = True
    model_override_value = "gemma-3n:chat"
    supported_usage_metadata_details = {  # noqa: RUF012 - the suite's own form
        "invoke": ["audio_input", "reasoning_output", "cache_read_input"],
        "stream": ["audio_input", "reasoning_output", "cache_read_input"],
    }

    def invoke_with_audio_input(self, *, stream: bool = False) -> AIMessage:
        """New text before the sound, because the suite adds up what is sound and what is cached, and a sound can be both."""
        sound = {"type": "input_audio", "input_audio": {"data": base64.b64encode(SOUND).decode(), "format": "wav"}}
        return self._asked([HumanMessage([{"type": "text", "text": uuid.uuid4().hex}, sound])], stream)

    def invoke_with_reasoning_output(self, *, stream: bool = False) -> AIMessage:
        picture = {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(PICTURE).decode()}"}}
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
