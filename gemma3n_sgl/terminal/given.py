"""What is written behind a command → the parts of a message: files are read, everything else is text."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable

from gemma3n_sgl.conversation import Part
from gemma3n_sgl.errors import InvalidValue, MediaError, TooLarge
from gemma3n_sgl.media import open_image, open_sound
from gemma3n_sgl.media.sniffing import HEAD, sound_kind
from gemma3n_sgl.media.sources import opened

STDIN = "-"
_PICTURE = re.compile(
    rb"\x89PNG|\xff\xd8\xff|GIF8|RIFF.{4}WEBP|II\*\0|MM\0\*|BM.{4}\0{4}|.{4}ftyp(avi[fs]|hei[cxms]|hev[cx]|m[is]f1)", re.DOTALL
)
"""How pictures begin. They are looked for first: an AVIF begins like an MP4."""

_NAME = re.compile(r"\S+\.(png|jpe?g|webp|gif|bmp|tiff?|avif|heic|wav|mp3|flac|ogg|opus|m4a|aac|webm|mp4|aiff?|amr)", re.IGNORECASE)
"""A text that can only be meant as a file's name."""

KINDS = "a picture (PNG, JPEG, WebP, GIF, BMP, TIFF, AVIF), a sound (WAV, MP3, FLAC, Ogg, M4A, WebM, …) or text"


def parts_of(given: Iterable[str], *, takes: Iterable[str] = ("text", "image", "audio")) -> list[Part]:
    """Each argument as a picture, a sound or a text. `-` is the standard input; what is no file is text, where text is taken.

    Raises MediaError, TooLarge and InvalidValue in words that name the file as it was given.
    """
    return [part_of(argument, takes=takes) for argument in given]


def part_of(argument: str, *, takes: Iterable[str] = ("text", "image", "audio")) -> Part:
    """One argument, as `parts_of` reads it."""
    if argument == STDIN:
        return value_of(sys.stdin.buffer.read(), "the standard input")
    if os.path.exists(argument) and not os.path.isdir(argument):
        return value_of(file_bytes(argument), argument)
    if "text" not in takes or _NAME.fullmatch(argument):
        raise InvalidValue(f"There is no file {argument!r}. Check its name.")
    return argument


def file_bytes(path: str) -> bytes:
    """All bytes of a file. Raises MediaError if it can't be read."""
    with opened(path) as file:
        return file.read()


def value_of(data: bytes, name: str) -> Part:
    """A picture, a sound or a text, by what the bytes are and not by what they are called."""
    try:
        return _value(data)
    except (MediaError, TooLarge) as error:
        raise type(error)(f"{name}: {error.message}") from None


def _value(data: bytes) -> Part:
    if not data:
        raise MediaError("this is empty. Give a text or a file.")
    if _PICTURE.match(data):
        return open_image(data)
    if sound_kind(data[:HEAD]):
        return open_sound(data)
    if text := _text(data):
        return text
    raise MediaError(f"this is none of {KINDS}.")


def _text(data: bytes) -> str:
    """UTF-8 text, "" for what is none or is blank."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return ""
    return "" if "\0" in text else text.strip()
