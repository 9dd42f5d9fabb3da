"""What it costs to make media ready for the engine: `python bench/media.py [--rounds 5]`

A JPEG of 24 megapixels and 10 minutes of MP3, by bare Pillow and PyAV doing the same, by us, and by us in a process apart, as the server
does with strangers' files; in turn, the best of ROUNDS. Prints one JSON line: milliseconds, and ratios to the bare libraries. Ends with an error
above 1.3 for the picture and 1.2 for the sound.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import PIL.Image
from hearing import mp3, talk
from PIL.Image import Resampling

from gemma3n_sgl.conversation import SAMPLE_RATE
from gemma3n_sgl.media import Limits, open_image, open_recording
from gemma3n_sgl.media.decoding import blocks
from gemma3n_sgl.media.limits import Apart

WIDTH, HEIGHT = 6000, 4000
READY = (1536, 1024)
"""The size in which such a picture goes to the engine."""

APART = Limits(apart=Apart())
LIMITS = {"picture": 1.3, "picture_apart": 1.3, "sound": 1.2, "sound_apart": 1.2}


def photograph() -> bytes:
    """Something like one: soft shapes with some grain."""
    rng = np.random.default_rng(0)
    soft = PIL.Image.fromarray(rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)).resize((WIDTH, HEIGHT), Resampling.BICUBIC)
    grain = rng.integers(-8, 9, (HEIGHT, WIDTH, 1), dtype=np.int16)
    out = io.BytesIO()
    PIL.Image.fromarray((np.asarray(soft) + grain).clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()


def bare_picture(data: bytes) -> None:
    picture = PIL.Image.open(io.BytesIO(data))
    picture.draft(None, READY)
    picture.resize(READY, Resampling.LANCZOS, reducing_gap=3).save(io.BytesIO(), "JPEG", quality=92, subsampling=0)


def bare_sound(path: Path) -> None:
    resampler = av.AudioResampler("s16", "mono", SAMPLE_RATE)
    with av.open(str(path)) as container:
        for frame in container.decode(audio=0):
            for piece in resampler.resample(frame):
                bytes(piece.planes[0])


def our_sound(path: Path, limits: Limits) -> None:
    for _ in blocks(open_recording(path, limits=replace(limits, max_audio_seconds=None))):
        pass


def milliseconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - start)


def measure(rounds: int, folder: Path) -> dict[str, float]:
    picture, sound = photograph(), mp3(folder / "ten.mp3", talk(600))
    ways: dict[str, Callable[[], object]] = {
        "picture_bare": lambda: bare_picture(picture),
        "picture": lambda: open_image(picture),
        "picture_apart": lambda: open_image(picture, limits=APART),
        "sound_bare": lambda: bare_sound(sound),
        "sound": lambda: our_sound(sound, Limits()),
        "sound_apart": lambda: our_sound(sound, APART),
    }
    times = [{name: milliseconds(way) for name, way in ways.items()} for _ in range(rounds)]
    best = {name: min(each[name] for each in times) for name in ways}
    ratios = {name: best[name] / best[f"{name.partition('_')[0]}_bare"] for name in LIMITS}
    return {f"{name}_ms": round(value) for name, value in best.items()} | {f"{name}_ratio": round(value, 2) for name, value in ratios.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(parser.parse_args().rounds, Path(folder))
    print(json.dumps(figures))
    sys.exit(", ".join(name for name, most in LIMITS.items() if figures[f"{name}_ratio"] > most) or 0)
