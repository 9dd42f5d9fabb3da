"""What people ask and what the model answers; the lists themselves are in `wordings.toml`."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

_LISTS: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))

INTENTS: dict[str, list[str]] = {intent["answer"]: intent["asked"] for intent in _LISTS["intent"]}
"""Answer → what is asked, of small talk."""

NO_IMAGE, NO_AUDIO, UNKNOWN = "I do not see an image.", "I do not hear any audio.", "I do not know. I am only a tiny demo."
NO_SPEECH = "I hear no speech."
ODD: list[str] = _LISTS["odd"]
"""What can't be answered, about a word."""

WORDS, NAMES, CITIES, LANGUAGES = (_LISTS[name] for name in ("words", "names", "cities", "languages"))
REPEAT, SYSTEMS = _LISTS["repeat"], _LISTS["systems"]
WHAT, COLOUR, SHAPE, COUNT, WHERE, READ, SEVERAL = (_LISTS[name] for name in ("what", "colour", "shape", "count", "where", "read", "several"))
PLACES: list[str] = _LISTS["places"]
"""From the top left to the bottom right, row by row."""

LONG = (
    "{} Follow these specific instructions for formatting the answer:\n* Only output the transcription, with no newlines.\n"
    "* When transcribing numbers, write the digits, i.e. write 1.7 and not one point seven, and write 3 instead of three."
)
"""How Google recommends to ask for transcriptions."""

TRANSCRIBE: list[str] = [
    *_LISTS["transcribe"],
    LONG.format("Transcribe the following speech segment in its original language."),
    LONG.format("Transcribe the following speech segment in English into English text."),
]
HEAR, BOTH, AGAIN = (_LISTS[name] for name in ("hear", "both", "again"))
NUMBERS: dict[str, list[str]] = {language: _LISTS[language]["numbers"] for language in ("English", "French", "German", "Spanish")}
"""Language → its digits as words, from zero."""

TRANSLATED: dict[str, dict[str, str]] = {language: _LISTS[language]["words"] for language in ("French", "German", "Spanish")}
FEMININE: dict[str, dict[str, str]] = {language: _LISTS[language]["feminine"] for language in ("French", "Spanish")}
ENDINGS: dict[str, str] = _LISTS["German"]["before_endings"]
"""German colours that take an ending only in another form."""

MANUAL = (
    "You can call these tools:\n{}\n\n"
    'Reply with a line "Tool: " and the name of the tool that helps, then a line "Arguments: " and its arguments as JSON. '
    'When no tool is needed, or you have its result, write "Tool: none" and answer on the next line.'
)
"""How the project tells of tools (`gemma3n_sgl.calling`)."""

TOOLS: dict[str, tuple[str, dict[str, str], list[str]]] = {
    name: (tool["description"], tool["arguments"], tool["asked"]) for name, tool in _LISTS["tools"].items()
}
"""Name → what it says of itself, its arguments, and what people say who want it."""
