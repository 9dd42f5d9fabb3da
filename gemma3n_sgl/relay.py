"""One generation as text: what is new in each event of the engine's, safe to show."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gemma3n_sgl.bridge import wait
from gemma3n_sgl.errors import EngineError
from gemma3n_sgl.holdback import Holdback
from gemma3n_sgl.transport import NONSENSE, EngineClient, check_finish


def relay(client: EngineClient, payload: dict[str, Any], stops: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run one generation and yield (text, meta_info) as it comes; the last has `finish_reason`. Closing it ends the generation.

    Copes with cumulative and incremental streams. Control tokens in the text are neutralised, and it ends before the first of `stops`,
    which must be in the payload's own `stop` too, with `no_stop_trim`.
    """
    stream, safe, cut = client.stream(payload), Holdback(stops), _Cut()
    try:
        wait(stream.open())
        meta: dict[str, Any] = {}
        while batch := wait(stream.next()):
            chunk, meta = cut.news(batch)
            if text := safe.feed(chunk):
                yield text, meta
        check_finish(meta)
        yield safe.flush(), meta
    finally:
        stream.close()


class _Cut:
    """Which part of each event is new. The engine sends the text so far, or only what is new with `--incremental-streaming-output`;
    from the second event on the number of its token ids tells which."""

    def __init__(self) -> None:
        self._incremental: bool | None = None
        self._first = ""
        self._tokens = 0
        self._length = 0

    def news(self, events: list[dict[str, Any]]) -> tuple[str, dict[str, Any]]:
        """The new text of all `events`, and the last one's meta_info."""
        try:
            if self._incremental is False:
                events = events[-1:]
            return "".join([self._new(event) for event in events]), events[-1]["meta_info"]
        except (KeyError, TypeError, AttributeError):
            raise EngineError(NONSENSE) from None

    def _new(self, event: dict[str, Any]) -> str:
        text: str = event["text"]
        if self._incremental is None and self._tokens:
            ids = event.get("output_ids")
            total = event["meta_info"]["completion_tokens"]
            self._incremental = not text.startswith(self._first) if ids is None else len(ids) < total
        if self._incremental:
            return text
        if not self._tokens:
            self._first, self._tokens = text, event["meta_info"]["completion_tokens"]
        new, self._length = text[self._length :], max(self._length, len(text))
        return new
