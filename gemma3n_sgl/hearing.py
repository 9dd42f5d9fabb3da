"""The verbs for sound of any length."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from sglang.lang.interpreter import ProgramState

from gemma3n_sgl.asking import FAILURES, Hearing, Question, Recalled
from gemma3n_sgl.bridge import offload, wait
from gemma3n_sgl.conversation import MAX_CLIP_SECONDS, Audio, Conversation, Part, Recording, Turn
from gemma3n_sgl.errors import EngineUnavailable
from gemma3n_sgl.events import Segment
from gemma3n_sgl.executor import grant, tell_length
from gemma3n_sgl.media import Clip, Damage, batches
from gemma3n_sgl.media.cutting import Cutting
from gemma3n_sgl.transcript import Transcript

AT_ONCE = 16
"""Clips of one recording that are heard side by side: enough to keep an engine busy, and some 50 MB at most."""

MAX_TOKENS = 1024
"""Most tokens of an answer about one clip, several times what can be said in one: no clip holds the rest up by repeating itself
without end, and the engine, which sets room aside for the longest answer, takes more clips at once."""


RETURNS = (1, 2, 4, 8, 15, 15, 15)
"""Seconds between looks for an engine that is gone in the midst of a recording: one that starts anew takes half a minute."""

_Part = Hearing | Recalled | Damage


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

    A clip on which the engine fails is asked about once more, and then told with its time in place of an answer (`Segment.error`). An engine that
    is gone in the midst is waited for, a minute. Raises the engine's error if it fails on all, or on the first 8, is not there to begin with, or
    does not come back; MediaError where the bytes hold no sound; TooLarge beyond the recording's limit. Under SGLang's own `run` an engine's error
    ends the run, as ever. What stands in the recording's `memory` is not asked again: with the memory of a run that was broken off, the next one
    goes on from there, and says what the first would have said.
    """
    memory = recording.memory if isinstance(recording, Recording) else None
    question = Question(s, name, prompt, then, context, max_tokens, memory)
    transcript = Transcript(s, name, as_text)
    coming = batches(recording, clip_seconds, overlap=not then)
    going: deque[_Part] = deque()
    try:
        _hear_all(s, question, transcript, coming, going)
        tell_length(s, coming.seconds)
        s[name] = transcript.close()
    finally:
        transcript.let_go()
        for part in going:
            if isinstance(part, Hearing):
                part.let_go()
    return transcript.segments


def written(s: ProgramState, conversation: Conversation) -> Conversation:
    """The talk with every recording that is too long for a prompt replaced by what is said in it; clips stay sound."""
    if not conversation.only(Recording):
        return conversation
    count = 0

    def put(part: Part) -> Part:
        nonlocal count
        if not isinstance(part, Recording):
            return part
        count += 1
        hear(s, f"transcript_{count}", part, "Transcribe this audio.")
        return f'What is said in the recording: "{s[f"transcript_{count}"]}"\n'

    return replace(conversation, turns=tuple(Turn(turn.role, tuple(map(put, turn.parts))) for turn in conversation.turns))


def _hear_all(s: ProgramState, question: Question, transcript: Transcript, coming: Cutting, going: deque[_Part]) -> None:
    """Cut, ask and tell, until nothing is `going` any more."""
    more: list[Clip | Damage] | None = []
    while going or more is not None:
        if more is not None and len(going) < AT_ONCE and not (going and _is_over(going[0])):
            more = offload(next, coming, None)
            grant(s, 0)
            going.extend(question.about(part) if isinstance(part, Clip) else part for part in more or ())
        else:
            _settle(transcript, going[0])
            going.popleft()
        _attend(transcript, going)


def _attend(transcript: Transcript, going: deque[_Part]) -> None:
    """It is the first one's turn; where the engine has failed on another, that is asked about again."""
    for part in going:
        if isinstance(part, Hearing) and not (part is going[0] and part.is_cut_off()):  # that one is waited for
            part.look_after()
    if going and isinstance(first := going[0], Hearing) and first.listener is None:
        first.listen(partial(transcript.add, first.clip))


def _settle(transcript: Transcript, part: _Part) -> None:
    """Wait for the part whose turn it is, and tell what is left of it."""
    if isinstance(part, Damage):
        transcript.miss(part)
        return
    try:
        text = part.text() if isinstance(part, Recalled) else _answer(transcript, part)
    except FAILURES as error:
        transcript.fail(part.clip, error)
    else:
        transcript.end(part.clip, text, part.told if isinstance(part, Hearing) else "")


def _answer(transcript: Transcript, part: Hearing) -> str:
    for pause in RETURNS:
        try:
            return part.text()
        except EngineUnavailable:
            if not transcript.has_heard:
                raise
            wait(asyncio.sleep(pause))
            part.ask_again()
    return part.text()


def _is_over(part: _Part) -> bool:
    return not isinstance(part, Hearing) or part.is_over()
