"""One generation as text: what is new in each event of the engine's, safe to show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from gemma3n_sgl.bridge import wait
from gemma3n_sgl.errors import EngineError
from gemma3n_sgl.events import Token
from gemma3n_sgl.generated import Cut, whole
from gemma3n_sgl.holdback import ZERO_WIDTH_SPACE, Holdback
from gemma3n_sgl.refusals import NONSENSE, check_finish
from gemma3n_sgl.transport import EngineClient


def relay(
    client: EngineClient, payload: dict[str, Any], stops: tuple[str, ...] = (), tokens: TokenLog | None = None, ear: Ear | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Run one generation and yield (text, meta_info) as it comes; the last alone has a `meta_info`. Closing it ends the generation.

    Copes with cumulative and incremental streams. Control tokens in the text are neutralised, and it ends before the first of `stops`,
    which must be in the payload's own `stop` too, with `no_stop_trim`. `tokens` takes the tokens' log probabilities. What `ear` hears is not
    yielded.
    """
    stream, safe, cut = client.stream(payload), Holdback(stops), Cut()
    try:
        wait(stream.open())
        if ear is not None:
            stream.take_at_once(_Hearing(cut, safe, ear).take)
        while events := wait(stream.next()):
            text = safe.feed(cut.news(events))
            if tokens is not None:
                tokens.add(events)
            if text:
                yield text, {}
        meta = cut.meta
        check_finish(meta)
        stream.release()
        yield safe.flush(), meta
    finally:
        stream.close()


Straight = Callable[[str], bool]
"""Takes a piece of text where that need not wait, and says whether it did."""


@dataclass(frozen=True, slots=True)
class Ear:
    """Takes text where it arrives, past the program that waits for all of it: no greenlet has to wake for a token.

    All of it is `said`, once `straight` has taken it (None: nobody is told); what that does not take is the program's.
    """

    said: list[str]
    straight: Straight | None = None


class _Hearing:
    """What an ear hears of one generation."""

    __slots__ = ("_cut", "_safe", "_said", "_straight")

    def __init__(self, cut: Cut, safe: Holdback, ear: Ear) -> None:
        self._cut, self._safe, self._said, self._straight = cut, safe, ear.said, ear.straight

    def take(self, events: list[bytes]) -> bool:
        """Whether these were heard. If not, it is as if they had not come."""
        text = self._cut.plain(events)
        if text is None:
            return False
        if text and not (self._tell(text) if self._safe.passes(text) else self._safe.offer(text, self._tell)):
            return False
        self._cut.taken(events, text)
        return True

    def _tell(self, text: str) -> bool:
        if self._straight is not None and not self._straight(text):
            return False
        self._said.append(text)
        return True


class TokenLog:
    """The tokens of one generation with their log probabilities, handed out as their text is told.

    `top` is how many of the likeliest are wanted beside each. The lists of an event hold all tokens so far or only the new ones,
    as its text does; their number so far stands beside them.
    """

    def __init__(self, top: int) -> None:
        self.top = top
        self._tokens: list[Token] = []
        self._seen = self._handed = self._told = self._covered = 0

    def add(self, events: list[bytes]) -> None:
        try:
            for event in map(whole, events):
                meta = event["meta_info"]
                entries, tops = meta["output_token_logprobs"], meta.get("output_top_logprobs") or []
                new = int(meta.get("output_token_logprobs_length", len(entries))) - self._seen
                self._seen += new
                first = len(entries) - new
                matched = (meta["finish_reason"] or {}).get("matched")
                for i in range(first, len(entries)):
                    logprob, token_id, text = entries[i]
                    if i + 1 < len(entries) or token_id != matched:  # what ends the turn is no part of the answer
                        top = tuple((str(t), _number(p)) for p, _, t in tops[i]) if i < len(tops) and tops[i] else ()
                        self._tokens.append(Token(str(text), _number(logprob), top))
        except (AttributeError, KeyError, TypeError, ValueError, IndexError):
            raise EngineError(NONSENSE) from None

    def told(self, text: str) -> tuple[Token, ...]:
        """The tokens that begin within all text told so far, `text` being the newest of it."""
        self._told += len(text.replace(ZERO_WIDTH_SPACE, ""))
        begin = self._handed
        while self._handed < len(self._tokens) and self._covered < self._told:
            self._covered += len(self._tokens[self._handed].text.replace(ZERO_WIDTH_SPACE, ""))
            self._handed += 1
        return tuple(self._tokens[begin : self._handed])

    def rest(self, meta: dict[str, Any]) -> tuple[Token, ...]:
        """At the end of the generation, `meta` being its last: the tokens still left, unless a stop string cut them off."""
        stopped = isinstance((meta.get("finish_reason") or {}).get("matched"), str)
        return () if stopped else tuple(self._tokens[self._handed :])


def _number(value: Any) -> float | None:
    if value is not None and not isinstance(value, int | float):
        raise TypeError
    return value
