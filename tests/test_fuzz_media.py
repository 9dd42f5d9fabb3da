"""Pictures and sounds damaged by chance, but the same every time: each is taken, or refused with a sentence; never a crash, a hang, or memory lost.

`python tests/test_fuzz_media.py SEED COUNT` tries others. It prints what came of each format, how often a decoder died of a file (which costs that
file alone), and each file that was not answered as it should be.
"""

from __future__ import annotations

import base64
import io
import logging
import random
import re
import struct
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import PIL.Image
import psutil
import pytest
from serving import serving

from gemma3n_sgl.errors import Gemma3nError
from gemma3n_sgl.media import Limits, batches, open_image, open_recording, open_sound
from gemma3n_sgl.media.limits import Apart
from gemma3n_sgl.settings import Settings

MEDIA = Path(__file__).parent / "media"
IMAGES = (".png", ".jpg", ".gif", ".webp")
LIMITS = Limits(max_audio_seconds=300, apart=Apart(seconds=5, megabytes=512))
SLOW = 8.0
INNER = re.compile(r"Errno|Traceback|libav|ffmpeg|PIL|0x[0-9a-f]{6}|/tmp|/work|Error\b|av\.|moov|Invalid data")
NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0xFFFFFFFE, 0x10000, 24, 0x01000000)

Chance = random.Random


@cache
def pictures() -> dict[str, bytes]:
    """One or more of every format that is taken."""
    found = {path.name: path.read_bytes() for path in sorted(MEDIA.iterdir()) if path.suffix in IMAGES}
    photo = PIL.Image.open(MEDIA / "blue-square.jpg").resize((96, 64))
    grey = PIL.Image.fromarray((np.arange(64 * 48, dtype=np.uint16) * 20).reshape(48, 64))
    forms: dict[str, tuple[PIL.Image.Image, dict[str, Any]]] = {
        "a.bmp": (photo, {}),
        "a.tif": (photo, {}),
        "lzw.tif": (photo, {"compression": "tiff_lzw"}),
        "jpeg.tif": (photo, {"compression": "jpeg"}),
        "deflate.tif": (grey, {"compression": "tiff_adobe_deflate"}),
        "fax.tif": (photo.convert("1"), {"compression": "group4"}),
        "several.tif": (photo, {"save_all": True, "append_images": [photo, photo]}),
        "a.avif": (photo, {}),
        "progressive.jpg": (photo, {"progressive": True}),
        "a.mpo": (photo, {"save_all": True, "append_images": [photo]}),
        "animated.webp": (photo, {"save_all": True, "append_images": [photo.rotate(9)]}),
        "lossless.webp": (photo, {"lossless": True}),
        "animated.png": (photo, {"save_all": True, "append_images": [photo.rotate(9)]}),
        "palette.png": (photo.convert("P"), {}),
    }
    for name, (image, options) in forms.items():
        out = io.BytesIO()
        image.save(out, {"tif": "TIFF", "jpg": "JPEG"}.get(name.split(".")[1], name.split(".")[1].upper()), **options)
        found[name] = out.getvalue()
    return found


@cache
def sounds() -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in sorted(MEDIA.iterdir()) if path.suffix not in (*IMAGES, ".json", ".py")}
    found.pop("2min.mp3")
    for form, codec, rate in (("amr", "libopencore_amrnb", 8000), ("mp4", "aac", 44100), ("caf", "alac", 44100), ("3gp", "aac", 16000)):
        if codec in av.codecs_available:
            found[f"made.{form}"] = _encoded(form, codec, rate)
    return found


