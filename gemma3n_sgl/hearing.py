"""The verbs for sound of any length."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import sglang as sgl
from sglang.lang.interpreter import ProgramState

from gemma3n_sgl.bridge import offload
from gemma3n_sgl.conversation import MAX_CLIP_SECONDS, Audio, Conversation, Part, Recording, Turn
from gemma3n_sgl.errors import EngineError, EngineUnavailable, Gemma3nError, Overloaded
from gemma3n_sgl.events import Segment
from gemma3n_sgl.executor import ANSWER, LoopExecutor, tell_segment, tell_text
from gemma3n_sgl.joining import Joiner, go_on
from gemma3n_sgl.language import assistant, user
from gemma3n_sgl.media import Clip, Damage, batches

AT_ONCE = 16
"""Clips of one recording that are heard side by side: enough to keep an engine busy, and some 50 MB at most."""

FAILURES = (EngineError, Overloaded)
"""What may be better at a second try."""

GIVES_UP = 8
"""Clips on which the engine fails, with none heard before them, until the others are left."""

HEARD = "heard"
"""The step in which a clip is heard, where its answer comes of a second question."""


def hear(
    s: ProgramState,
    name: str,
    recording: Recording | Audio,
    prompt: str,
    *,
    then: str = "",
    context: str = "",
    clip_seconds: float = MAX_CLIP_SECONDS,
    as_text: Callable[[Segment], str] | None = None,
) -> list[Segment]:
    """Ask `prompt` about every part of a recording and leave the answers, joined in order, in `s[name]`; they are returned with their times.

    The recording is cut at silences into clips of at most `clip_seconds`, heard side by side in forks of `s` while the rest is still being
    decoded; silence is not heard at all. An `answer` is told as it comes. All is asked greedily, since hearing is not for invention.
    Call it between turns. Each clip costs 188 tokens.

    `context` stands before each clip. With `then`, that is asked about each clip's answer, and what comes of it counts; the first answer is a
    step. `as_text` says how a part stands in `s[name]`, if not as running text.

    A clip on which the engine fails is asked about once more, and then told with its time in place of an answer (`Segment.error`). Raises the
    engine's error if it fails on all, or on the first 8, or is not there to begin with; MediaError where the bytes hold no sound; TooLarge beyond
    the recording's limit. Under SGLang's own `run` an engine's error ends the run, as ever.
    """
    question = _Question(s, name, prompt, then, context)
    account = _Account(s, name, as_text)
    coming = batches(recording, clip_seconds, overlap=not then)
    going: deque[_Hearing | Damage] = deque()
    more: list[Clip | Damage] | None = []
    while going or more is not None:
        if more is not None and len(going) < AT_ONCE and not (going and _is_over(going[0])):
            more = offload(next, coming, None)
            going.extend(_Hearing(question, part) if isinstance(part, Clip) else part for part in more or ())
            account.listen_to(going)
        else:
            account.settle(going.popleft())
            account.listen_to(going)
    s[name] = account.close()
    return account.segments


def written(s: ProgramState, conversation: Conversation) -> Conversation:
    """The talk with every recording that is too long for a prompt replaced by what is said in it; clips stay sound."""
    count = 0

    def put(part: Part) -> Part:
        nonlocal count
        if not isinstance(part, Recording):
            return part
        count += 1
        hear(s, f"transcript_{count}", part, "Transcribe this audio.")
        return f'What is said in the recording: "{s[f"transcript_{count}"]}"\n'

    return replace(conversation, turns=tuple(Turn(turn.role, tuple(map(put, turn.parts))) for turn in conversation.turns))


@dataclass(frozen=True)
class _Question:
    """What is asked about every clip."""

    s: ProgramState
    name: str
    prompt: str
    then: str
    context: str

    def fork(self, clip: Clip) -> ProgramState:
        fork = self.s.fork(1)[0]
        fork += user(self.context, clip.sound, self.prompt)
        fork += assistant(sgl.gen(HEARD if self.then else self.name, temperature=0))
        if self.then:
            fork += user(self.then)
            fork += assistant(sgl.gen(self.name, temperature=0))
        return fork


class _Hearing:
    """One clip on its way through the engine. `listener` gets the answer piece by piece from when it is set."""

    def __init__(self, question: _Question, clip: Clip) -> None:
        self.clip = clip
        self.listener: Callable[[str], None] | None = None
        self.told = ""
        self._question = question
        self._waiting = ""
        self._again = False
        self._fork = question.fork(clip)
        self._listen(self._got)

    def is_over(self) -> bool:
        return bool(self._fork.stream_executor.variable_event[self._question.name].is_set())

    def listen(self, listener: Callable[[str], None]) -> None:
        self.listener = listener
        self._pass_on()

    def look_after(self) -> None:
        """Ask a second time, if the engine has failed on the first."""
        if not self._again and isinstance(self._fork.stream_executor.error_, FAILURES):
            self._ask_again()

    def text(self) -> str:
        """The whole answer. Raises the engine's error, if it fails a second time."""
        try:
            text = str(self._fork[self._question.name])
        except FAILURES:
            if self._again:
                self._let_go()
                raise
        else:
            self._let_go()
            return text
        self._ask_again()
        return self.text()

    def _ask_again(self) -> None:
        self._let_go()
        self._again = True
        self._fork = self._question.fork(self.clip)
        if not self.told:  # else what is new in it shows when it is whole
            self._waiting = ""
            self._listen(self._got)

    def _listen(self, ear: Callable[[str], None] | None) -> None:
        executor = self._fork.stream_executor
        if isinstance(executor, LoopExecutor):
            executor.on_delta = ear

    def _got(self, piece: str) -> None:
        if self._question.then and HEARD not in self._fork.stream_executor.variables:
            return
        self._waiting += piece
        self._pass_on()

    def _pass_on(self) -> None:
        if self.listener is not None and self._waiting:
            self.told, piece, self._waiting = self.told + self._waiting, self._waiting, ""
            self.listener(piece)

    def _let_go(self) -> None:
        """Forget the fork, which holds the clip several times over."""
        self._listen(None)
        self._fork.stream_executor.end()
        parent = self._question.s.stream_executor
        if isinstance(parent, LoopExecutor):
            parent.forks.remove(self._fork.stream_executor)


