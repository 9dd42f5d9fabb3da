"""What a file of sound is, by its first bytes, and whether its tables can be believed. What a client calls it is never asked."""

from __future__ import annotations

import re
import struct
from mmap import mmap

HEAD = 1 << 16
"""Bytes of a file's beginning that tell its kind."""

_MAGIC = (
    (re.compile(rb"(RIFF|RF64|BW64).{4}WAVE", re.DOTALL), "wav"),
    (re.compile(rb"FORM.{4}AIF[FC]", re.DOTALL), "aiff"),
    (re.compile(rb"fLaC"), "flac"),
    (re.compile(rb"OggS\0"), "ogg"),
    (re.compile(rb".{4}ftyp", re.DOTALL), "mov"),
    (re.compile(rb"\x1a\x45\xdf\xa3"), "matroska"),
    (re.compile(rb"#!AMR"), "amr"),
    (re.compile(rb"\xff[\xf0\xf1\xf8\xf9]"), "aac"),
    (re.compile(rb"\xff[\xe2-\xe5\xf2-\xf5\xfa-\xfd][\x00-\xef]"), "mp3"),  # layers II and III, a bit rate that exists
)
"""Magic bytes → the one libav demuxer that gets to see the file. ".m4a", ".mp4", ".3gp" are "mov"; ".webm" is "matroska"."""

_ENDLESS = 0x7FFF_0000
"""From here on a WAV's declared size means that its writer did not know it."""

_WAV_SLACK = 4096
_COUNTS = re.compile(rb"(?:stsz.{8}|stz2.{8}|trun.{4})(.{4})", re.DOTALL)


def sound_kind(head: bytes) -> str | None:
    """The libav demuxer for a file that begins like this (None: not sound). An ID3 tag in front is looked past."""
    tagged = head[:3] == b"ID3" and len(head) > 10
    body = head[10 + _id3_size(head) :] if tagged else head
    for magic, kind in _MAGIC:
        if magic.match(body):
            return kind
    return "mp3" if tagged else None  # a tag with a cover larger than the head, or padding behind it


def _id3_size(head: bytes) -> int:
    return sum((byte & 0x7F) << shift for byte, shift in zip(head[6:10], (21, 14, 7, 0), strict=True))


def is_cut_off_wav(head: bytes, size: int) -> bool:
    """Whether a WAV of `size` bytes announces more than it has. libav takes what there is and says nothing."""
    at = 12
    while head[:4] == b"RIFF" and at + 8 <= len(head):
        name, length = struct.unpack_from("<4sI", head, at)
        if name == b"data":
            return bool(length < _ENDLESS and at + 8 + length - size > _WAV_SLACK)
        at += 8 + length + length % 2
    return False


def is_forged_mp4(data: bytes | mmap) -> bool:
    """Whether an MP4 claims more samples than it has bytes.

    libav reserves 24 bytes or more for each sample a table merely claims: 1.5 kB can ask for gigabytes. The boxes are walked as libav
    does, since in the sound itself (`mdat`) the names of tables may occur by chance. Compressed headers (`cmov`) hide their tables, and
    went out of use long ago.
    """
    at = 0
    while at + 8 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if size == 1 and at + 16 <= len(data):
            (size,) = struct.unpack_from(">Q", data, at + 8)
        end = at + size if size >= 8 else len(data)
        if kind != b"mdat":
            claims = (int.from_bytes(match[1]) for match in _COUNTS.finditer(data, at, end))
            if data.find(b"cmov", at, end) >= 0 or any(claim > len(data) for claim in claims):
                return True
        at = end
    return False
