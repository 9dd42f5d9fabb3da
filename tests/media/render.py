"""Renders the pictures and sounds in this folder: `python tests/media/render.py`.

They are committed, so that the tests need neither this script nor espeak-ng, the speech synthesiser it calls (Debian:
`apt-get install espeak-ng`). `digits.json` tells what is said: for each file its length in seconds and the digits of each clip it is
cut into.
"""

from __future__ import annotations

import io
import json
import subprocess
from pathlib import Path

import av
import numpy as np
from PIL import Image, ImageDraw

from gemma3n_sgl.conversation import SAMPLE_RATE
from gemma3n_sgl.media import decode, open_recording

HERE = Path(__file__).parent
WORDS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
STAR = [(150, 20), (170, 80), (235, 80), (183, 118), (203, 180), (150, 142), (97, 180), (117, 118), (65, 80), (130, 80)]
COLOURS = {"red": (220, 20, 30), "blue": (30, 60, 220), "yellow": (250, 220, 0), "green": (0, 150, 50)}

SOUNDS = {
    "314.wav": ("pcm_s16le", "wav"),
    "314-8bit.wav": ("pcm_u8", "wav"),
    "314-24bit.wav": ("pcm_s24le", "wav"),
    "314-32bit.wav": ("pcm_s32le", "wav"),
    "314-float.wav": ("pcm_f32le", "wav"),
    "314-mulaw.wav": ("pcm_mulaw", "wav"),
    "314-alaw.wav": ("pcm_alaw", "wav"),
    "314.aiff": ("pcm_s16be", "aiff"),
    "314.mp3": ("libmp3lame", "mp3"),
    "314.flac": ("flac", "flac"),
    "314.ogg": ("vorbis", "ogg"),
    "314.opus": ("libopus", "ogg"),
    "314.m4a": ("aac", "ipod"),
    "314-alac.m4a": ("alac", "ipod"),
    "314.aac": ("aac", "adts"),
    "314.webm": ("libopus", "webm"),
}
"""File → libav's names of its codec and its container."""

LONG = {
    "20s.mp3": (20, [("27", 0.0), ("182", 2.0)], ["2 7 1 8 2"]),
    "29s.opus": (29, [("4629", 0.0)], ["4 6 2 9"]),
    "31s.mp3": (31, [("412", 0.1), ("368", 28.5)], ["4 1 2", "3 6 8"]),
    "2min.mp3": (
        121,
        [("781", 0.1), ("5650", 28.2), ("14426", 57.1), ("942", 86.0), ("8738", 114.9)],
        ["7 8 1", "5 6 5 0", "1 4 4 2 6", "9 4 2", "8 7 3 8"],
    ),
}
"""File → its seconds, groups of digits and when each is said, and what each of its clips says."""

APART = "zero-to-nine.opus"
"""Digits of which fluent speech is made, one every two seconds."""


def main() -> None:
    for name, (codec, container) in SOUNDS.items():
        (HERE / name).write_bytes(encoded(speech("314"), codec, container))
    told = {name: {"seconds": round(len(speech("314")) / SAMPLE_RATE, 1), "clips": ["3 1 4"]} for name in SOUNDS}
    for name, (seconds, groups, said) in LONG.items():
        codec, container = ("libopus", "ogg") if name.endswith("opus") else ("libmp3lame", "mp3")
        (HERE / name).write_bytes(encoded(placed(groups, seconds), codec, container))
        told[name] = {"seconds": seconds, "clips": said}
    slow = placed([(str(digit), 2 * digit + 0.5) for digit in range(10)], 20, pace=120)
    (HERE / APART).write_bytes(encoded(slow, "libopus", "ogg"))
    (HERE / "digits.json").write_text(json.dumps(told, indent=1) + "\n")
    pictures()


def speech(digits: str, pace: int = 150) -> np.ndarray:
    """Digits spoken in one breath: 16-bit samples at 16 kHz."""
    text = " ".join(WORDS[int(digit)] for digit in digits)
    wav = subprocess.run(["espeak-ng", "-v", "en-us", "-s", str(pace), "--stdout", text], capture_output=True, check=True).stdout
    return np.frombuffer(decode(open_recording(wav)).raw_data, dtype="<i2")


