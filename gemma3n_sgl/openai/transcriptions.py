"""`/v1/audio/transcriptions` and `/v1/audio/translations`: the fields of the form, and what is heard as JSON, text or subtitles."""

from __future__ import annotations

import zlib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gemma3n_sgl.errors import Gemma3nError, InvalidValue
from gemma3n_sgl.events import Delta, Done, Event, Segment, Usage
from gemma3n_sgl.openai.requests import invalid
from gemma3n_sgl.openai.writing import error_object, frame
from gemma3n_sgl.subtitles import srt, vtt

LANGUAGES = {
    "ar": "Arabic", "bg": "Bulgarian", "ca": "Catalan", "cs": "Czech", "da": "Danish", "de": "German", "el": "Greek", "en": "English",
    "es": "Spanish", "et": "Estonian", "fa": "Persian", "fi": "Finnish", "fr": "French", "he": "Hebrew", "hi": "Hindi", "hr": "Croatian",
    "hu": "Hungarian", "id": "Indonesian", "it": "Italian", "ja": "Japanese", "ko": "Korean", "lt": "Lithuanian", "lv": "Latvian",
    "ms": "Malay", "nl": "Dutch", "no": "Norwegian", "pl": "Polish", "pt": "Portuguese", "ro": "Romanian", "ru": "Russian",
    "sk": "Slovak", "sl": "Slovenian", "sr": "Serbian", "sv": "Swedish", "ta": "Tamil", "te": "Telugu", "th": "Thai", "tr": "Turkish",
    "uk": "Ukrainian", "ur": "Urdu", "vi": "Vietnamese", "zh": "Chinese",
}
"""ISO 639-1, as Whisper's clients send it, and the name by which a model is asked. Any other word is taken for a name."""

FORMATS = Literal["json", "text", "srt", "vtt", "verbose_json"]
_TIMED = ("srt", "vtt", "verbose_json")
_TAKEN = {"include[]", "include", "chunking_strategy", "user"}
_MEDIA_TYPES = {"text": "text/plain; charset=utf-8", "srt": "application/x-subrip; charset=utf-8", "vtt": "text/vtt; charset=utf-8"}


class SpeechRequest(BaseModel):
    """The fields beside the file."""

    model_config = ConfigDict(extra="forbid")

    model: str
    language: str = ""
    prompt: str = ""
    response_format: FORMATS = "json"
    temperature: Annotated[float, Field(ge=0, le=1)] | None = None
    stream: bool = False
    timestamp_granularities: list[str] = Field(default_factory=list)

    @classmethod
    def of(cls, fields: dict[str, list[str]]) -> SpeechRequest:
        """From the form's fields. Raises InvalidValue with the field as `param`."""
        granularities = [value for name in ("timestamp_granularities[]", "timestamp_granularities") for value in fields.pop(name, [])]
        given: dict[str, Any] = {name: values[-1] for name, values in fields.items() if name not in _TAKEN}
        try:
            request = cls.model_validate(given | {"timestamp_granularities": granularities})
        except ValidationError as error:
            told = invalid(error)
            if error.errors()[0]["type"] == "extra_forbidden":
                told = InvalidValue(f"`{told.param}` is not supported here. Leave it out.", param=told.param)
            raise told from None
        request._check()
        return request

    def _check(self) -> None:
        if "word" in self.timestamp_granularities:
            raise InvalidValue(
                "Gemma 3n tells no times of words; `segment` is what there is.", param="timestamp_granularities"
            )
        if others := set(self.timestamp_granularities) - {"segment"}:
            raise InvalidValue(f"`timestamp_granularities` is segment, not {min(others)!r}.", param="timestamp_granularities")
        if self.timestamp_granularities and self.response_format != "verbose_json":
            raise InvalidValue("`timestamp_granularities` needs `response_format`: verbose_json.", param="timestamp_granularities")
        if self.stream and self.response_format in _TIMED:
            raise InvalidValue(f"A stream is of json or text, not of {self.response_format}. Leave `stream` out.", param="stream")

    @property
    def spoken(self) -> str:
        """The language's name."""
        return LANGUAGES.get(self.language.lower(), self.language)

    @property
    def timed(self) -> bool:
        """Whether times are asked for."""
        return self.response_format in _TIMED

    @property
    def media_type(self) -> str:
        return _MEDIA_TYPES.get(self.response_format, "application/json")


class Heard:
    """What was heard, on its way out. `task` is transcribe or translate."""

    def __init__(self, asked: SpeechRequest, task: str) -> None:
        self._asked, self._task = asked, task

    def field(self, name: str) -> str:
        return "file" if name.startswith("messages") else name

    def whole(self, runs: list[list[Event]]) -> dict[str, Any] | str:
        done = runs[0][-1]
        assert isinstance(done, Done)
        text, segments = done.answer.strip(), list(done.segments)
        if self._asked.response_format == "text":
            return text + "\n"
        if self._asked.response_format == "srt":
            return srt(segments)
        if self._asked.response_format == "vtt":
            return vtt(segments)
        if self._asked.response_format == "json":
            return {"text": text, "usage": _usage(done.usage)}
        return {
            "task": self._task,
            "language": self._asked.spoken.lower() or "unknown",
            "duration": round(done.seconds, 3),
            "text": text,
            "segments": [self._segment(i, segment) for i, segment in enumerate(segments)],
            "usage": {"type": "duration", "seconds": round(done.seconds)},
        }

    def _segment(self, index: int, segment: Segment) -> dict[str, Any]:
        """Whisper's fields. What Gemma 3n does not tell has the value of a certain hearing, so that filters let it pass."""
        said = segment.text.encode()
        unknown = {"seek": 0, "tokens": [], "temperature": self._asked.temperature or 0.0, "avg_logprob": 0.0, "no_speech_prob": 0.0}
        measured = {"id": index, "start": round(segment.start, 2), "end": round(segment.end, 2), "text": segment.text}
        measured["compression_ratio"] = round(len(said) / len(zlib.compress(said)), 3)
        return measured | unknown | ({"error": segment.error} if segment.error else {})

    def begin(self, count: int) -> bytes:
        return b""

    def piece(self, index: int, event: Event) -> bytes:
        if isinstance(event, Delta):
            return frame({"type": "transcript.text.delta", "delta": event.text})
        if isinstance(event, Done):
            return frame({"type": "transcript.text.done", "text": event.answer, "usage": _usage(event.usage)})
        return b""

    def around(self, index: int) -> tuple[bytes, bytes] | None:
        return None

    def end(self) -> bytes:
        return b""

    def failed(self, error: Gemma3nError) -> bytes:
        return frame(error_object(error))


def _usage(used: Usage) -> dict[str, Any]:
    return {
        "type": "tokens",
        "input_tokens": used.prompt_tokens,
        "input_token_details": {"audio_tokens": used.audio_tokens, "text_tokens": used.prompt_tokens - used.audio_tokens},
        "output_tokens": used.completion_tokens,
        "total_tokens": used.prompt_tokens + used.completion_tokens,
    }
