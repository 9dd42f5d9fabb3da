"""What the doctor asks an engine: is it there and one of SGLang's, what does it serve, does its template make our prompts, does it see and hear."""

from __future__ import annotations

import asyncio
import math
import ssl
import struct
import time
from array import array
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from gemma3n_sgl import running
from gemma3n_sgl.conversation import Audio, Conversation, Part, Turn
from gemma3n_sgl.endpoint import INFO_TIMEOUT, Gemma3nEndpoint, served_name
from gemma3n_sgl.engine.choice import SGLANG_VERSION
from gemma3n_sgl.errors import EngineError, EngineTimeout, EngineUnavailable, Gemma3nError, RunTimeout
from gemma3n_sgl.language import prompt_of
from gemma3n_sgl.media import open_image
from gemma3n_sgl.refusals import KEY_REFUSED
from gemma3n_sgl.registry import MODEL, Registry
from gemma3n_sgl.running import Budget
from gemma3n_sgl.sampling import Sampling
from gemma3n_sgl.settings import without_login
from gemma3n_sgl.terminal.findings import Finding, fine, problem, warning

PATIENCE = 30.0
"""Seconds an answer may take, which has ANSWER tokens at most."""

ANSWER = 16
SIDE = 64
RATE = 16_000

START = "Start one here with `gemma3n engine start`, or name another by GEMMA3N_RUNTIME_URL or --runtime-url."
EACH = "Look at each by itself: gemma3n doctor --runtime-url URL. The others answer meanwhile."
MEDIA = "Start the engine with a checkpoint of Gemma 3n that has them, and without --disable-multimodal or the like."

TALKS = (
    Conversation.of("What is green?"),
    Conversation.of("  What is green? \n", system="Be brief."),
    Conversation((Turn("user", ("Hi <b>there</b>",)), Turn("assistant", ("Hello! 🙂",)), Turn("user", ("Grüß Gott",))), "Be kind."),
)
"""Conversations whose prompts are compared: alone, with a system prompt and blanks around, of several turns."""


async def reached(endpoint: Gemma3nEndpoint) -> tuple[Finding, dict[str, Any]]:
    """Whether an engine answers, and what it says of itself ({}: there is nothing more to ask)."""
    began, address = time.perf_counter(), without_login(endpoint.base_url)
    try:
        info = await endpoint.describe()
    except EngineUnavailable:
        return await _unavailable(endpoint.base_url, address), {}
    except EngineTimeout:
        advice = f"It may be loading or hang: look at its log, or start it anew. {START}"
        return problem("engine", f"what is at {address} takes connections, but does not answer within {INFO_TIMEOUT:g} s", advice), {}
    except EngineError as error:
        if error.message == KEY_REFUSED:
            told, advice = KEY_REFUSED.split(". ")
            return problem("engine", f"{address}: {told}", advice), {}
        return problem("engine", f"{address}: {error.message}", START), {}
    if not isinstance(info, dict) or "model_path" not in info:
        return problem("engine", f"what answers at {address} is no SGLang engine", START), {}
    several = endpoint.client.standing.get("engines", {"up": 1, "of": 1})
    if several["up"] < several["of"]:
        return warning("engine", f"only {several['up']} of {several['of']} answer, of {address}", EACH), info
    return fine("engine", f"answers at {address} in {1000 * (time.perf_counter() - began):.0f} ms"), info


async def _unavailable(url: str, address: str) -> Finding:
    """Why there is no answer: nobody is there, it is not one that we can talk to, or it can't answer yet."""
    parts = urlsplit(url)
    try:
        async with asyncio.timeout(INFO_TIMEOUT):
            tls = parts.scheme == "https"
            _, writer = await asyncio.open_connection(parts.hostname, parts.port or (443 if tls else 80), ssl=tls or None)
    except ssl.SSLCertVerificationError:
        return problem("engine", f"the certificate of {address} is not trusted here", "Set SSL_CERT_FILE to a file that holds who has signed it.")
    except ssl.SSLError:
        return problem("engine", f"what is at {address} speaks no TLS", f"Name it {address.replace('https', 'http', 1)} instead.")
    except (OSError, TimeoutError, ValueError):  # ValueError: several addresses
        return problem("engine", f"nothing answers at {address}", START)
    writer.close()
    return problem("engine", f"what is at {address} says that it can't answer yet", "It may be loading: look again in a minute, or at its log.")


async def release(endpoint: Gemma3nEndpoint) -> Finding:
    """Its version: other ones mostly work, but are not what this release was tried with."""
    try:
        info = await endpoint.client.get("/server_info", timeout=INFO_TIMEOUT)
    except EngineError:
        info = {}
    found = info.get("version") if isinstance(info, dict) else None
    if found == SGLANG_VERSION:
        return fine("version", f"SGLang {found}")
    advice = f"This release was tried with SGLang {SGLANG_VERSION}: gemma3n engine install"
    return warning("version", f"SGLang {found}" if found else "it does not tell", advice)


