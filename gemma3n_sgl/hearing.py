"""The verbs for sound of any length."""

from __future__ import annotations

from dataclasses import replace

import sglang as sgl
from sglang.lang.interpreter import ProgramState

from gemma3n_sgl.bridge import offload
from gemma3n_sgl.conversation import MAX_CLIP_SECONDS, Audio, Conversation, Part, Recording, Turn
from gemma3n_sgl.language import assistant, user
from gemma3n_sgl.media import clips


def hear(s: ProgramState, name: str, recording: Recording | Audio, prompt: str, *, clip_seconds: float = MAX_CLIP_SECONDS) -> None:
    """Ask `prompt` about every part of a recording and leave the answers, joined in order, in `s[name]`.

    The recording is cut at silences into clips of at most `clip_seconds`, of one length; they are heard side by side in forks of `s`,
    greedily, since hearing is not for invention. Call it between turns. Each clip costs 188 tokens. Raises MediaError where the bytes
    hold no sound, and TooLarge where they hold more than the recording's limit.
    """
    heard = offload(clips, recording, clip_seconds)
    forks = s.fork(len(heard))
    for fork, clip in zip(forks, heard, strict=True):
        fork += user(clip, prompt)
        fork += assistant(sgl.gen(name, temperature=0))
    said = []
    for fork in forks:
        said.append(fork[name].strip())
        fork.stream_executor.end()
    s[name] = " ".join(filter(None, said))


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
