"""One clip of a recording on its way through the engine: asked about, asked again where the engine fails, its answer kept."""

from __future__ import annotations

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, fields
from hashlib import sha256
from typing import Any

import sglang as sgl
from sglang.lang.interpreter import ProgramState

from gemma3n_sgl.errors import EngineError, EngineUnavailable, Overloaded
from gemma3n_sgl.events import Usage
from gemma3n_sgl.executor import ANSWER, LoopExecutor, grant, manner, tell_again
from gemma3n_sgl.language import assistant, user
from gemma3n_sgl.media import Clip

FAILURES = (EngineError, Overloaded)
"""What may be better at a second try."""

HEARD = "heard"
"""The step in which a clip is heard, where its answer comes of a second question."""

_KEPT = {"finish_reason", *(entry.name for entry in fields(Usage))}
"""What is kept of an engine call beside its text."""


@dataclass(frozen=True)
class Question:
    """What is asked about every clip."""

    s: ProgramState
    name: str
    prompt: str
    then: str
    context: str
    max_tokens: int
    memory: MutableMapping[str, Any] | None

    def about(self, clip: Clip) -> Hearing | Recalled:
        """The clip on its way to an answer, or with the one it got before."""
        key = "" if self.memory is None else self._key(clip)
        if self.memory is not None and key in self.memory:
            return Recalled(self, clip, self.memory[key])
        return Hearing(self, clip, key)

    def names(self) -> list[str]:
        """The variables that come of a clip, in order."""
        first = HEARD if self.name != HEARD else f"{HEARD}_first"
        return [first, self.name] if self.then else [self.name]

    def keep(self, key: str, fork: ProgramState) -> None:
        """Write down what a clip was heard as."""
        if self.memory is None or key in self.memory:
            return
        executor = fork.stream_executor
        metas = [executor.meta_info.get(name) or {} for name in self.names()]
        calls = zip(self.names(), metas, strict=True)
        self.memory[key] = [[executor.variables[name], {k: v for k, v in meta.items() if k in _KEPT}] for name, meta in calls]

    def _key(self, clip: Clip) -> str:
        """All that the answer depends on, but for the engine."""
        how = manner(self.s, product=self.name == ANSWER)
        asked = "\0".join((self.s.text(), self.context, self.prompt, self.then, str(self.max_tokens), how))
        return sha256(asked.encode() + b"\0" + clip.sound).hexdigest()

    def fork(self, clip: Clip) -> ProgramState:
        grant(self.s, 2 if self.then else 1)
        fork = self.s.fork(1)[0]
        for name in self.names():
            fork.stream_executor.variables.pop(name, None)  # the program may have made one of that name before
        fork += user(self.context, clip.sound, self.prompt)
        fork += assistant(sgl.gen(self.names()[0], temperature=0, max_tokens=self.max_tokens))
        if self.then:
            fork += user(self.then)
            fork += assistant(sgl.gen(self.name, temperature=0, max_tokens=self.max_tokens))
        return fork


class Hearing:
    """One clip on its way through the engine. `listener` gets the answer piece by piece from when it is set."""

    def __init__(self, question: Question, clip: Clip, key: str) -> None:
        self.clip = clip
        self._key = key
        self.listener: Callable[[str], None] | None = None
        self.told = ""
        self._question = question
        self._waiting = ""
        self._again = False
        self._begin()

    def is_over(self) -> bool:
        return bool(self._fork.stream_executor.variable_event[self._question.name].is_set())

    def is_cut_off(self) -> bool:
        """Whether the engine was gone."""
        return isinstance(self._fork.stream_executor.error_, EngineUnavailable)

    def listen(self, listener: Callable[[str], None]) -> None:
        self.listener = listener
        self._pass_on()

    def look_after(self) -> None:
        """Ask a second time, if the engine has failed on the first, and as often as it was not there."""
        if isinstance(self._fork.stream_executor.error_, FAILURES) and (not self._again or self.is_cut_off()):
            self.ask_again()

    def text(self) -> str:
        """The whole answer. Raises the engine's error, if it fails a second time."""
        try:
            text = str(self._fork[self._question.name])
        except FAILURES:
            if self._again:
                self.let_go()
                raise
        else:
            self._question.keep(self._key, self._fork)
            self.let_go()
            return text
        self.ask_again()
        return self.text()

    def ask_again(self) -> None:
        self.let_go()
        self._again = True
        self._begin()

    def _begin(self) -> None:
        self._fork = self._question.fork(self.clip)
        self._waiting = ""
        if isinstance(executor := self._fork.stream_executor, LoopExecutor):
            executor.on_delta = None if self.told else self._got  # what is new in a second answer shows when it is whole
            executor.on_made = self._made

    def _made(self, name: str) -> None:
        """Keep an answer as soon as it is whole: those before it may take long, and the run be broken off."""
        if name == self._question.name:
            self._question.keep(self._key, self._fork)

    def _got(self, piece: str) -> None:
        if self._question.then and self._question.names()[0] not in self._fork.stream_executor.variables:
            return
        self._waiting += piece
        self._pass_on()

    def _pass_on(self) -> None:
        if self.listener is not None and self._waiting:
            self.told, piece, self._waiting = self.told + self._waiting, self._waiting, ""
            self.listener(piece)

    def let_go(self) -> None:
        """Forget the fork, which holds the clip several times over, and this by its ear."""
        fork, parent = self._fork.stream_executor, self._question.s.stream_executor
        if isinstance(fork, LoopExecutor):
            fork.on_delta = fork.on_made = None
        fork.end()
        if isinstance(parent, LoopExecutor) and fork in parent.forks:
            parent.forks.remove(fork)


@dataclass(frozen=True)
class Recalled:
    """A clip whose answer is known from before, with the engine calls it took: the text and the measures of each."""

    question: Question
    clip: Clip
    calls: list[tuple[str, dict[str, Any]]]

    def text(self) -> str:
        for name, (text, meta) in zip(self.question.names(), self.calls, strict=True):
            tell_again(self.question.s, name, text, meta)
        return self.calls[-1][0]
