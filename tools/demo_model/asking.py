"""A talk with a server of the project, over HTTP: media as data URIs, answers as text."""

from __future__ import annotations

import base64
import io
import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from demo_model import speech

Shown = str | Image.Image | np.ndarray
"""Text, a picture, or 16-bit samples at 16 kHz."""


@dataclass(frozen=True)
class Case:
    """What is asked, and the one answer that is right; `system` and `before` (asked, answered) come first."""

    group: str
    parts: tuple[Shown, ...]
    wanted: str
    model: str = "gemma-3n"
    options: tuple[tuple[str, str], ...] = ()
    system: str = ""
    before: tuple[tuple[tuple[Shown, ...], str], ...] = ()

    def body(self) -> dict[str, Any]:
        """The request."""
        messages: list[dict[str, Any]] = [{"role": "system", "content": self.system}] if self.system else []
        for parts, answer in self.before:
            messages += [{"role": "user", "content": [_content(part) for part in parts]}, {"role": "assistant", "content": answer}]
        messages.append({"role": "user", "content": [_content(part) for part in self.parts]})
        fields = {"program_options": dict(self.options)} if self.options else {}
        return {"model": self.model, "messages": messages, "temperature": 0, "max_tokens": 200, **fields}


def answer(url: str, case: Case) -> str:
    """What the server at `url` says; of an error its text."""
    request = urllib.request.Request(f"{url}/v1/chat/completions", json.dumps(case.body()).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return str(json.load(response)["choices"][0]["message"]["content"] or "").strip()
    except urllib.error.HTTPError as error:
        return f"[{error.code}] {error.read().decode()[:200]}"
    except TimeoutError:
        return "[no answer in two minutes]"


def _content(part: Shown) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    if isinstance(part, Image.Image):
        data = io.BytesIO()
        part.save(data, "PNG")
        return {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{base64.b64encode(data.getvalue()).decode()}"}}
    return {"type": "input_audio", "input_audio": {"data": base64.b64encode(speech.wav(part)).decode(), "format": "wav"}}
