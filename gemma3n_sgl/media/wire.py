"""Messages over a socket between two processes of which one is not trusted: a JSON object, and bytes. Nothing that comes is ever executed."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

_LENGTHS = struct.Struct(">IQ")
_LONGEST = 2**31

Message = tuple[dict[str, Any], bytes]


def send(to: socket.socket, head: dict[str, Any], data: bytes = b"") -> None:
    encoded = json.dumps(head).encode()
    to.sendall(_LENGTHS.pack(len(encoded), len(data)) + encoded)
    if data:
        to.sendall(data)


def receive(source: socket.socket, longest: int = _LONGEST) -> Message:
    """The next message. Raises EOFError where the other side has gone, and ValueError for what is no message or longer than `longest` bytes."""
    head, data = _LENGTHS.unpack(_exactly(source, _LENGTHS.size))
    if head + data > longest:
        raise ValueError("a message without measure")
    value = json.loads(_exactly(source, head))
    if not isinstance(value, dict):
        raise ValueError("a message that is no object")
    return value, bytes(_exactly(source, data))


def _exactly(source: socket.socket, size: int) -> bytearray:
    data = bytearray(size)
    view, at = memoryview(data), 0
    while at < size:
        count = source.recv_into(view[at:])
        if not count:
            raise EOFError
        at += count
    return data