def _encoded(form: str, codec: str, rate: int) -> bytes:
    out = io.BytesIO()
    with closing(av.open(out, "w", format=form)) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        tone = (np.sin(np.arange(rate) / 20) * 9000).astype("<i2").reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
        frame.sample_rate = rate
        fifo = av.AudioResampler(stream.codec_context.format, "mono", rate, stream.codec_context.frame_size or 1024)
        for piece in [*fifo.resample(frame), *fifo.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return out.getvalue()


def mutated(data: bytes, other: bytes, chance: Chance) -> bytes:
    """A file with one to six things wrong with it, most of them near its beginning, where the headers are."""
    damaged = bytearray(data)
    for _ in range(chance.choice([1, 1, 1, 2, 3, 6])):
        near = chance.choice([32, 128, 1024, len(damaged) or 1])
        at = chance.randrange(min(near, len(damaged)) or 1)
        size = chance.choice([1, 2, 4, 16, 256, 4096])
        how: list[Callable[[], Any]] = [
            lambda at=at: damaged.__setitem__(slice(at, at + 1), bytes([chance.randrange(256)])),
            lambda at=at: damaged.__setitem__(slice(at, at + 1), bytes([(damaged[at] if at < len(damaged) else 0) ^ 1 << chance.randrange(8)])),
            lambda at=at: damaged.__setitem__(slice(at, at + 4), struct.pack(chance.choice("<>") + "I", chance.choice(NUMBERS))),
            lambda at=at: damaged.__setitem__(slice(at, at + 2), struct.pack(chance.choice("<>") + "H", chance.choice(NUMBERS) & 0xFFFF)),
            lambda at=at, size=size: damaged.__delitem__(slice(at, at + size)),
            lambda at=at, size=size: damaged.__setitem__(slice(at, at), damaged[at : at + size] * chance.choice([1, 2, 50])),
            lambda at=at, size=size: damaged.__setitem__(slice(at, at + size), chance.randbytes(size)),
            lambda at=at, size=size: damaged.__setitem__(slice(at, at + size), bytes(size)),
            lambda at=at: damaged.__delitem__(slice(max(at, 12), None)),
            lambda at=at: damaged.__setitem__(slice(at, None), other[chance.randrange(len(other)) :]),
        ]
        chance.choice(how)()
    return bytes(damaged[:2_000_000])


def opened(name: str, data: bytes) -> str:
    """What comes of a file: "taken", or the code of what it is refused with. What is wrong with that is an AssertionError."""
    began = time.monotonic()
    try:
        if name in pictures():
            image = open_image(data, limits=LIMITS)
            assert min(image.width, image.height) >= 8 and max(image.width, image.height) <= 4096, "a picture without measure"
        else:
            open_sound(data, limits=LIMITS)
            for ready in batches(open_recording(data, limits=LIMITS)):
                assert len(ready) < 100
        return "taken"
    except Gemma3nError as error:
        assert error.status in (400, 413), f"status {error.status}"
        assert error.message.endswith(".") and not INNER.search(error.message), error.message
        return error.code
    finally:
        assert time.monotonic() - began < SLOW, f"took {time.monotonic() - began:.1f} s"


def files(seed: int, count: int) -> Iterator[tuple[str, bytes]]:
    """`count` damaged files, each with the name of what it was."""
    chance, whole = Chance(seed), pictures() | sounds()
    names = sorted(whole)
    for _ in range(count):
        name = chance.choice(names)
        yield name, mutated(whole[name], whole[chance.choice(names)], chance)


@contextmanager
def deaths() -> Iterator[list[str]]:
    """What the log tells of decoders that died, in the block."""
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("gemma3n")
    logger.addHandler(handler)
    try:
        yield told
    finally:
        logger.removeHandler(handler)


def tried(seed: int, count: int, keep: Path | None = None) -> tuple[Counter[tuple[str, str]], list[str], list[str]]:
    """What came of the files by format, what was wrong, and the decoders that died. Files of both kinds are kept in `keep`."""
    outcomes, wrong = Counter[tuple[str, str]](), []
    with deaths() as died:
        for number, (name, data) in enumerate(files(seed, count)):
            before = len(died)
            try:
                outcomes[name.rpartition(".")[2], opened(name, data)] += 1
            except Exception as error:
                wrong.append(f"{seed}/{number} {name}: {type(error).__name__}: {error}")
            if keep is not None and (len(died) > before or (wrong and wrong[-1].startswith(f"{seed}/{number} "))):
                (keep / f"{seed}-{number}-{name}").write_bytes(data)
    return outcomes, wrong, died


@pytest.mark.slow
def test_whole_files_of_every_format_are_taken():
    """Else nothing is tried of a format below."""
    refused = {name: opened(name, data) for name, data in (pictures() | sounds()).items()}
    assert {name for name, outcome in refused.items() if outcome != "taken"} <= {"cut-off.png", "made.caf"}


@pytest.mark.slow
def test_damaged_files_are_taken_or_refused_with_a_sentence():
    opened("red-circle.png", pictures()["red-circle.png"])
    tried(seed=1, count=20)
    before = psutil.Process().memory_info().rss
    outcomes, wrong, died = tried(seed=7, count=400)
    assert wrong == []
    assert len(died) <= 2, died
    assert {outcome for _, outcome in outcomes} >= {"taken", "invalid_media"}
    assert psutil.Process().memory_info().rss - before < 16e6


@pytest.mark.engine
def test_the_real_engine_survives_what_damaged_files_become(engine: str):
    """A sample of them over HTTP: each answered or refused, and the engine answers right afterwards."""
    whole = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + base64.b64encode(pictures()["red-circle.png"]).decode()}}
    with serving(Settings(runtime_url=engine)) as served:
        served.http.timeout = 120

        def ask(*parts: dict[str, Any], tokens: int = 4) -> Any:
            return served.ask([*parts, {"type": "text", "text": "Describe this image."}], max_tokens=tokens, temperature=0)

        before = ask(whole, tokens=24).json()["choices"][0]["message"]["content"]
        statuses = Counter[int]()
        for name, data in files(11, 80):
            encoded = base64.b64encode(data).decode()
            if name in pictures():
                part: dict[str, Any] = {"type": "image_url", "image_url": {"url": f"data:;base64,{encoded}"}}
            else:
                part = {"type": "input_audio", "input_audio": {"data": encoded, "format": "wav"}}
            answer = ask(part)
            assert answer.status_code in (200, 400, 413), answer.text
            statuses[answer.status_code] += 1
        assert set(statuses) >= {200, 400}
        assert served.http.get("/health").status_code == 200
        assert ask(whole, tokens=24).json()["choices"][0]["message"]["content"] == before
        assert "circle" in before.lower()


if __name__ == "__main__":
    came_of, failed, dead = tried(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]) if len(sys.argv) > 3 else None)
    print(*(f"{form:5} {outcome:16} {count}" for (form, outcome), count in sorted(came_of.items())), *dead, *failed, sep="\n")
    resident = psutil.Process().memory_info().rss // 2**20
    print(f"{len(failed)} of {sys.argv[2]} not answered as they should be; {len(dead)} decoders died; {resident} MB resident")
    sys.exit(bool(failed))
