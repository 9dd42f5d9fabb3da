"""What a scripted engine says: replies, faults, and the events SGLang 0.5.23 would make of them."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

END_OF_TURN = {"type": "stop", "matched": 106}
_IDS = count()


@dataclass(frozen=True)
class Fault:
    """What goes wrong once `after` tokens are out; None: before the headers."""

    after: int | None = None


@dataclass(frozen=True)
class Die(Fault):
    """The socket closes, without `[DONE]`."""


@dataclass(frozen=True)
class Hang(Fault):
    """Nothing more is ever said."""


@dataclass(frozen=True)
class Reset(Fault):
    """The connection is reset, as by a machine that has lost it."""


@dataclass(frozen=True)
class Drip(Fault):
    """A byte now and then, of headers or of an event that never ends."""


@dataclass(frozen=True)
class Flood(Fault):
    """These bytes over and over, as fast as they are taken; with `head` before them."""

    data: bytes = b""
    head: bytes = b""


@dataclass(frozen=True)
class Say(Fault):
    """These bytes are sent in place of the rest: an event, half a line, garbage; or, before the headers, a whole answer with a status."""

    data: bytes = b""
    status: int = 200
    content_type: str = "application/json"


@dataclass(frozen=True)
class Reply:
    """What is generated: `text`, in words unless given as tokens; `delay` s before each token. `meta` goes over the counted meta_info.
    What comes behind the first token waits for `held`.

    Of texts to be scored (`select`), the one that ends with `text` is the likeliest, with `logprob` (None: what the engine sends for NaN).
    """

    text: str | tuple[str, ...] = "Hello there."
    finish: dict[str, Any] | None = field(default_factory=lambda: END_OF_TURN)
    meta: dict[str, Any] = field(default_factory=dict)
    delay: float = 0
    fault: Fault | None = None
    logprob: float | None = -0.1
    held: threading.Event | None = None

    @property
    def tokens(self) -> list[str]:
        return list(self.text) if isinstance(self.text, tuple) else re.findall(r"\s*\S+|\s+$", self.text)


Script = Reply | Mapping[str, Reply] | Callable[[str], Reply]


def reply_to(script: Script, prompt: Any) -> Reply:
    """The script's reply: always the same, the first whose key the prompt holds, or what a function makes of the prompt."""
    text = prompt if isinstance(prompt, str) else ""
    if isinstance(script, Reply):
        return script
    if isinstance(script, Mapping):
        return next((reply for part, reply in script.items() if part in text), Reply())
    return script(text)


def prompts_of(body: dict[str, Any]) -> tuple[list[Any], bool]:
    """The prompts of a request, n times each, and whether the answer is a list."""
    asked = body["text"] if "text" in body else body["input_ids"]
    n = (body.get("sampling_params") or {}).get("n") or 1
    prompts = asked if isinstance(asked, list) else [asked]
    return [prompt for prompt in prompts for _ in range(n)], isinstance(asked, list) or n > 1


async def events_of(body: dict[str, Any], prompt: Any, reply: Reply, *, incremental: bool) -> AsyncIterator[dict[str, Any]]:
    """One generation, event by event; the last has `finish_reason`. A fault that comes `after` so many tokens ends it there."""
    params = body.get("sampling_params") or {}
    tokens, finish = _limited(reply, params.get("max_new_tokens"), params.get("stop") or ())
    said_less = reply.fault is not None and reply.fault.after is not None
    said = reply.fault.after if said_less else len(tokens)
    meta: dict[str, Any] = {
        "id": f"{next(_IDS):032x}",
        "prompt_tokens": len(prompt.split()) if isinstance(prompt, str) else len(prompt),
        "cached_tokens": 0,
        "image_tokens": 256 * _items(body, "image_data"),
        "audio_tokens": 188 * _items(body, "audio_data"),
    }
    if body.get("return_logprob"):
        meta |= {"input_token_logprobs": _scores(prompt, reply), "output_token_logprobs": []}
    for i in range(1, min(said, len(tokens)) + 1):
        if reply.delay:
            await asyncio.sleep(reply.delay)
        if reply.held and i == 2:
            await asyncio.to_thread(reply.held.wait, 30)
        counted = meta | {"finish_reason": finish if i == len(tokens) else None, "completion_tokens": i}
        first = i - 1 if incremental else 0
        if body.get("return_logprob"):
            counted |= _logprobs(tokens[first:i], first, i, int(body.get("top_logprobs_num") or 0))
        yield {"text": "".join(tokens[first:i]), "output_ids": list(range(1000 + first, 1000 + i)), "meta_info": counted | reply.meta}
    if not tokens and not said_less:
        nothing = {"finish_reason": finish, "completion_tokens": 0}
        yield {"text": "", "output_ids": [], "meta_info": meta | nothing | reply.meta}


def _logprobs(tokens: list[str], first: int, so_far: int, top: int) -> dict[str, Any]:
    """What an event says of its tokens; each one's rivals are the same token in capitals, over and over."""
    entries = [[-0.5, 1000 + first + i if token else END_OF_TURN["matched"], token] for i, token in enumerate(tokens)]
    tops = [[[-0.5 - k, entry[1] + k, entry[2].upper() if k else entry[2]] for k in range(top)] or None for entry in entries]
    return {"output_token_logprobs": entries, "output_top_logprobs": tops, "output_token_logprobs_length": so_far}


async def in_turn(runs: list[AsyncIterator[dict[str, Any]]]) -> AsyncIterator[dict[str, Any]]:
    """The events of several generations, interleaved and numbered."""
    going = dict(enumerate(runs))
    while going:
        for index, run in list(going.items()):
            event = await anext(run, None)
            if event is None:
                del going[index]
            else:
                yield event | {"index": index} if len(runs) > 1 else event


def _limited(reply: Reply, limit: int | None, stops: str | list[str] | tuple[str, ...]) -> tuple[list[str], dict[str, Any] | None]:
    """The tokens within `max_new_tokens` and up to the first of `stop` (kept, as with `no_stop_trim`), and why they end there.

    A turn that ends by itself ends with one more token, whose text is empty.
    """
    if limit == 0:
        return [], {"type": "length", "length": 0}
    tokens = [*reply.tokens, ""] if reply.finish == END_OF_TURN else reply.tokens
    for i in range(1, len(tokens) + 1):
        for stop in [stops] if isinstance(stops, str) else stops:
            if stop in "".join(tokens[:i]):
                return tokens[:i], {"type": "stop", "matched": stop}
        if i == limit and i < len(tokens):
            return tokens[:i], {"type": "length", "length": i}
    return tokens, reply.finish


def _items(body: dict[str, Any], name: str) -> int:
    data = body.get(name) or []
    return len(data[0]) if data and isinstance(data[0], list) else len(data)


def _scores(prompt: Any, reply: Reply) -> list[list[Any]]:
    """`input_token_logprobs`: [logprob, id, text] of the last tokens; the first of them has none."""
    words = re.findall(r"\s*\S+", prompt)[-3:] if isinstance(prompt, str) else ["?"] * len(prompt)
    logprob = reply.logprob if not isinstance(prompt, str) or prompt.endswith("".join(reply.tokens)) else -9.0
    return [[logprob if i else None, 500 + i, word] for i, word in enumerate(words)]
