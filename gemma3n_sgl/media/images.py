"""Foreign pictures → `Image`: upright, opaque, RGB, no larger than the model can use, encoded anew.

A picture's size is read from its header and judged before a pixel is decoded: an 81-megapixel PNG may have 10 kB.
"""

from __future__ import annotations

import io
import re
from dataclasses import asdict, replace

import numpy as np
import PIL.Image
from PIL.Image import Resampling, Transpose

from gemma3n_sgl.conversation import Image
from gemma3n_sgl.errors import Gemma3nError, MediaError, TooLarge
from gemma3n_sgl.media.apart import each
from gemma3n_sgl.media.limits import DEFAULTS, Apart, Limits
from gemma3n_sgl.media.sources import Source, content

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
"""The decoders of Pillow's that foreign bytes may reach, of 43. JPEG brings MPO with it, which phones write."""

SEEN = 768
"""Pixels a side of what Gemma 3n sees: its processor squashes every picture to 768 × 768."""

MIN_SIDE = 8
"""Pixels. The engine's processor takes a picture of 1 or 3 rows for one of 1 or 3 channels."""

_LONGEST = 4096
_PNG_COLOURS = 4096
_PNG_PIXELS = 256 * 256
_MAX_SCANS = 100
"""Scans of a progressive JPEG: encoders write about ten, and each costs a pass over the whole picture."""

_TILE_WIDTH, _TILE_LENGTH, _ORIENTATION = 322, 323, 274
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
_HEIC = re.compile(rb".{4}ftyp(heic|heix|heim|heis|hevc|hevx|mif1|msf1)", re.DOTALL)
_SCAN = b"\xff\xda"


def open_image(source: Source | PIL.Image.Image, *, limits: Limits = DEFAULTS) -> Image:
    """A picture from a path, bytes, an open file or a Pillow image; PNG, JPEG, WebP, GIF, BMP, TIFF and AVIF are understood.

    Transparent pixels turn white, of an animation the first frame counts, EXIF orientation is applied. It is scaled down to at most
    1536 px on its longer side, twice what the model sees, so that a closer look in 2 × 2 parts still finds detail; a narrow one keeps
    768 px on its shorter side. Raises MediaError for what is no whole picture, and TooLarge beyond the limits.
    """
    if isinstance(source, Image):
        return source
    if limits.apart is not None and not isinstance(source, PIL.Image.Image):
        return _opened_apart(content(source, limits), limits, limits.apart)
    try:
        picture = source.copy() if isinstance(source, PIL.Image.Image) else _opened(content(source, limits), limits)
        _check_size(picture, limits)
        return _encoded(_normal(picture))
    except (Gemma3nError, MemoryError):
        raise
    except (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning):
        raise _too_many_pixels(limits) from None
    except Exception:  # Pillow's decoders raise whatever they trip over: a dozen kinds, from struct.error to SyntaxError
        raise MediaError("The picture is damaged or cut off: send the whole file, or save it anew as PNG or JPEG.") from None


def _opened_apart(data: bytes, limits: Limits, cost: Apart) -> Image:
    asked = {"limits": asdict(replace(limits, apart=None))}
    for said, encoded in each("image", cost, asked, data):
        picture = Image(encoded, width=said["width"], height=said["height"], media_type=said["media_type"])
    return picture


def tiles(image: Image, rows: int, columns: int) -> list[Image]:
    """The parts of a picture in reading order, for a closer look at each. Raises ValueError if a part would be less than a pixel."""
    if not (1 <= rows <= image.height and 1 <= columns <= image.width):
        raise ValueError(f"a picture of {image.width} × {image.height} pixels can't be cut into {rows} rows and {columns} columns")
    picture = PIL.Image.open(io.BytesIO(image), formats=["PNG", "JPEG"])
    across = [round(i * image.width / columns) for i in range(columns + 1)]
    down = [round(i * image.height / rows) for i in range(rows + 1)]
    boxes = [(across[x], down[y], across[x + 1], down[y + 1]) for y in range(rows) for x in range(columns)]
    return [_encoded(_resized(picture.crop(box))) for box in boxes]