def _is_over(part: _Hearing | Damage) -> bool:
    return isinstance(part, Damage) or part.is_over()


class _Account:
    """What was heard, in order, and the telling of it. What could not be heard is told once something could."""

    def __init__(self, s: ProgramState, name: str, as_text: Callable[[Segment], str] | None) -> None:
        self._s, self._as_text = s, as_text
        self._streams = name == ANSWER and not getattr(s.stream_executor, "is_fork", False)
        self._joiner = Joiner(self._tell if as_text is None else lambda text: None)
        self._told: list[str] = []
        self._unheard: list[tuple[Damage, Gemma3nError | None]] = []
        self._errors: dict[float, str] = {}
        self._open: Clip | None = None
        self._heard = False
        self.segments: list[Segment] = []

    def listen_to(self, going: deque[_Hearing | Damage]) -> None:
        """It is the first one's turn; the others are looked after."""
        for part in going:
            if isinstance(part, _Hearing):
                part.look_after()
        if going and isinstance(first := going[0], _Hearing) and first.listener is None:
            first.listen(lambda piece: self._add(first.clip, piece))

    def settle(self, part: _Hearing | Damage) -> None:
        """Wait for the part whose turn it is, and tell what is left of it."""
        if isinstance(part, Damage):
            self._unheard.append((part, None))
        else:
            self._settle(part)
        if self._heard:
            self._tell_unheard()

    def _settle(self, part: _Hearing) -> None:
        clip = part.clip
        try:
            text = part.text()
        except FAILURES as error:
            if not self._heard and (isinstance(error, EngineUnavailable) or len(self._unheard) >= GIVES_UP - 1):
                raise
            if self._open is clip:
                self._errors[clip.start] = error.message
                self._joiner.fail(_unheard(clip))
            else:
                self._unheard.append((Damage(clip.start, clip.end), error))
                self._joiner.close()
        else:
            self._add(clip, go_on(part.told, text))
            self._joiner.end()
        self._open = None

    def close(self) -> str:
        """The whole text. Raises the engine's error if nothing could be heard for its sake."""
        errors = [error for _, error in self._unheard if error is not None]
        if errors and not self._heard:
            raise errors[0]
        self._tell_unheard()
        self._joiner.close()
        return "".join(self._told)

    def _add(self, clip: Clip, text: str) -> None:
        if self._open is not clip:
            self._tell_unheard()
            self._open, self._heard = clip, True
            self._joiner.begin(repeats=clip.repeats, runs_on=clip.runs_on, done=partial(self._segment, clip.start, clip.end))
        self._joiner.add(text)

    def _tell_unheard(self) -> None:
        for span, error in self._unheard:
            self._errors[span.start] = "The sound is damaged here." if error is None else error.message
            self._joiner.begin(repeats=False, runs_on=False, done=partial(self._segment, span.start, span.end))
            self._joiner.add(_unheard(span))
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


def _unheard(span: Clip | Damage) -> str:
    return f"[{clock(span.start)}–{clock(span.end)} could not be heard]"


def clock(seconds: float) -> str:
    """A time in a recording, as players show it: 0:58, 1:02:03."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
