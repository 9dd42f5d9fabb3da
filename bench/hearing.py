"""What it costs to hear a long recording: `python bench/hearing.py [--minutes 60] [--pause 1.4] [--engine URL] [--rounds 3]`

Makes an MP3 of so many minutes (44.1 kHz, stereo, 128 kbit/s) of the digits in tests/media, with pauses of up to PAUSE seconds between them: with 1.4
they make clips of 20 to 29 s, all filled up to 29.5 s, of some fourteen digits, which the small model writes down. Tells what decoding and cutting
take, and what `transcribe` takes, in a process of its own, over the engine at URL, else over a paced stand-in (80 tokens a clip at 200 a second).
Beside it a bare asyncio client sends the same clips all at once; they are decoded and cut for it before. Give a real engine a core of its own
(`taskset`), or what decoding takes from it counts against us alone. Ends with an error if a promise is broken:
150 MB above idle, 0.3 s to cut an hour, the first text within 1.5 × one clip alone, and, with a real engine, 1.1 × the bare client in all.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TypeVar

import aiohttp
import av
import numpy as np
import psutil
from processes import HERE, paced_engine

sys.path.insert(0, str(HERE.parent))

from gemma3n_sgl import running
from gemma3n_sgl.conversation import MAX_CLIP_SECONDS, SAMPLE_RATE, Audio
from gemma3n_sgl.endpoint import Gemma3nEndpoint
from gemma3n_sgl.events import Delta
from gemma3n_sgl.hearing import MAX_TOKENS
from gemma3n_sgl.media import Clip, clips, open_recording
from gemma3n_sgl.media.cutting import Cutter
from gemma3n_sgl.media.decoding import blocks
from gemma3n_sgl.media.frames import Gap
from gemma3n_sgl.program import Program
from gemma3n_sgl.running import Budget
from programs.transcribe import transcribe

T = TypeVar("T")

DIGITS = HERE.parent / "tests/media/zero-to-nine.opus"
PROMPT = "<start_of_turn>user\n<audio_soft_token>Transcribe this audio.<end_of_turn>\n<start_of_turn>model\n"
LONG = 29.0
"""Seconds of a recording that is a single clip."""


def talk(seconds: float, pause: float = 1.4) -> np.ndarray:
    rng = random.Random(0)
    digits = [np.frombuffer(part.sound.pcm, dtype="<i2") for part in clips(open_recording(DIGITS), 2) if isinstance(part, Clip)]
    pieces: list[np.ndarray] = []
    while sum(map(len, pieces)) < seconds * SAMPLE_RATE:
        pieces += [rng.choice(digits), np.zeros(round(rng.uniform(pause / 2, pause) * SAMPLE_RATE), dtype="<i2")]
    return np.concatenate(pieces)[: round(seconds * SAMPLE_RATE)]


def mp3(path: Path, samples: np.ndarray) -> Path:
    with av.open(str(path), "w", format="mp3") as file:
        stream = file.add_stream("libmp3lame", rate=44_100, layout="stereo")
        stream.bit_rate = 128_000
        resampler = av.AudioResampler("s16p", "stereo", 44_100, frame_size=1152)
        for start in range(0, len(samples), SAMPLE_RATE):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + SAMPLE_RATE], format="s16", layout="mono")
            frame.sample_rate = SAMPLE_RATE
            for piece in resampler.resample(frame):
                file.mux(stream.encode(piece))
        file.mux(stream.encode(None))
    return path


@dataclass(frozen=True)
class Heard:
    """What hearing a recording took: seconds to the first text and in all, MB above idle at most, and the text."""

    first: float
    seconds: float
    mb: float
    text: str


async def by_program(url: str, path: Path) -> Heard:
    endpoint, process = Gemma3nEndpoint(url), psutil.Process()
    peak = idle = process.memory_info().rss
    arguments = {"recording": open_recording(path), "language": "", "prompt": "", "timestamps": False}
    start, first, said = time.perf_counter(), 0.0, ""
    async for event in running.stream(Program.of(transcribe), arguments, endpoint, budget=Budget(3600)):
        peak = max(peak, process.memory_info().rss)
        if isinstance(event, Delta):
            first = first or time.perf_counter() - start
            said += event.text
    seconds = time.perf_counter() - start
    await endpoint.client.aclose()
    return Heard(first, seconds, (peak - idle) / 1e6, said)


def in_a_process(url: str, *paths: Path) -> list[Heard]:
    """Hear the recordings one after the other in a fresh process."""
    command = [sys.executable, __file__, "--engine", url, "--hear", *map(str, paths)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return [Heard(**json.loads(line)) for line in done.stdout.splitlines()]


def forget(url: str) -> None:
    """Empty the engine's cache, in which each clip would else be found that was heard before; it is refused as long as something is at work."""
    asked = urllib.request.Request(f"{url}/flush_cache?timeout=60", method="POST")
    urllib.request.urlopen(asked, timeout=90).close()


