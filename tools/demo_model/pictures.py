"""Pictures by rule: a shape, several shapes, a printed number, a plain colour, and parts of pictures, with what each of 16 × 16 places shows."""

from __future__ import annotations

import colorsys
import io
import math
import random
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GRID = 16
NO_LABEL = 255
COLOURS = {  # hue in degrees, saturation, value: from, to
    "red": ((-8, 6), (0.8, 1), (0.7, 1)),
    "orange": ((24, 36), (0.85, 1), (0.9, 1)),
    "yellow": ((50, 62), (0.75, 1), (0.88, 1)),
    "green": ((95, 148), (0.6, 1), (0.4, 0.88)),
    "blue": ((208, 244), (0.7, 1), (0.55, 1)),
    "purple": ((270, 294), (0.55, 1), (0.45, 0.82)),
    "black": ((0, 360), (0, 0.2), (0, 0.12)),
    "white": ((0, 360), (0, 0.03), (0.94, 1)),
}
SHAPES = ("circle", "square", "triangle", "star")
BACKGROUND = len(COLOURS)
PLAIN, NOTHING, PART, DIGIT = 4, 5, 6, 7
"""Shapes beyond the four, as the places of a picture are labelled."""

LABELS = {"colour": 9, "shape": 8, "digit": 11, "rank": 5, "count": 5, "place": 10}
"""What is known of a place in a picture, and how many values it has; the last means that nothing is there."""

SIZES = [(256, 256)] * 4 + [(320, 240), (240, 300), (400, 300), (300, 200), (160, 120), (128, 128), (512, 512), (640, 480), (768, 768)]
FONT_FILES = {
    "train": [f"DejaVu{n}.ttf" for n in ("Sans", "Sans-Bold", "SansMono", "SansMono-Bold", "Serif", "Serif-Bold", "SansCondensed", "Sans-Oblique")]
    + [f"Liberation{n}.ttf" for n in ("Sans-Regular", "Sans-Bold", "Serif-Regular", "Serif-Bold", "SansNarrow-Bold", "Sans-Italic")]
    + [f"Free{n}.ttf" for n in ("Sans", "SansBold", "Serif", "SerifBold", "SansOblique")],
    "test": ["DejaVuSansCondensed-Bold.ttf", "LiberationMono-Bold.ttf", "LiberationSerif-Italic.ttf", "FreeSansBoldOblique.ttf", "FreeMonoBold.ttf"],
}
Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Seen:
    """What is in a picture. `kind`: shape, plain, number, several, part, nothing; `place` 0–8 from top left to bottom right."""

    kind: str
    colour: str = ""
    shape: str = ""
    number: str = ""
    count: int = 0
    place: int = 4


def drawn(rng: random.Random, kind: str, split: str = "train") -> tuple[Image.Image, np.ndarray, Seen]:
    """A picture at its own size, its labels [6, 16, 16] in the order of LABELS, and what is in it."""
    size = rng.choice(SIZES)
    if kind == "plain":
        image, labels, seen = _plain(rng, size)
    elif kind == "number":
        image, labels, seen = _number(rng, size, split)
    elif kind == "part":
        image, labels, seen = _part(rng)
    else:
        image, labels, seen = _shapes(rng, size, 1 if kind == "shape" else rng.randint(2, 4))
    return _worn(rng, image), labels, seen


def squashed(image: Image.Image) -> np.ndarray:
    """What the model's processor makes of it: uint8 [256, 256, 3]."""
    return np.asarray(image if image.size == (256, 256) else image.resize((256, 256), Image.Resampling.BILINEAR))


def colour_of(rng: random.Random, name: str) -> Colour:
    hue, saturation, value = COLOURS[name]
    return _rgb(rng.uniform(*hue), rng.uniform(*saturation), rng.uniform(*value))


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value))
    return red, green, blue


def _background(rng: random.Random, apart: list[Colour]) -> Colour:
    """White, dark, grey or pale, and far from the colours drawn on it."""
    while True:
        kind = rng.random()
        if kind < 0.3:
            colour = _rgb(rng.uniform(0, 360), rng.uniform(0, 0.08), rng.uniform(0.85, 1))
        elif kind < 0.45:
            colour = _rgb(rng.uniform(0, 360), rng.uniform(0, 0.3), rng.uniform(0, 0.25))
        elif kind < 0.75:
            colour = _rgb(rng.uniform(0, 360), rng.uniform(0, 0.12), rng.uniform(0.2, 0.85))
        else:
            colour = _rgb(rng.uniform(0, 360), rng.uniform(0.12, 0.4), rng.uniform(0.5, 1))
        if all(sum((a - b) ** 2 for a, b in zip(colour, other, strict=True)) > 105**2 for other in apart):
            return colour