def model(info: dict[str, Any]) -> Finding:
    """That it is a Gemma 3n, and has a name that can be shown."""
    architectures = ", ".join(info.get("architectures") or []) or "something unknown"
    if "gemma3n" not in str(info.get("model_type") or architectures).lower() and info.get("model_type"):
        return problem("model", f"it serves {architectures}, which is no Gemma 3n", START)
    if name := served_name(info):
        return fine("model", f"{name} ({architectures})")
    return warning("model", "it has no name but its path", "Start the engine with --served-model-name, so that clients can ask for it by name.")


def media(info: dict[str, Any]) -> Finding:
    lacking = [kind for kind, name in (("pictures", "has_image_understanding"), ("sound", "has_audio_understanding")) if info.get(name) is False]
    if lacking:
        return problem("media", f"it takes no {' and no '.join(lacking)}", MEDIA)
    return fine("media", "it takes pictures and sound")


async def template(endpoint: Gemma3nEndpoint) -> list[Finding]:
    """Whether the checkpoint's own template makes the same tokens of a conversation as ours, and how much fits in."""
    differing, length = [], 0
    try:
        for talk in TALKS:
            theirs = await endpoint.client.post("/v1/tokenize", {"messages": _messages(talk)})
            ours = await endpoint.client.post("/v1/tokenize", {"prompt": prompt_of(talk)})
            length = theirs.get("max_model_len") or length
            if theirs["tokens"] != ours["tokens"]:
                differing.append(talk.last.text.strip())
    except (Gemma3nError, KeyError, AttributeError, TypeError):
        return [warning("template", "it does not tell how it makes prompts", f"That needs SGLang {SGLANG_VERSION}: gemma3n engine install")]
    context = [fine("context", f"{length} tokens")] if length else []
    if differing:
        advice = "Take the checkpoint's own chat_template.jinja: an engine started with --chat-template, or a changed checkpoint, answers worse."
        return [*context, problem("template", f"it makes other prompts than ours, such as of {differing[0]!r}", advice)]
    return [*context, fine("template", f"it makes the same prompts as ours of {len(TALKS)} conversations")]


async def answer(endpoint: Gemma3nEndpoint, what: str) -> Finding:
    """One of QUESTIONS asked end to end, as a client's would be."""
    registry, talk = Registry.discover(), Conversation.of(*QUESTIONS[what]())
    program, options = registry.choose(MODEL, talk)
    began = time.perf_counter()
    try:
        sampling, budget = Sampling(temperature=0, max_tokens=ANSWER), Budget(seconds=PATIENCE)
        done = await running.run(program, program.bind(talk, options), endpoint, sampling, budget)
    except (RunTimeout, EngineTimeout):
        return problem(what, f"no answer within {PATIENCE:g} s", "The engine has too much to do or hangs: look at its log.")
    except Gemma3nError as error:
        return problem(what, error.message, "Look at the engine's log: `gemma3n engine status` says where it is.")
    seconds, usage = time.perf_counter() - began, done.usage
    return fine(what, f"{done.answer.strip()!r} in {seconds:.2f} s ({usage.prompt_tokens}+{usage.completion_tokens} tokens)")


def _messages(talk: Conversation) -> list[dict[str, str]]:
    system = [{"role": "system", "content": talk.system}] if talk.system else []
    return system + [{"role": turn.role, "content": "".join(str(part) for part in turn.parts)} for turn in talk.turns]


def _red_square() -> bytes:
    """A red square on white, as BMP."""
    inside = range(SIDE // 4, 3 * SIDE // 4)
    pixels = b"".join(b"\x20\x20\xe0" if x in inside and y in inside else b"\xff\xff\xff" for y in range(SIDE) for x in range(SIDE))
    head = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54 + len(pixels), 0, 0, 54, 40, SIDE, SIDE, 1, 24, 0, len(pixels), 2835, 2835, 0, 0)
    return head + pixels


def _tone() -> Audio:
    """A second of 440 Hz."""
    return Audio.from_pcm(array("h", (int(8000 * math.sin(2 * math.pi * 440 * i / RATE)) for i in range(RATE))).tobytes())


QUESTIONS: dict[str, Callable[[], tuple[Part, ...]]] = {
    "text": lambda: ("Say hello.",),
    "picture": lambda: (open_image(_red_square()), "What is in this image?"),
    "sound": lambda: (_tone(), "What do you hear?"),
}
"""What is asked of every engine."""
