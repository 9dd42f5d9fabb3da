from typing import Literal

import sglang as sgl

from gemma3n_sgl import Conversation, Image, assistant, offload, tiles, turns, user, written


@sgl.function
def vision(s, conversation: Conversation, effort: Literal["none", "low", "high"] = "low"):
    """Answer about pictures: at once, after observing and reasoning (low), or after a second look at their parts as well (high)."""
    conversation = written(s, conversation)
    if effort == "none":
        s += turns(conversation)
    else:
        details = closer_look(s, conversation.only(Image)) if effort == "high" else ""
        s += turns(conversation.asking("Describe the image in detail."))
        s += assistant(sgl.gen("observation"))
        s += user(details, f"Think step by step about this, with what you observed:\n{conversation.last.text}")
        s += assistant(sgl.gen("reasoning"))
        s += user("Now answer, in short.")
    s += assistant(sgl.gen("answer"))


def closer_look(s, pictures: tuple[Image, ...]) -> str:
    """What the four quarters of each picture show, each seen at full resolution."""
    parts = [tile for picture in pictures for tile in offload(tiles, picture, 2, 2)]
    forks = s.fork(len(parts))
    for fork, part in zip(forks, parts, strict=True):
        fork += user(part, "This is a part of a larger image. Describe it.")
        fork += assistant(sgl.gen("detail"))
    seen = "\n".join(f"- {fork['detail'].strip()}" for fork in forks)
    forks.join()
    return f"Looking closer, part by part:\n{seen}\n\n"