def _opened(data: bytes, limits: Limits) -> PIL.Image.Image:
    """A picture of which the header has been read and found sane, and nothing else."""
    if not data:
        raise MediaError("The picture is empty: it has 0 bytes.")
    if _HEIC.match(data):
        raise MediaError("HEIC pictures are not supported: save it as JPEG or PNG.")
    try:
        picture = PIL.Image.open(io.BytesIO(data), formats=FORMATS)
    except PIL.UnidentifiedImageError:
        raise MediaError("This is no picture, or of an unknown format: PNG, JPEG, WebP, GIF, BMP, TIFF and AVIF are understood.") from None
    _check_size(picture, limits)
    if picture.format in ("JPEG", "MPO"):
        if data.count(_SCAN) > _MAX_SCANS:
            raise TooLarge(f"The JPEG has more than {_MAX_SCANS} scans: save it anew.")
        picture.draft(None, _target(*picture.size))  # decodes at 1/2, 1/4 or 1/8 of the size, many times faster
    return picture


def _check_size(picture: PIL.Image.Image, limits: Limits) -> None:
    tags = getattr(picture, "tag_v2", {})  # libtiff decodes whole tiles, which may be far larger than the picture
    sizes = [picture.size, (tags.get(_TILE_WIDTH, 0), tags.get(_TILE_LENGTH, 0))]
    if any(max(size) > limits.max_side for size in sizes):
        raise TooLarge(f"The picture is too large: at most {limits.max_side} px a side are taken{limits.by('max_image_side')}.")
    if any(size[0] * size[1] > limits.max_megapixels * 1e6 for size in sizes):
        raise _too_many_pixels(limits)


def _too_many_pixels(limits: Limits) -> TooLarge:
    return TooLarge(f"The picture is too large: at most {limits.max_megapixels:g} megapixels are taken{limits.by('max_image_megapixels')}.")


def _normal(picture: PIL.Image.Image) -> PIL.Image.Image:
    """Upright, opaque RGB of a sane size."""
    picture.load()
    turned = _UPRIGHT.get(_orientation(picture))
    if picture.mode in ("1", "P", "PA") or (picture.mode in ("L", "RGB") and "transparency" in picture.info):
        picture = picture.convert("RGBA")
    plain = _rgb(_resized(picture))
    return plain.transpose(turned) if turned is not None else plain


def _orientation(picture: PIL.Image.Image) -> int:
    try:
        return int(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken EXIF data, which say nothing about the picture itself
        return 1


def _target(width: int, height: int) -> tuple[int, int]:
    """Twice what the model sees on the longer side, but of a narrow picture not less than it sees on the shorter."""
    scale = min(1, max(2 * SEEN / max(width, height), SEEN / min(width, height)), _LONGEST / max(width, height))
    return max(MIN_SIDE, round(width * scale)), max(MIN_SIDE, round(height * scale))


def _resized(picture: PIL.Image.Image) -> PIL.Image.Image:
    size = _target(*picture.size)
    return picture if size == picture.size else picture.resize(size, Resampling.LANCZOS, reducing_gap=3)


def _rgb(picture: PIL.Image.Image) -> PIL.Image.Image:
    if picture.mode.startswith("I;16"):
        return PIL.Image.fromarray((np.asarray(picture) // 257).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F"):
        return _stretched(np.asarray(picture, dtype=np.float64)).convert("RGB")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = PIL.Image.new("RGBA", picture.size, "white")
        return PIL.Image.alpha_composite(white, picture).convert("RGB")
    return picture.convert("RGB")


def _stretched(values: np.ndarray) -> PIL.Image.Image:
    """Numbers without a white point (32-bit TIFF), from the lowest as black to the highest as white."""
    values = np.nan_to_num(values, posinf=0, neginf=0)
    span = values.max() - values.min()
    return PIL.Image.fromarray(((values - values.min()) * (255 / span if span else 0)).astype(np.uint8))


def _encoded(picture: PIL.Image.Image) -> Image:
    """PNG for small pictures and those of few colours (drawings, print, screens), where it is exact and short; JPEG for photographs."""
    small = picture.width * picture.height <= _PNG_PIXELS
    exact = small or picture.getcolors(_PNG_COLOURS) is not None
    out = io.BytesIO()
    if exact:
        picture.save(out, "PNG", compress_level=3)
    else:
        picture.save(out, "JPEG", quality=92, subsampling=0)
    return Image(out.getvalue(), width=picture.width, height=picture.height, media_type="image/png" if exact else "image/jpeg")
