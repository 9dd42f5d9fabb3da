"""SGLang programs for Gemma 3n: write one `@sgl.function`, and it is a model over HTTP, a command, and a function in a notebook."""

from gemma3n_sgl.bridge import offload
from gemma3n_sgl.calling import Tool, any_of, arguments, with_tools
from gemma3n_sgl.client import Gemma, connect
from gemma3n_sgl.condensing import condensed
from gemma3n_sgl.conversation import Audio, Conversation, Image, Recording, Turn
from gemma3n_sgl.endpoint import Gemma3nEndpoint
from gemma3n_sgl.events import Arguments, Call, Delta, Done, Segment, Step, Token, ToolCall, Usage
from gemma3n_sgl.hearing import hear, written
from gemma3n_sgl.language import assistant, audio, image, turns, user
from gemma3n_sgl.media import open_audio, open_image, open_recording, tiles
from gemma3n_sgl.sampling import Sampling
from gemma3n_sgl.subtitles import Cues

__all__ = [
    "Arguments",
    "Audio",
    "Call",
    "Conversation",
    "Cues",
    "Delta",
    "Done",
    "Gemma",
    "Gemma3nEndpoint",
    "Image",
    "Recording",
    "Sampling",
    "Segment",
    "Step",
    "Token",
    "Tool",
    "ToolCall",
    "Turn",
    "Usage",
    "any_of",
    "arguments",
    "assistant",
    "audio",
    "condensed",
    "connect",
    "hear",
    "image",
    "offload",
    "open_audio",
    "open_image",
    "open_recording",
    "tiles",
    "turns",
    "user",
    "with_tools",
    "written",
]
