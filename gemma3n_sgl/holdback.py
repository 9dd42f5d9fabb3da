"""Generated text on its way out: control tokens made harmless, stop strings cut off, both also where they lie across two chunks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

ZERO_WIDTH_SPACE = "\u200b"

CONTROL_TOKEN = re.compile(
    r"<(?=(?:pad|eos|bos|unk|mask|2mass|unused(?:_vision|_audio)?\d+|(?:start|end)_of_(?:turn|image|audio)|(?:image|audio)_soft_token)>)"
    r"|\[(?=(?:multimodal|toxicity|@BOS@)\])"
)
"""The first character of each text that Gemma 3n's tokenizer reads as one token with a meaning of its own."""

_UNFINISHED = re.compile(r"(?:<[a-z_0-9]{0,20}|\[[a-zA-Z@]{0,11})\Z")
"""A tail that the next chunk may make a control token."""


def neutralise(text: str) -> str:
    """`text` with a zero-width space inside every control token: it reads the same, and means nothing to the model."""
    return CONTROL_TOKEN.sub(lambda found: found[0] + ZERO_WIDTH_SPACE, text)


class Holdback:
    """Feed it chunks as they come; it gives back what is safe to show and keeps what the next chunk may still change.

    The result does not depend on how the text was cut into chunks. After a stop string `stopped` is true and nothing more comes.
    """

    __slots__ = ("_held", "_stops", "stopped")

    def __init__(self, stops: Sequence[str] = ()) -> None:
        self._stops = [stop for stop in stops if stop]
        self._held = ""
        self.stopped = False

    def feed(self, chunk: str) -> str:
        if self.stopped:
            return ""
        if self.passes(chunk):
            return chunk
        text = self._held + chunk
        if (at := self._first_stop(text)) >= 0:
            self.stopped, self._held = True, ""
            return neutralise(text[:at])
        keep = self._unsure(text)
        self._held = text[keep:]
        return neutralise(text[:keep])

    def passes(self, chunk: str) -> bool:
        """Whether it is safe to show as it is, and changes nothing."""
        return not self._held and "<" not in chunk and "[" not in chunk and not self._stops

    def offer(self, chunk: str, take: Callable[[str], bool]) -> bool:
        """Have `take` take what `feed` would give. If it does not, the chunk is as if never fed."""
        before = self._held, self.stopped
        text = self.feed(chunk)
        if text and not take(text):
            self._held, self.stopped = before
            return False
        return True

    def flush(self) -> str:
        """What is left when no more chunks come."""
        text, self._held = self._held, ""
        return neutralise(text)

    def feed_all(self, text: str) -> str:
        """The whole of a text that is complete."""
        return self.feed(text) + self.flush()

    def _first_stop(self, text: str) -> int:
        return min((at for stop in self._stops if (at := text.find(stop)) >= 0), default=-1)

    def _unsure(self, text: str) -> int:
        """Where the tail begins that may grow into a stop string or a control token."""
        unfinished = _UNFINISHED.search(text)
        keep = unfinished.start() if unfinished else len(text)
        for stop in self._stops:
            for length in range(min(len(stop) - 1, len(text)), 0, -1):
                if text.endswith(stop[:length]):
                    keep = min(keep, len(text) - length)
                    break
        return keep
