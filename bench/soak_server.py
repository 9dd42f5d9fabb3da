"""The server for bench/soak.py, which also tells at /soak what it holds: `PYTHONPATH=. python -P bench/soak_server.py PORT ENGINE_URL`."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import json
import sys
from typing import Any

import psutil
import uvicorn

from gemma3n_sgl.settings import Settings
from server import create_app


def held() -> dict[str, Any]:
    """MB held, and MB resident without and with the processes it has; open files; tasks of the event loop.

    Garbage is not held, nor what the allocator keeps for later: how much that is, is chance, and may be some per cent of all.
    """
    resident = psutil.Process().memory_info().rss
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    this = psutil.Process()
    family = [this, *this.children(recursive=True)]
    return {
        "mb": round(this.memory_info().rss / 2**20, 1),
        "resident_mb": round(resident / 2**20, 1),
        "with_decoders_mb": round(sum(process.memory_info().rss for process in family) / 2**20, 1),
        "files": this.num_fds(),
        "tasks": len(asyncio.all_tasks()),
    }


class Telling:
    """The application, and what it holds."""

    def __init__(self, engine: str) -> None:
        self._app = create_app(Settings(runtime_url=engine))

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != "/soak":
            await self._app(scope, receive, send)
            return
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": json.dumps(held()).encode()})


if __name__ == "__main__":
    uvicorn.run(Telling(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), http="httptools", loop="uvloop", log_level="error", access_log=False)
