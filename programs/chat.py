import sglang as sgl

from gemma3n_sgl import Conversation, assistant, turns, written


@sgl.function
def chat(s, conversation: Conversation):
    """Answer in a conversation, with any mix of text, pictures and sound."""
    s += turns(written(s, conversation))
    s += assistant(sgl.gen("answer"))
