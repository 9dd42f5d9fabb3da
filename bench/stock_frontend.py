"""SGLang's own frontend behind Starlette, as its documents show it: a run in a thread, its text iterated on the loop.

    python bench/stock_frontend.py PORT ENGINE_PORT
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator

import sglang as sgl
import uvicorn
from pydantic_core import to_json
from sglang.lang.interpreter import ProgramState
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route


@sgl.function  # type: ignore[untyped-decorator]
def chat(s: ProgramState, text: str) -> None:
    s += "<start_of_turn>user\n" + text + "<end_of_turn>\n<start_of_turn>model\n"
    s += sgl.gen("answer", max_tokens=4096)


async def relay(request: Request) -> Response:
    text = (await request.json())["messages"][-1]["content"]

    async def pieces() -> AsyncIterator[bytes]:
        async for piece in chat.run(text=text, stream=True).text_async_iter("answer"):
            chunk = {"object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {"content": piece}}]}
            yield b"data: " + to_json(chunk) + b"\n\n"
        yield b"data: [DONE]\n\n"

    return StreamingResponse(pieces(), media_type="text/event-stream")


async def health(request: Request) -> Response:
    return Response()


if __name__ == "__main__":
    sgl.set_default_backend(sgl.RuntimeEndpoint(f"http://127.0.0.1:{sys.argv[2]}"))
    app = Starlette(routes=[Route("/v1/chat/completions", relay, methods=["POST"]), Route("/health", health)])
    uvicorn.run(app, port=int(sys.argv[1]), log_level="warning", access_log=False)
