"""What was heard in a recording, in order, and the telling of it while the rest is still being heard."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from sglang.lang.interpreter import ProgramState

from gemma3n_sgl.errors import EngineUnavailable, Gemma3nError
from gemma3n_sgl.events import Segment
from gemma3n_sgl.executor import ANSWER, tell_segment, tell_text
from gemma3n_sgl.joining import Joiner, go_on
from gemma3n_sgl.media import Clip, Damage
from gemma3n_sgl.subtitles import clock

DAMAGED = "The sound is damaged here."
"""Why a stretch could not be decoded; no second try hears it."""

GIVES_UP = 8
"""Clips on which the engine fails, with none heard before them, until the others are left."""


class Transcript:
    """Takes the clips of a recording in order, each piece by piece; `s` is told of text (if it is the `answer`) and of segments.

    What could not be heard is told once something could: an engine that fails on everything fails the run, and nothing is told before.
    """

    def __init__(self, s: ProgramState, name: str, as_text: Callable[[Segment], str] | None) -> None:
        self._s, self._as_text = s, as_text
        self._streams = name == ANSWER and not getattr(s.stream_executor, "is_fork", False)
        self._joiner = Joiner(self._tell if as_text is None else lambda text: None)
        self._told: list[str] = []
        self._unheard: list[tuple[Clip | Damage, Gemma3nError | None]] = []
        self._errors: dict[float, str] = {}
        self._open: Clip | None = None
        self.has_heard = False
        self.segments: list[Segment] = []

    def add(self, clip: Clip, text: str) -> None:
        """A piece of what is said in the clip whose turn it is."""
        if self._open is not clip:
            self._tell_unheard()
            self._open, self.has_heard = clip, True
            self._joiner.begin(repeats=clip.repeats, runs_on=clip.runs_on, done=partial(self._segment, clip.start, clip.end))
        self._joiner.add(text)

    def end(self, clip: Clip, text: str, told: str) -> None:
        """All that is said in the clip is `text`, of which `told` was added."""
        self.add(clip, go_on(told, text))
        self._joiner.end()

    def fail(self, clip: Clip, error: Gemma3nError) -> None:
        """The clip could not be heard, or not to its end. Raises the error where nothing will be."""
        if isinstance(error, EngineUnavailable) or (not self.has_heard and len(self._unheard) >= GIVES_UP - 1):
            raise error
        if self._open is clip:
            self._errors[clip.start] = error.message
            self._joiner.fail(_instead(clip))
        else:
            self._miss(clip, error)

    def miss(self, damage: Damage) -> None:
        """A stretch that could not be decoded."""
        self._miss(damage, None)

    def close(self) -> str:
        """The whole text. Raises the engine's error if nothing could be heard for its sake."""
        errors = [error for _, error in self._unheard if error is not None]
        if errors and not self.has_heard:
            raise errors[0]
        self._tell_unheard()
        self._joiner.close()
        return "".join(self._told)

    def let_go(self) -> None:
        """Be gone with the run: in a circle with its joiner or an error this would keep the recording until the garbage collector comes round."""
        del self._joiner, self._unheard

    def _miss(self, span: Clip | Damage, error: Gemma3nError | None) -> None:
        self._joiner.close()
        self._unheard.append((span, error))
        if self.has_heard:
            self._tell_unheard()

    def _tell_unheard(self) -> None:
        for span, error in self._unheard:
            self._errors[span.start] = DAMAGED if error is None else error.message
            self._joiner.begin(repeats=False, runs_on=False, done=partial(self._segment, span.start, span.end))
            self._joiner.add(_instead(span))
            self._joiner.end()
        self._unheard.clear()

    def _segment(self, start: float, end: float, text: str) -> None:
        if not text:
            return
        segment = Segment(start, end, text, self._errors.pop(start, None))
        self.segments.append(segment)
        tell_segment(self._s, segment)
        if self._as_text is not None:
            self._tell(self._as_text(segment))

    def _tell(self, text: str) -> None:
        self._told.append(text)
        if self._streams:
            tell_text(self._s, text)


def _instead(span: Clip | Damage) -> str:
    return f"[{clock(span.start)}–{clock(span.end)} could not be heard]"
