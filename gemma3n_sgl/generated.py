"""What an engine says of a generation, event by event: read as far as each token needs it, and wholly where all of it counts."""

from __future__ import annotations

from typing import Any

import msgspec

from gemma3n_sgl.errors import EngineError
from gemma3n_sgl.refusals import NONSENSE, check_finish, parsed, told


class Measures(msgspec.Struct):
    """Of its `meta_info`, what is looked at in every event."""

    completion_tokens: int
    finish_reason: Any = None


class Brief(msgspec.Struct):
    """One event as far as each token needs it. What else it holds is passed over: the ids of all tokens so far, above all."""

    text: str
    meta_info: Measures


_TEXT, _IDS, _META = b'{"text":', b'"output_ids":', b'"meta_info":'
_brief = msgspec.json.Decoder(Brief)


def brief(event: bytes) -> Brief:
    """Raises what the event says against the generation, and EngineError where it is none."""
    try:
        return _brief.decode(event)
    except (msgspec.DecodeError, UnicodeDecodeError):
        whole(event)
        raise EngineError(NONSENSE) from None


def whole(event: bytes) -> dict[str, Any]:
    """All of an event. Raises what it says against the generation, and EngineError where it is no JSON object."""
    value: dict[str, Any] = parsed(event)
    if "error" in value:
        raise told(value["error"])
    return value


class Cut:
    """Which part of each event is new. The engine sends the text so far, or only what is new with `--incremental-streaming-output`;
    from the second event on the number of its token ids tells which."""

    __slots__ = ("_end", "_first", "_ids", "_incremental", "_last", "_length", "_tokens")

    def __init__(self) -> None:
        self._incremental: bool | None = None
        self._first = ""
        self._tokens = self._length = self._ids = 0
        self._last = b"{}"
        self._end: dict[str, Any] | None = None

    def news(self, events: list[bytes]) -> str:
        """The new text of all `events`."""
        self._last = events[-1]
        return "".join([self._new(event, brief(event)) for event in self._counting(events)])

    def plain(self, events: list[bytes]) -> str | None:
        """`news`, where there is no more to them than text, else None. They count once they are `taken`."""
        if self._incremental is None:
            return None
        try:
            last = _brief.decode(events[-1] if self._incremental else self._without_ids(events[-1]))
            if last.meta_info.finish_reason:
                return None
            if not self._incremental:
                return last.text[self._length :]
            return last.text if len(events) == 1 else "".join([_brief.decode(event).text for event in events])
        except (msgspec.DecodeError, UnicodeDecodeError):  # told by `news`, to whoever waits
            return None

    def taken(self, events: list[bytes], text: str) -> None:
        """`events` were taken as the plain `text`."""
        self._last = events[-1]
        self._length += len(text)

    @property
    def meta(self) -> dict[str, Any]:
        """The `meta_info` of the last event, {} before the first."""
        meta = whole(self._last).get("meta_info", {}) if self._end is None else self._end
        if not isinstance(meta, dict):
            raise EngineError(NONSENSE)
        return meta

    def _without_ids(self, event: bytes) -> bytes:
        """A cumulative event without the ids of all tokens so far, which would take four times as long to be read past as all else.

        Both keys are ended by a colon, so neither is found within a text. Where they come in another order, nothing is left out.
        """
        ids, meta = event.find(_IDS, self._ids), event.rfind(_META)
        if not 0 < ids < meta or not event.startswith(_TEXT):
            return event
        self._ids = ids  # further on than this from event to event, as the text before it grows
        return event[:ids] + event[meta:]

    def _counting(self, events: list[bytes]) -> list[bytes]:
        return events[-1:] if self._incremental is False else events

    def _new(self, event: bytes, said: Brief) -> str:
        if said.meta_info.finish_reason:
            self._end = whole(event)["meta_info"]
            check_finish(self._end)  # the text of an abort is no part of the answer: SGLang 0.5.23 puts a token of chance there
        if self._incremental is None and self._tokens:
            ids = whole(event).get("output_ids")
            self._incremental = len(ids) < said.meta_info.completion_tokens if isinstance(ids, list) else not said.text.startswith(self._first)
        if not self._tokens:
            self._first, self._tokens = said.text, said.meta_info.completion_tokens
        return self._told(said.text)

    def _told(self, text: str) -> str:
        if self._incremental:
            return text
        new, self._length = text[self._length :], max(self._length, len(text))
        return new
