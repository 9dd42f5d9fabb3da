"""SGLang programs for Gemma 3n: write one `@sgl.function`, and it is a model over HTTP, a command, and a function in a notebook.

Each name is brought from its room when it is first used, so that a command that needs no engine does not wait for SGLang.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "bridge": ("offload",),
    "calling": ("Tool", "any_of", "arguments", "with_tools"),
    "client": ("Gemma", "connect"),
    "condensing": ("condensed",),
    "conversation": ("Audio", "Conversation", "Image", "Recording", "Turn"),
    "endpoint": ("Gemma3nEndpoint",),
    "events": ("Arguments", "Call", "Delta", "Done", "Segment", "Step", "Token", "ToolCall", "Usage"),
    "hearing": ("hear", "written"),
    "language": ("assistant", "audio", "image", "turns", "user"),
    "media": ("open_audio", "open_image", "open_recording", "tiles"),
    "sampling": ("Sampling",),
    "subtitles": ("Cues",),
}
"""The public names, and the rooms they live in. `__init__.pyi` says the same to editors and type checkers."""

_ROOM_OF = {name: room for room, names in _HOMES.items() for name in names}

__all__ = sorted(_ROOM_OF)


def __getattr__(name: str) -> Any:
    if name not in _ROOM_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
