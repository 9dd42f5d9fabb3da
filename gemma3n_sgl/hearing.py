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
from gemma3n_sgl.errors import EngineError, Overloaded
from gemma3n_sgl.events import Segment
from gemma3n_sgl.executor import LoopExecutor, grant
from gemma3n_sgl.language import assistant, user
from gemma3n_sgl.media import Clip, Damage, batches
from gemma3n_sgl.transcript import Transcript

AT_ONCE = 16
"""Clips of one recording that are heard side by side: enough to keep an engine busy, and some 50 MB at most."""

FAILURES = (EngineError, Overloaded)
"""What may be better at a second try."""

MAX_TOKENS = 1024
"""Most tokens of an answer about one clip, several times what can be said in one: no clip holds the rest up by repeating itself
without end, and the engine, which sets room aside for the longest answer, takes more clips at once."""

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
    max_tokens: int = MAX_TOKENS,
    as_text: Callable[[Segment], str] | None = None,
) -> list[Segment]:
    """Ask `prompt` about every part of a recording and leave the answers, joined in order, in `s[name]`; they are returned with their times.

    The recording is cut at silences into clips of at most `clip_seconds`, heard side by side in forks of `s` while the rest is still being
    decoded; silence is not heard at all. An `answer` is told as it comes. All is asked greedily, since hearing is not for invention.
    Call it between turns. Each clip costs 188 tokens, and an answer about it `max_tokens` at most.

    `context` stands before each clip. With `then`, that is asked about each clip's answer, and what comes of it counts; the first answer is a
    step. `as_text` says how a part stands in `s[name]`, if not as running text.

    A clip on which the engine fails is asked about once more, and then told with its time in place of an answer (`Segment.error`). Raises the
    engine's error if it fails on all, or on the first 8, or is not there to begin with; MediaError where the bytes hold no sound; TooLarge beyond
    the recording's limit. Under SGLang's own `run` an engine's error ends the run, as ever.
    """
    question = _Question(s, name, prompt, then, context, max_tokens)
    transcript = Transcript(s, name, as_text)
    coming = batches(recording, clip_seconds, overlap=not then)
    going: deque[_Hearing | Damage] = deque()
    more: list[Clip | Damage] | None = []
    while going or more is not None:
        if more is not None and len(going) < AT_ONCE and not (going and _is_over(going[0])):
            more = offload(next, coming, None)
            going.extend(_Hearing(question, part) if isinstance(part, Clip) else part for part in more or ())
        else:
            _settle(transcript, going.popleft())
        _attend(transcript, going)
    s[name] = transcript.close()
    return transcript.segments


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
    max_tokens: int

    def fork(self, clip: Clip) -> ProgramState:
        grant(self.s, 2 if self.then else 1)
        fork = self.s.fork(1)[0]
        fork += user(self.context, clip.sound, self.prompt)
        fork += assistant(sgl.gen(HEARD if self.then else self.name, temperature=0, max_tokens=self.max_tokens))
        if self.then:
            fork += user(self.then)
            fork += assistant(sgl.gen(self.name, temperature=0, max_tokens=self.max_tokens))
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


def _attend(transcript: Transcript, going: deque[_Hearing | Damage]) -> None:
    """It is the first one's turn; where the engine has failed on another, that is asked about again."""
    for part in going:
        if isinstance(part, _Hearing):
            part.look_after()
    if going and isinstance(first := going[0], _Hearing) and first.listener is None:
        first.listen(partial(transcript.add, first.clip))


def _settle(transcript: Transcript, part: _Hearing | Damage) -> None:
    """Wait for the part whose turn it is, and tell what is left of it."""
    if isinstance(part, Damage):
        transcript.miss(part)
        return
    try:
        text = part.text()
    except FAILURES as error:
        transcript.fail(part.clip, error)
    else:
        transcript.end(part.clip, text, part.told)


def _is_over(part: _Hearing | Damage) -> bool:
    return isinstance(part, Damage) or part.is_over()