def _canvas(rng: random.Random, size: tuple[int, int], apart: list[Colour]) -> Image.Image:
    """A background of one colour or, at times, from one to another."""
    colour = _background(rng, apart)
    if rng.random() > 0.25:
        return Image.new("RGB", size, colour)
    width, height = size
    other, much = _background(rng, apart), rng.uniform(0.1, 0.5)
    along = np.linspace(0, much, height)[:, None, None] if rng.random() < 0.5 else np.linspace(0, much, width)[None, :, None]
    blend = np.array(colour) * (1 - along) + np.array(other) * along
    return Image.fromarray(np.broadcast_to(blend, (height, width, 3)).astype(np.uint8))


def _labels() -> np.ndarray:
    """Nothing anywhere."""
    return np.stack([np.full((GRID, GRID), most - 1 if name != "shape" else NOTHING, np.uint8) for name, most in LABELS.items()])


def _mark(labels: np.ndarray, mask: np.ndarray, **values: int) -> None:
    for index, name in enumerate(LABELS):
        labels[index][mask] = values.get(name, NO_LABEL)


def _cells(mask: Image.Image, least: float = 0.4) -> np.ndarray:
    """The places that a mask covers mostly, or the one it covers most."""
    share = np.asarray(mask.resize((GRID, GRID), Image.Resampling.BOX)) / 255
    return (share >= least) | (share == share.max())


def _plain(rng: random.Random, size: tuple[int, int]) -> tuple[Image.Image, np.ndarray, Seen]:
    name = rng.choice(list(COLOURS))
    labels = _labels()
    _mark(labels, np.ones((GRID, GRID), bool), colour=list(COLOURS).index(name), shape=PLAIN, digit=10, rank=4, count=4, place=9)
    return Image.new("RGB", size, colour_of(rng, name)), labels, Seen("plain", name)


def _shapes(rng: random.Random, size: tuple[int, int], count: int) -> tuple[Image.Image, np.ndarray, Seen]:
    """One to four shapes that don't touch; of one, what and where it is."""
    scale = 2 if max(size) <= 320 else 1
    wide, high = size[0] * scale, size[1] * scale
    side = min(wide, high)
    names = [rng.choice(list(COLOURS)) for _ in range(count)]
    colours = [colour_of(rng, name) for name in names]
    image, labels, seen = _canvas(rng, (wide, high), colours), _labels(), Seen("several", count=count)
    for name, colour, (x, y, radius) in zip(names, colours, _places(rng, wide, high, side, count), strict=True):
        shape = rng.choice(SHAPES)
        mask = Image.new("L", (wide, high), 0)
        _draw(ImageDraw.Draw(mask), shape, x, y, radius, rng)
        image.paste(Image.new("RGB", (wide, high), colour), (0, 0), mask)
        place = int(y * 3 / high) * 3 + int(x * 3 / wide)
        where = {"place": place if _certain(x / wide) and _certain(y / high) else NO_LABEL} if count == 1 else {"place": 9}
        _mark(labels, _cells(mask), colour=list(COLOURS).index(name), shape=SHAPES.index(shape), digit=10, rank=4, count=count - 1, **where)
        if count == 1:
            seen = Seen("shape", name, shape, place=place, count=1)
    return (image.resize(size, Image.Resampling.BOX) if scale > 1 else image), labels, seen


def _certain(share: float) -> bool:
    """Whether a place is clearly in one third of a side."""
    return min(abs(share - 1 / 3), abs(share - 2 / 3)) > 0.04


def _places(rng: random.Random, wide: int, high: int, side: int, count: int) -> list[tuple[float, float, float]]:
    """Centres and radii (px) of shapes, from a tenth of the side to most of it, apart from each other."""
    while True:
        found: list[tuple[float, float, float]] = []
        for _ in range(60):
            radius = side * (math.exp(rng.uniform(math.log(0.05), math.log(0.42))) if count == 1 else rng.uniform(0.06, 0.2))
            x, y = rng.uniform(radius, wide - radius), rng.uniform(radius, high - radius)
            if all(math.hypot(x - u, y - v) > radius + r + side * 0.04 for u, v, r in found):
                found.append((x, y, radius))
            if len(found) == count:
                return found


