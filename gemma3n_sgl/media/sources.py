"""What the `open_…` functions take: a path, bytes, or something with `read()`."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from gemma3n_sgl.errors import MediaError
from gemma3n_sgl.media.limits import MEGA, Limits

IN_MEMORY = 8 * MEGA
"""Bytes of an open file up to which its content is kept in memory."""

Source = str | Path | bytes | bytearray | memoryview | BinaryIO


def existing(path: str | Path) -> Path:
    """The path of a file that can be read, else a MediaError that names it as the caller did."""
    text = str(path)
    if text.startswith(("http://", "https://", "data:")):
        raise MediaError("This is a URL, and files are opened by their path: download it first, or pass its bytes.")
    found = Path(path).expanduser()
    if found.is_dir():
        raise MediaError(f"{text!r} is a folder, not a file.")
    if not found.exists():
        raise MediaError(f"There is no file {text!r}.")
    return found


@contextmanager
def opened(path: str | Path) -> Iterator[BinaryIO]:
    """The file of a path, open for reading. What the system has against it is a MediaError in the caller's words."""
    found = existing(path)
    try:
        with found.open("rb") as file:
            yield file
    except OSError as error:
        raise MediaError(f"{str(path)!r} can't be read: {(error.strerror or 'unknown reason').lower()}.") from None


def content(source: Source, limits: Limits) -> bytes:
    """All bytes of a source. Raises TooLarge above `max_bytes` of the limits without reading on, and MediaError for a file that is not there."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        data = bytes(source)
    elif isinstance(source, (str, Path)):
        with opened(source) as file:
            return content(file, limits)
    else:
        data = source.read(limits.max_bytes + 1)
    if len(data) > limits.max_bytes:
        raise limits.too_many_bytes()
    return data


def spooled(file: BinaryIO) -> tuple[bytes | Path, object]:
    """What is left in an open file: its bytes, or, if they are many, a path to them and what keeps them on disk.

    Where the system can (Linux), they stay in a file without a name, which is gone however this process ends; one that has none is not copied.
    """
    data = file.read(IN_MEMORY + 1)
    if len(data) <= IN_MEMORY:
        return data, None
    nameless = Path(f"/proc/{os.getpid()}/fd").is_dir()
    if nameless and _has_no_name(file) and file.tell() == len(data):
        kept: Any = os.fdopen(os.dup(file.fileno()), "rb")
    else:
        kept = tempfile.TemporaryFile() if nameless else tempfile.NamedTemporaryFile(prefix="gemma3n-")  # noqa: SIM115 - closed when nobody has it any more
        kept.write(data)
        shutil.copyfileobj(file, kept)
        kept.flush()
    return Path(f"/proc/{os.getpid()}/fd/{kept.fileno()}" if nameless else kept.name), kept


def _has_no_name(file: BinaryIO) -> bool:
    """Whether it is on disk, and nobody else can write into it."""
    try:
        return os.fstat(file.fileno()).st_nlink == 0
    except OSError:
        return False
