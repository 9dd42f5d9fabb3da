"""What was heard for a file that is not whole yet, so that a job that was broken off goes on where it stopped."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

from gemma3n_sgl.errors import InvalidValue, MediaError
from gemma3n_sgl.media.sources import opened

_MARK = "gemma3n journal"
_BEGIN = f'{{"{_MARK}"'.encode()
_HEAD = 2**16
"""Bytes at the beginning of a recording by which it is known, beside its size and time."""

About = dict[str, Any]


def fingerprint(source: Path) -> About:
    """What tells whether a recording is still the same: its size, its time, and how it begins. Raises MediaError where it can't be read."""
    with opened(source) as file:
        told = os.fstat(file.fileno())
        return {"bytes": told.st_size, "modified": told.st_mtime_ns, "begins": sha256(file.read(_HEAD)).hexdigest()}


def part_of(target: Path) -> Path:
    """The file beside a target that tells what was heard for it, as long as that is not all."""
    return target.with_name(f"{target.name}.part")


class Journal(dict[str, Any]):
    """The `memory` of a recording, in `talk.srt.part` beside `talk.srt`: a line of JSON says what it is `about`, then each holds one answer.

    A line is written as soon as something is there to write, and whole, so that no way to end the program loses what was heard before.
    `anew` says why what stood there is of no use, if so. Raises InvalidValue where another file is in the way.
    """

    def __init__(self, target: Path, about: About) -> None:
        super().__init__()
        self.path = part_of(target)
        self.anew = ""
        self._first = {_MARK: 1} | about
        self._end = 0
        if self.path.exists():
            self._take_up()

    def __setitem__(self, key: str, answer: Any) -> None:
        lines = [] if self._end else [self._first]
        data = "".join(json.dumps(line) + "\n" for line in [*lines, [key, answer]]).encode()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("r+b" if self._end else "wb") as file:
                file.truncate(self._end)
                file.seek(self._end)
                file.write(data)
        except OSError as error:
            raise MediaError(f"{self.path} can't be written: {(error.strerror or 'unknown reason').lower()}.") from None
        self._end += len(data)
        super().__setitem__(key, answer)

    def forget(self) -> None:
        """Begin anew."""
        self.clear()
        self._end = 0

    def remove(self) -> None:
        """The file is whole, and what was heard for it stands there."""
        self.path.unlink(missing_ok=True)

    def _take_up(self) -> None:
        """Read what was written, to the last whole line."""
        data = self.path.read_bytes()
        if data and not data.startswith(_BEGIN):
            raise InvalidValue(f"{self.path} is in the way, and is not of this program. Move it, or write elsewhere with -o.")
        first, *lines = data.split(b"\n")[:-1] or [b""]
        about = _read(first) or self._first
        if about != self._first:
            changed = about.get("recording") != self._first.get("recording")
            self.anew = "the recording has changed" if changed else "it is heard in another way now"
        if about != self._first or not first:
            return
        self._end = len(first) + 1
        for line in lines:
            entry = _read(line)
            if not isinstance(entry, list) or len(entry) != 2:
                return
            super().__setitem__(entry[0], entry[1])
            self._end += len(line) + 1


def _read(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