def placed(groups: list[tuple[str, float]], seconds: float, pace: int = 150) -> np.ndarray:
    """Groups of digits, each said at its second, with silence between."""
    sound = np.zeros(round(seconds * SAMPLE_RATE), dtype="<i2")
    for digits, start in groups:
        said = speech(digits, pace)
        at = round(start * SAMPLE_RATE)
        sound[at : at + len(said)] = said
    return sound


def encoded(samples: np.ndarray, codec: str, container: str) -> bytes:
    """A file of mono sound, but stereo for libav's Vorbis, which knows nothing else; Opus at its 48 kHz, G.711 at 8 kHz."""
    rate = {"libopus": 48_000, "pcm_mulaw": 8_000, "pcm_alaw": 8_000}.get(codec, SAMPLE_RATE)
    layout = "stereo" if codec == "vorbis" else "mono"
    bit_rate = None if codec.startswith(("pcm", "flac", "alac")) else 24_000 if codec != "vorbis" else 64_000
    out = io.BytesIO()
    with av.open(out, "w", format=container, options={"fflags": "+bitexact"}) as file:
        stream = file.add_stream(codec, rate=rate, layout=layout, options={"strict": "experimental"} if codec == "vorbis" else {})
        if bit_rate:
            stream.bit_rate = bit_rate
        stream.codec_context.open()
        resampler = av.AudioResampler(stream.format.name, layout, rate, frame_size=stream.codec_context.frame_size or 1024)
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        for piece in [*resampler.resample(frame), *resampler.resample(None), None]:
            file.mux(stream.encode(piece))
    return out.getvalue()


def pictures() -> None:
    red, blue, yellow, green = shape("red"), shape("blue"), shape("yellow"), shape("green")
    red.save(HERE / "red-circle.png")
    blue.save(HERE / "blue-square.jpg", quality=90)
    yellow.save(HERE / "yellow-star.webp", lossless=True)
    green.save(HERE / "green-triangle.gif")
    red.convert("CMYK").save(HERE / "red-circle-cmyk.jpg", quality=90)
    exif = Image.Exif()
    exif[274] = 6  # "turn it clockwise to see it upright"
    blue.transpose(Image.Transpose.ROTATE_90).save(HERE / "blue-square-rotated.jpg", quality=90, exif=exif)
    Image.fromarray(np.linspace(0, 65535, 256 * 16).astype(np.uint16).reshape(16, 256)).save(HERE / "grey-16bit.png")
    clear = red.convert("RGBA")
    clear.putdata([(*pixel[:3], 0 if pixel[:3] == (255, 255, 255) else 255) for pixel in clear.get_flattened_data()])
    clear.save(HERE / "red-circle-alpha.png")
    red.save(HERE / "animated.gif", save_all=True, append_images=[blue, yellow], duration=200)
    whole = io.BytesIO()
    red.save(whole, "PNG")
    (HERE / "cut-off.png").write_bytes(whole.getvalue()[: len(whole.getvalue()) * 2 // 3])


def shape(colour: str) -> Image.Image:
    """A shape on a ground of 300 × 200 px: red circle, blue square (in the upper left), yellow star, green triangle."""
    picture = Image.new("RGB", (300, 200), (40, 40, 60) if colour == "yellow" else "white")
    draw = ImageDraw.Draw(picture)
    if colour == "red":
        draw.ellipse([100, 50, 200, 150], fill=COLOURS["red"])
    elif colour == "blue":
        draw.rectangle([30, 20, 130, 120], fill=COLOURS["blue"])
    elif colour == "yellow":
        draw.polygon(STAR, fill=COLOURS["yellow"])
    else:
        draw.polygon([(150, 40), (220, 160), (80, 160)], fill=COLOURS["green"])
    return picture


if __name__ == "__main__":
    main()
