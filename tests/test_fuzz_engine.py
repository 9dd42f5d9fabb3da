"""Whatever an engine sends, a run ends with an answer or with an error of ours, within the deadlines: real answers, damaged by chance.

`python tests/test_fuzz_engine.py SEED COUNT` tries others, and prints each that ended in another way.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from contextlib import suppress
from copy import deepcopy
from typing import Any

import pytest
import sglang as sgl

from gemma3n_sgl import Gemma3nEndpoint, assistant, endpoint, running, user
from gemma3n_sgl.errors import Gemma3nError
from gemma3n_sgl.program import Program
from gemma3n_sgl.running import Budget
from gemma3n_sgl.sampling import Sampling
from gemma3n_sgl.transport import Deadlines

INFO = {"model_path": "/models/x", "served_model_name": "x", "preferred_sampling_params": {"temperature": 1.0, "top_k": 64}, "version": "0.5.23"}
JUNK: list[Any] = [None, True, -1, 10**30, 1e308, "", "x", "\0", "\u2028", [], {}, [[]], [None], {"a": None}, {"type": "abort"}, "stop", [["a", 1]]]
LONGEST = 5.0


@sgl.function
def say(s, question: str):
    """Think, then answer."""
    s += user(question) + assistant(sgl.gen("thought")) + user("Go on.")
    s += assistant(sgl.gen("answer"))


def event(i: int, chance: random.Random, incremental: bool) -> dict[str, Any]:
    """The i-th of three, as SGLang 0.5.23 sends it."""
    words = ["Once", " upon", " a time"]
    said = words[i : i + 1] if incremental else words[: i + 1]
    meta: dict[str, Any] = {"id": "x", "finish_reason": {"type": "stop", "matched": 106} if i == 2 else None, "prompt_tokens": 5, "cached_tokens": 2}
    meta |= {"completion_tokens": i + 1, "output_token_logprobs": [[-0.5, 1000 + k, word] for k, word in enumerate(said)]}
    meta |= {"output_top_logprobs": [[[-0.5, 1000, "x"]] for _ in said], "output_token_logprobs_length": i + 1}
    whole = {"text": "".join(said), "output_ids": list(range(len(said))), "meta_info": meta}
    while chance.random() < 0.25:
        holder: Any = chance.choice([whole, meta, meta.get("output_token_logprobs")])
        if isinstance(holder, dict) and holder:
            name = chance.choice(sorted(holder))
            holder[name] = deepcopy(chance.choice(JUNK))  # what is put into it later is no junk of others
            if chance.random() < 0.3:
                del holder[name]
        elif isinstance(holder, list) and holder:
            holder[chance.randrange(len(holder))] = deepcopy(chance.choice(JUNK))
    return whole


def answer_to(head: bytes, chance: random.Random) -> bytes:
    """What the engine answers to a request, with something wrong with it more often than not."""
    if b"POST /generate" not in head:
        info = dict(INFO)
        if chance.random() < 0.2:
            info[chance.choice(sorted(info))] = chance.choice(JUNK)
        body = json.dumps(info).encode()
        sent = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body)
        return damaged(sent, chance) if chance.random() < 0.1 else sent
    incremental = chance.random() < 0.5
    lines = [b"data: " + json.dumps(event(i, chance, incremental)).encode() + b"\n\n" for i in range(3)] + [b"data: [DONE]\n\n"]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(line), line) for line in lines) + b"0\r\n\r\n"
    sent = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n" + chunks
    return damaged(sent, chance) if chance.random() < 0.6 else sent


def damaged(data: bytes, chance: random.Random) -> bytes:
    spoiled = bytearray(data)
    for _ in range(chance.choice([1, 1, 2, 4])):
        at, size = chance.randrange(len(spoiled) or 1), chance.choice([1, 2, 8, 64])
        how = chance.randrange(6)
        if how == 0:
            spoiled[at : at + 1] = bytes([chance.randrange(256)])
        elif how == 1:
            del spoiled[at : at + size]
        elif how == 2:
            spoiled[at:at] = spoiled[at : at + size]
        elif how == 3:
            del spoiled[at:]
        elif how == 4:
            spoiled[at:at] = chance.choice([b"\r\n", b"\n\n", b"data: ", b"\0", b"\xff", b'"', b"}", b"0\r\n\r\n", b"HTTP/1.1 500 No\r\n\r\n"])
        else:
            spoiled[at : at + size] = chance.randbytes(size)
    return bytes(spoiled)


async def ended(chance: random.Random) -> str:
    """How a run against such an engine ends: "Done", or the code of an error of ours. Anything else is an AssertionError."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length or 0))
            writer.write(answer_to(head, chance))
            await writer.drain()
            if chance.random() < 0.1:
                await reader.read()  # until the other side has had enough
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    deadlines = Deadlines(connect=0.5, first_token=0.3, token=0.2)
    ours = Gemma3nEndpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", deadlines=deadlines)
    sampling = Sampling(top_logprobs=1 if chance.random() < 0.5 else None, stop=("zz",) if chance.random() < 0.3 else ())
    try:
        async with asyncio.timeout(LONGEST):
            *_, done = [said async for said in running.stream(Program.of(say), {"question": "x"}, ours, sampling, Budget(3, 8))]
        json.dumps([done.answer, done.finish_reason, vars(done.usage)]).encode()
        assert all(isinstance(number, float | int | None) for token in done.tokens for number in (token.logprob, *(p for _, p in token.top)))
        return "Done"
    except Gemma3nError as error:
        assert error.code in ("engine_error", "engine_timeout", "engine_unavailable", "overloaded", "invalid_value", "run_timeout"), error.code
        assert error.message.endswith("."), error.message
        return error.code
    finally:
        await ours.client.aclose()
        server.close()


def tried(seed: int, count: int) -> tuple[Counter[str], list[str]]:
    """How the runs ended, and those that ended in another way; some side by side, since most of the time is waited."""
    ends, wrong = Counter[str](), []

    async def one(number: int, gate: asyncio.Semaphore) -> None:
        async with gate:
            try:
                ends[await ended(random.Random(f"{seed}/{number}"))] += 1
            except Exception as error:
                cause = f" from {error.__cause__!r}" if error.__cause__ else ""
                wrong.append(f"{seed}/{number}: {type(error).__name__}: {error}{cause}")

    async def all_of_them() -> None:
        gate = asyncio.Semaphore(8)
        await asyncio.gather(*(one(number, gate) for number in range(count)))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(endpoint, "INFO_TIMEOUT", 0.3)
        asyncio.run(all_of_them())
    return ends, wrong


@pytest.mark.slow
def test_whatever_an_engine_sends_a_run_ends_with_an_answer_or_an_error_of_ours():
    ends, wrong = tried(seed=7, count=300)
    assert wrong == []
    assert {"Done", "engine_error", "engine_timeout"} <= set(ends)


if __name__ == "__main__":
    came_of, failed = tried(int(sys.argv[1]), int(sys.argv[2]))
    print(*sorted(came_of.items()), *failed, sep="\n")
    sys.exit(bool(failed))
