"""What a program costs over its engine calls: `python bench/programs.py [--rounds 5] [--engine URL]`

A program of eight calls, four of them in forks side by side, and the same calls made by hand with aiohttp, in turn, before one engine: that at URL,
else a paced stand-in (64 tokens a call at 200 a second). Prints one JSON line: median seconds of both, and their ratio. Ends with 1 above 1.05.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from statistics import median
from typing import Any

import aiohttp
import sglang as sgl
from processes import HERE, paced_engine
from sglang.lang.interpreter import ProgramState

sys.path.insert(0, str(HERE.parent))

from gemma3n_sgl import running
from gemma3n_sgl.endpoint import Gemma3nEndpoint
from gemma3n_sgl.language import assistant, user
from gemma3n_sgl.program import Program

LIMIT = 1.05
TOKENS = 64


@sgl.function  # type: ignore[untyped-decorator]
def eight(s: ProgramState, text: str) -> None:
    """Think in eight steps, four of them side by side."""
    for step in ("first", "second", "third"):
        s += user(text if step == "first" else "Go on.")
        s += assistant(sgl.gen(step, max_tokens=TOKENS, temperature=0))
    forks = s.fork(4)
    for number, fork in enumerate(forks):
        fork += user(f"Look at side {number}.")
        fork += assistant(sgl.gen("side", max_tokens=TOKENS, temperature=0))
    sides = "\n".join(fork["side"] for fork in forks)
    s += user(sides, "Sum up.")
    s += assistant(sgl.gen("answer", max_tokens=TOKENS, temperature=0))


async def by_program(endpoint: Gemma3nEndpoint) -> None:
    await running.run(Program.of(eight), {"text": "Hello"}, endpoint)


async def by_hand(session: aiohttp.ClientSession, url: str) -> None:
    """The same calls with the same prompts, streamed too, as any client would be told that watches."""

    async def ask(prompt: str) -> str:
        sampling = {"max_new_tokens": TOKENS, "temperature": 0, "stop": ["<end_of_turn>"]}
        said = ""
        async with session.post(f"{url}/generate", json={"text": prompt, "sampling_params": sampling, "stream": True}) as response:
            async for line in response.content:
                if line.startswith(b"data: {"):
                    text = json.loads(line[6:])["text"]
                    said = text if text.startswith(said) else said + text  # cumulative, or new text alone
        return said

    def turn(text: str) -> str:
        return f"<start_of_turn>user\n{text}<end_of_turn>\n<start_of_turn>model\n"

    talk = ""
    for text in ("Hello", "Go on.", "Go on."):
        talk += turn(text)
        talk += await ask(talk) + "<end_of_turn>\n"
    sides = await asyncio.gather(*(ask(talk + turn(f"Look at side {number}.")) for number in range(4)))
    await ask(talk + turn("\n".join(sides) + "Sum up."))


async def measure(url: str, rounds: int) -> dict[str, float]:
    endpoint, times = Gemma3nEndpoint(url), dict[str, list[float]]()
    async with aiohttp.ClientSession() as session:
        for _ in range(rounds + 1):  # the first warms both up
            for name, work in (("program_s", by_program(endpoint)), ("by_hand_s", by_hand(session, url))):
                start = time.perf_counter()
                await work
                times.setdefault(name, []).append(time.perf_counter() - start)
    await endpoint.client.aclose()
    return _figures({name: values[1:] for name, values in times.items()})


def _figures(times: dict[str, Sequence[Any]]) -> dict[str, float]:
    both = {name: round(median(values), 3) for name, values in times.items()}
    return both | {"ratio": round(median(a / b for a, b in zip(times["program_s"], times["by_hand_s"], strict=True)), 3)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--engine", help="URL of a real engine; default: a paced stand-in")
    given = parser.parse_args()
    with nullcontext() if given.engine else paced_engine(tokens=TOKENS, rate=200) as port:
        figures = asyncio.run(measure(given.engine or f"http://127.0.0.1:{port}", given.rounds))
    print(json.dumps(figures))
    sys.exit(figures["ratio"] > LIMIT)
