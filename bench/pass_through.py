"""The least a relay in Python can do: chat requests go on to the engine, its bytes come back, and nobody looks at them.

What our server costs is told as a multiple of this.

    python bench/pass_through.py PORT ENGINE_PORT
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route


def create_app(engine: str) -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as app.state.session:
            yield

    async def relay(request: Request) -> Response:
        body = await request.body()

        async def pieces() -> AsyncIterator[bytes]:
            async with request.app.state.session.post(f"{engine}/v1/chat/completions", data=body) as answer:
                async for piece in answer.content.iter_any():
                    yield piece

        return StreamingResponse(pieces(), media_type="text/event-stream")

    async def health(request: Request) -> Response:
        return Response()

    return Starlette(routes=[Route("/v1/chat/completions", relay, methods=["POST"]), Route("/health", health)], lifespan=lifespan)


if __name__ == "__main__":
    uvicorn.run(create_app(f"http://127.0.0.1:{sys.argv[2]}"), port=int(sys.argv[1]), log_level="warning", access_log=False)
