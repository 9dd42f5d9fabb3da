"""Decoding in processes that may die: `nursery` runs in one that has loaded the decoders and holds nothing else, and forks one for whoever asks.

A decoder may crash (SIGSEGV), hang, or take all memory there is; it then ends its own process. Each is limited before it sees a byte: in memory
(RLIMIT_AS), in time for each step (a timer whose signal nothing catches, also in C), and it can write no file. It never sees the server's memory,
environment or keys.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from gemma3n_sgl.conversation import Recording
from gemma3n_sgl.errors import Gemma3nError, MediaError
from gemma3n_sgl.media.decoding import BYTES_PER_SECOND, guarded, pieces
from gemma3n_sgl.media.frames import Gap, lengths
from gemma3n_sgl.media.images import open_image
from gemma3n_sgl.media.limits import Limits
from gemma3n_sgl.media.wire import Message, receive, send

_PACKETS = 256


def nursery(control: int) -> None:
    """For each socket that comes over the socket `control`, fork a process that serves it; until the server is gone. A byte says that it begins."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for them
    gc.freeze()
    with socket.socket(fileno=control) as asked:
        asked.send(b".")
        while True:
            message, sockets, _, _ = socket.recv_fds(asked, 1, 1)
            if not message:
                return
            if os.fork() == 0:
                asked.close()
                _serve(socket.socket(fileno=sockets[0]), _limited())
                os._exit(0)
            os.close(sockets[0])


def _limited() -> int:
    """Take from this process what no decoder needs; the bytes of memory it has to begin with (0: not to be told here)."""
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")  # where memory runs out for all, the kernel takes this process
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    return 0


def _serve(client: socket.socket, has: int) -> None:
    """Answer requests one after the other, until the client is gone."""
    with suppress(EOFError, OSError):
        while True:
            asked, data = receive(client)
            if has:
                resource.setrlimit(resource.RLIMIT_AS, (has + asked["megabytes"] * 2**20, resource.RLIM_INFINITY))
            try:
                for head, payload in _timed(JOBS[asked["job"]](asked, data), asked["seconds"]):
                    send(client, head, payload)
            except MemoryError:
                return
            except Gemma3nError as error:
                send(client, {"error": type(error).__name__, "message": error.message})
            else:
                send(client, {"end": True})


def _timed(steps: Iterator[Message], seconds: float) -> Iterator[Message]:
    """The steps, each within `seconds`, else this process ends."""
    while True:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            step = next(steps, None)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if step is None:
            return
        yield step


def _image(asked: dict[str, Any], data: bytes) -> Iterator[Message]:
    image = open_image(data, limits=Limits(**asked["limits"]))
    yield {"width": image.width, "height": image.height, "media_type": image.media_type}, image


def _pieces(asked: dict[str, Any], data: bytes) -> Iterator[Message]:
    """Samples, a second or more at once, and gaps."""
    pcm = bytearray()
    for piece in guarded(pieces(_recording(asked, data))):
        pcm += piece if isinstance(piece, bytes) else b""
        if pcm and (isinstance(piece, Gap) or len(pcm) >= BYTES_PER_SECOND):
            yield {}, bytes(pcm)
            pcm.clear()
        if isinstance(piece, Gap):
            yield {"gap": [piece.seconds, piece.damaged, piece.ends]}, b""
    if pcm:
        yield {}, bytes(pcm)


def _lengths(asked: dict[str, Any], data: bytes) -> Iterator[Message]:
    """How long the next packets last, in s."""
    total, count = 0.0, 0
    for seconds in guarded(lengths(_recording(asked, data))):
        total, count = total + seconds, count + 1
        if count % _PACKETS == 0:
            yield {"seconds": total}, b""
            total = 0.0
    yield {"seconds": total}, b""


def _recording(asked: dict[str, Any], data: bytes) -> Recording:
    if asked["path"] is None:
        return Recording(data)
    if not Path(asked["path"]).is_file():
        raise MediaError("The sound is gone: send it again.")
    return Recording(Path(asked["path"]))


JOBS: dict[str, Callable[[dict[str, Any], bytes], Iterator[Message]]] = {"image": _image, "pieces": _pieces, "lengths": _lengths}