async def by_hand(url: str, sounds: list[Audio]) -> float:
    """Seconds for the clips asked by a bare client, all at once: the engine has its own limit."""
    connections = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connections, timeout=aiohttp.ClientTimeout(3600)) as session:

        async def ask(sound: Audio) -> None:
            sampling = {"temperature": 0, "max_new_tokens": MAX_TOKENS}
            body = {"text": PROMPT, "audio_data": sound.data_uri, "sampling_params": sampling, "stream": True}
            async with session.post(f"{url}/generate", json=body) as response:
                response.raise_for_status()
                async for _ in response.content:
                    pass

        start = time.perf_counter()
        await asyncio.gather(*map(ask, sounds))
        return time.perf_counter() - start


def timed(work: Callable[[], T]) -> tuple[float, T]:
    start = time.perf_counter()
    result = work()
    return time.perf_counter() - start, result


def cut(pieces: Sequence[bytes | Gap]) -> int:
    """How many clips the samples are cut into."""
    cutter = Cutter(MAX_CLIP_SECONDS)
    count = sum(len(list(cutter.feed(piece))) for piece in pieces if isinstance(piece, bytes))
    return count + len(list(cutter.pause(0)))


def measure(folder: Path, minutes: int, pause: float, url: str | None, rounds: int) -> dict[str, float]:
    samples = talk(60 * minutes, pause)
    whole, one = mp3(folder / "whole.mp3", samples), mp3(folder / "one.mp3", samples[-int(LONG * SAMPLE_RATE) :])
    decoding, pieces = timed(lambda: list(blocks(open_recording(whole))))
    cutting, count = min(timed(lambda: cut(pieces)) for _ in range(3))
    sounds = [part.sound.padded(MAX_CLIP_SECONDS) for part in clips(open_recording(whole)) if isinstance(part, Clip)]
    figures = {"minutes": minutes, "clips": count, "decode_s": decoding, "cut_s": cutting}
    with paced_engine(tokens=80, rate=200) if not url else nullcontext() as port:
        engine = url or f"http://127.0.0.1:{port}"
        ratios, firsts = [], []
        for _ in range(rounds):
            forget(engine)
            alone, long = in_a_process(engine, one, whole)
            forget(engine)
            bare = asyncio.run(by_hand(engine, sounds))
            ratios.append(long.seconds / bare)
            firsts.append(long.first / alone.seconds)
        figures |= {"one_clip_s": alone.seconds, "first_text_s": long.first, "all_s": long.seconds, "bare_client_s": bare, "mb_above_idle": long.mb}
        figures["all_to_bare_client_that_decodes_first"] = long.seconds / (decoding + cutting + bare)
        figures |= {"first_to_one_clip": median(firsts), "all_to_bare_client": median(ratios), "characters": len(long.text)}
    return {name: round(value, 3) for name, value in figures.items()}


def broken(figures: dict[str, float], real: bool) -> list[str]:
    limits = {"mb_above_idle": 150, "cut_s": max(0.3 * figures["minutes"] / 60, 0.05), "first_to_one_clip": 1.5}
    return [name for name, most in (limits | ({"all_to_bare_client": 1.1} if real else {})).items() if figures[name] > most]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=int, default=60)
    parser.add_argument("--pause", type=float, default=1.4)
    parser.add_argument("--engine", help="URL of a real engine; default: a paced stand-in")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hear", nargs="*", type=Path, default=[], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.hear:
        for path in given.hear:
            print(json.dumps(asdict(asyncio.run(by_program(given.engine, path)))), flush=True)
        sys.exit()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), given.minutes, given.pause, given.engine, given.rounds)
    print(json.dumps(figures))
    sys.exit(", ".join(broken(figures, bool(given.engine))) or 0)
