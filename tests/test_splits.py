"""However the engine's stream is cut into packets, the answer, its usage, its tokens and why it ended are the same."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import sglang as sgl
from hypothesis import given
from hypothesis import strategies as st

from gemma3n_sgl import Gemma3nEndpoint, assistant, running, user
from gemma3n_sgl.events import Delta, Done
from gemma3n_sgl.program import Program
from gemma3n_sgl.sampling import Sampling

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
PLAIN = ["Hello", " wörld", "漢字", "😀", "<end_of", "_turn>", " ST", "OP", "\n\n", "data: ", "\\", '"', "<", "[", "", " a"]
LIKE_AN_EVENT = ['"output_ids": [', '"meta_info":{', '{"text":', "output_ids"]
WORDS = st.sampled_from(PLAIN + LIKE_AN_EVENT)


@sgl.function
def say(s, question: str):
    """Answer."""
    s += user(question) + assistant(sgl.gen("answer"))


def events(tokens: list[str], *, incremental: bool, order: Sequence[str] = ("text", "output_ids", "meta_info")) -> bytes:
    """The stream of a generation of these tokens, in SGLang's form."""
    lines = []
    for i in range(1, len(tokens) + 1):
        first = i - 1 if incremental else 0
        said = tokens[first:i]
        finish = {"type": "stop", "matched": 106} if i == len(tokens) else None
        meta = {"finish_reason": finish, "prompt_tokens": 5, "cached_tokens": 2, "completion_tokens": i, "output_token_logprobs_length": i}
        meta["output_token_logprobs"] = [[-0.25, 1000 + first + k, token] for k, token in enumerate(said)]
        event = {"text": "".join(said), "output_ids": list(range(first, i)), "meta_info": meta}
        spaces = (",", ":") if i % 3 == 0 else None
        lines.append(json.dumps({name: event[name] for name in order}, ensure_ascii=i % 2 == 0, separators=spaces))
    return b"".join(b"data: " + line.encode() + b"\n\n" for line in [*lines, "[DONE]"])


async def run_over(body: bytes, cuts: list[int], *, stop: tuple[str, ...], logged: bool = True) -> tuple[Done, str]:
    """A run against an engine that sends `body` in packets that end at `cuts`. Where log probabilities are not asked for, text goes straight."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if b"POST /generate" not in head:
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}")
        else:
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            await reader.readexactly(length)
            writer.write(HEAD)
            edges = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
            for start, end in pairwise(edges):
                writer.write(body[start:end])
                await writer.drain()
                await asyncio.sleep(0.0005)
        writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    endpoint = Gemma3nEndpoint(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    program = Program.of(say)
    said: list[Any] = [
        event async for event in running.stream(program, {"question": "x"}, endpoint, Sampling(stop=stop, top_logprobs=0 if logged else None))
    ]
    await endpoint.client.aclose()
    server.close()
    return said[-1], "".join(event.text for event in said if isinstance(event, Delta))


@given(
    st.lists(WORDS, min_size=1, max_size=12),
    st.lists(st.integers(0, 5000), max_size=20),
    st.booleans(),
    st.sampled_from([(), ("STOP",), ("\n\n", " a")]),
    st.permutations(["text", "output_ids", "meta_info"]),
)
def test_any_split_gives_the_same_answer(tokens: list[str], cuts: list[int], incremental: bool, stop: tuple[str, ...], order: list[str]):
    body = events(tokens, incremental=incremental, order=order)
    whole, told = asyncio.run(run_over(body, [], stop=stop))
    cut, cut_told = asyncio.run(run_over(body, cuts, stop=stop))
    straight, straight_told = asyncio.run(run_over(body, cuts, stop=stop, logged=False))
    assert (straight.answer, straight.usage, straight.finish_reason) == (whole.answer, whole.usage, whole.finish_reason)
    assert straight_told == whole.answer
    assert (cut.answer, cut.usage, cut.finish_reason, cut.tokens) == (whole.answer, whole.usage, whole.finish_reason, whole.tokens)
    assert told == cut_told == whole.answer


@given(st.lists(WORDS, min_size=1, max_size=12), st.sampled_from([(), ("STOP",)]))
def test_a_cumulative_stream_says_what_an_incremental_one_says(tokens: list[str], stop: tuple[str, ...]):
    one, _ = asyncio.run(run_over(events(tokens, incremental=True), [], stop=stop))
    other, _ = asyncio.run(run_over(events(tokens, incremental=False), [], stop=stop))
    assert (one.answer, one.usage, one.tokens) == (other.answer, other.usage, other.tokens)