def _draw(draw: ImageDraw.ImageDraw, shape: str, x: float, y: float, radius: float, rng: random.Random) -> None:
    if shape == "circle":
        draw.ellipse([x - radius, y - radius, x + radius, y + radius], fill=255)
        return
    corners, turn = {"square": (4, math.pi / 4), "triangle": (3, -math.pi / 2), "star": (10, -math.pi / 2)}[shape]
    turn += rng.uniform(-0.3, 0.3) * rng.choice([0, 1, 1])
    inner = rng.uniform(0.38, 0.48)
    reach = [radius * (inner if shape == "star" and i % 2 else 1) for i in range(corners)]
    points = [(x + r * math.cos(turn + i * 2 * math.pi / corners), y + r * math.sin(turn + i * 2 * math.pi / corners)) for i, r in enumerate(reach)]
    draw.polygon(points, fill=255)


@cache
def _font(file: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(file, size)


def _number(rng: random.Random, size: tuple[int, int], split: str) -> tuple[Image.Image, np.ndarray, Seen]:
    """A printed number of two to four digits, a quarter of the side high or more."""
    text = str(rng.randint(1, 9)) + "".join(rng.choice("0123456789") for _ in range(rng.randint(1, 3)))
    name = rng.choice(list(COLOURS))
    ink = colour_of(rng, name)
    wide, high = size
    file, points = rng.choice(FONT_FILES[split]), 8 + round(high * rng.uniform(0.26, 0.9))
    while (font := _font(file, points)).getlength(text) > wide * 0.94 or font.getbbox(text)[3] > high:
        points = round(points * 0.92)
    left, top, right, bottom = font.getbbox(text)
    x = rng.uniform(0.02 * wide, wide * 0.98 - (right - left)) - left
    y = rng.uniform(0, high - (bottom - top)) - top
    image, labels = _canvas(rng, size, [ink]), _labels()
    ImageDraw.Draw(image).text((x, y), text, font=font, fill=ink)
    centres = (np.arange(GRID) + 0.5) / GRID
    rows = (centres * high > y + top) & (centres * high < y + bottom)
    for rank, digit in enumerate(text):
        begin, end = x + font.getlength(text[:rank]), x + font.getlength(text[: rank + 1])
        columns = (centres * wide >= begin) & (centres * wide < end)
        mask = rows[:, None] & columns[None, :]
        _mark(labels, mask, shape=DIGIT, digit=int(digit), rank=rank, count=4, place=9, colour=list(COLOURS).index(name))
    return image, labels, Seen("number", name, number=text)


def _part(rng: random.Random) -> tuple[Image.Image, np.ndarray, Seen]:
    """A quarter of a picture of one shape, as a closer look sees it."""
    whole, labels, seen = _shapes(rng, rng.choice([(512, 512), (600, 400), (320, 240), (256, 256)]), 1)
    across, down = rng.randrange(2), rng.randrange(2)
    if rng.random() < 0.6:  # rather a quarter with something in it
        across, down = min(1, seen.place % 3), min(1, seen.place // 3)
    width, height = whole.width // 2, whole.height // 2
    image = whole.crop((across * width, down * height, (across + 1) * width, (down + 1) * height))
    inside = np.kron(labels[:, down * 8 : down * 8 + 8, across * 8 : across * 8 + 8], np.ones((2, 2), np.uint8))
    there, total = int((inside[1] < PLAIN).sum()) / 4, int((labels[1] < PLAIN).sum())
    inside[5] = 9
    if there == 0:
        inside[:, :, :] = np.array([NO_LABEL, NOTHING, 10, 4, 4, 9], np.uint8)[:, None, None]
        return image, inside, Seen("nothing")
    if there >= total:
        return image, inside, Seen("shape", seen.colour, seen.shape, count=1)
    inside[1][inside[1] < PLAIN] = PART
    return image, inside, Seen("part", seen.colour, seen.shape)


def _worn(rng: random.Random, image: Image.Image) -> Image.Image:
    """With the noise of a camera and the traces of JPEG, at times."""
    if rng.random() < 0.25:
        noise = np.random.RandomState(rng.randrange(1 << 30)).normal(0, rng.uniform(2, 12), (image.height, image.width, 3))
        image = Image.fromarray((np.asarray(image) + noise).clip(0, 255).astype(np.uint8))
    if rng.random() < 0.6:
        data = io.BytesIO()
        image.save(data, "JPEG", quality=rng.randrange(30, 95))
        image = Image.open(data).convert("RGB")
    return image
