from typing import Literal

import sglang as sgl

from gemma3n_sgl import Audio, Conversation, Recording, assistant, hear, turns, user, written


@sgl.function
def audio(s, conversation: Conversation, effort: Literal["none", "low", "high"] = "low"):
    """Answer about sound of any length: at once, after writing it down and reasoning (low), or after hearing its parts again as well (high).

    At once, a recording longer than a clip is asked clip by clip, side by side, and the answers are put together in order.
    """
    if effort == "none" and (recording := sole_recording(conversation)):
        s += sgl.system(conversation.system) if conversation.system else ""
        hear(s, "answer", recording, conversation.last.text or "Transcribe this audio.")
        return
    details = heard_again(s, conversation) if effort == "high" else ""
    conversation = written(s, conversation)
    if effort == "none":
        s += turns(conversation)
    else:
        thinking = f"{details}Think step by step about this, with what you heard:\n{conversation.last.text}"
        if conversation.only(Audio):
            s += turns(conversation.asking("Write down what is said, and describe what else is heard."))
            s += assistant(sgl.gen("heard", temperature=0))
            s += user(thinking)
        else:  # recordings alone, which are written down already
            s += turns(conversation.asking(thinking))
        s += assistant(sgl.gen("reasoning"))
        s += user("Now answer, in short.")
    s += assistant(sgl.gen("answer"))


def sole_recording(conversation: Conversation) -> Recording | None:
    """The recording, in a talk that is one turn about one recording."""
    media = conversation.last.only(Recording, Audio)
    return media[0] if len(conversation.turns) == 1 and len(media) == 1 and isinstance(media[0], Recording) else None


def heard_again(s, conversation: Conversation) -> str:
    """What is said in each sound, written down in parts of ten seconds."""
    parts = []
    for i, sound in enumerate(conversation.only(Audio, Recording)):
        hear(s, f"part_{i}", sound, "Transcribe this audio.", clip_seconds=10)
        parts.append(s[f"part_{i}"])
    return "Hearing it again, part by part:\n" + "\n".join(f"- {part}" for part in parts) + "\n\n"
