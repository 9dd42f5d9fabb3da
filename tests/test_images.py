"""Pictures: what is understood, what it becomes, and what is refused."""

from __future__ import annotations

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from gemma3n_sgl.conversation import Image
from gemma3n_sgl.errors import Gemma3nError, MediaError, TooLarge
from gemma3n_sgl.media import Limits, open_image, tiles

MEDIA = Path(__file__).parent / "media"
WHITE, RED, BLUE = (255, 255, 255), (220, 20, 30), (30, 60, 220)


def pixels(image: Image) -> PIL.Image.Image:
    return PIL.Image.open(io.BytesIO(image))


def encoded(picture: PIL.Image.Image, form: str, **options: object) -> bytes:
    out = io.BytesIO()
    picture.save(out, form, **options)
    return out.getvalue()


def assert_colour(image: Image, at: tuple[int, int], colour: tuple[int, int, int], within: int = 12) -> None:
    found = pixels(image).getpixel(at)
    assert np.abs(np.subtract(found, colour)).max() <= within, f"{found} instead of {colour}"


def blank_png(width: int, height: int) -> bytes:
    """A white 1-bit PNG, made row by row: 100 megapixels are 12 kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    pack = zlib.compressobj(9)
    rows = b"".join(pack.compress(b"\0" + b"\xff" * ((width + 7) // 8)) for _ in range(height)) + pack.flush()
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("name", "at", "colour"),
    [
        ("red-circle.png", (150, 100), RED),
        ("red-circle-cmyk.jpg", (150, 100), RED),
        ("blue-square.jpg", (80, 70), BLUE),
        ("yellow-star.webp", (150, 100), (250, 220, 0)),
        ("green-triangle.gif", (150, 100), (0, 150, 50)),
    ],
)
def test_files_of_every_common_kind_keep_their_size_and_colours(name: str, at: tuple[int, int], colour: tuple[int, int, int]) -> None:
    image = open_image(MEDIA / name)
    assert (image.width, image.height) == pixels(image).size == (300, 200)
    assert pixels(image).mode == "RGB"
    assert_colour(image, at, colour)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "MPO"])
def test_every_format_named_in_the_message_is_understood(form: str) -> None:
    image = open_image(encoded(PIL.Image.open(MEDIA / "red-circle.png"), form))
    assert_colour(image, (150, 100), RED, within=20)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "I;16", "I", "F"])
def test_a_pillow_image_of_any_mode_is_taken(mode: str) -> None:
    image = open_image(PIL.Image.new(mode, (40, 30)))
    assert (image.width, image.height, pixels(image).mode) == (40, 30, "RGB")


def test_a_picture_can_be_a_path_a_string_bytes_or_an_open_file() -> None:
    path = MEDIA / "red-circle.png"
    with path.open("rb") as file:
        assert len({open_image(path), open_image(str(path)), open_image(path.read_bytes()), open_image(file)}) == 1


def test_an_image_stays_as_it_is() -> None:
    image = open_image(MEDIA / "red-circle.png")
    assert open_image(image) is image


def test_a_photo_taken_sideways_stands_upright() -> None:
    """EXIF orientation 6: stored as 200 × 300, seen as 300 × 200 with the square in the upper left."""
    image = open_image(MEDIA / "blue-square-rotated.jpg")
    assert (image.width, image.height) == (300, 200)
    assert_colour(image, (80, 70), BLUE)
    assert_colour(image, (250, 150), WHITE)


@pytest.mark.parametrize("form", ["JPEG", "PNG", "TIFF", "WEBP", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_seen_as_pillow_shows_it(orientation: int, form: str) -> None:
    corner = PIL.Image.new("RGB", (64, 32), "white")
    corner.paste(RED, (0, 0, 24, 12))
    exif = PIL.Image.Exif()
    exif[274] = orientation
    data = encoded(corner, form, exif=exif)
    upright = PIL.ImageOps.exif_transpose(PIL.Image.open(io.BytesIO(data))).convert("RGB")
    found = pixels(open_image(data))
    assert found.size == upright.size
    assert np.abs(np.subtract(found, upright, dtype=int)).mean() < 3


def test_transparent_parts_are_white() -> None:
    image = open_image(MEDIA / "red-circle-alpha.png")
    assert_colour(image, (5, 5), WHITE, within=0)
    assert_colour(image, (150, 100), RED)


def test_a_transparent_palette_colour_is_white() -> None:
    picture = PIL.Image.new("P", (20, 20), 0)
    assert_colour(open_image(encoded(picture, "GIF", transparency=0)), (5, 5), WHITE, within=0)


def test_16_bit_grey_keeps_its_shades() -> None:
    image = open_image(MEDIA / "grey-16bit.png")
    shades = np.asarray(pixels(image))[:, :, 0]
    assert shades.min() == 0
    assert shades.max() == 255
    assert len(np.unique(shades)) == 256


def test_of_an_animation_the_first_frame_is_seen() -> None:
    assert_colour(open_image(MEDIA / "animated.gif"), (150, 100), RED)


def test_large_pictures_shrink_to_twice_what_the_model_sees() -> None:
    image = open_image(encoded(PIL.Image.new("RGB", (4000, 3000), RED), "JPEG"))
    assert (image.width, image.height) == (1536, 1152)


@pytest.mark.parametrize(
    ("size", "seen"), [((8000, 1000), (4096, 512)), ((4000, 1000), (3072, 768)), ((1000, 4000), (768, 3072)), ((600, 20), (600, 20))]
)
@pytest.mark.slow
def test_narrow_pictures_keep_what_the_model_can_use(size: tuple[int, int], seen: tuple[int, int]) -> None:
    image = open_image(PIL.Image.new("RGB", size))
    assert (image.width, image.height) == seen


def test_tiny_pictures_are_enlarged_so_that_the_engine_can_take_them() -> None:
    assert (open_image(PIL.Image.new("RGB", (1, 3))).width, open_image(PIL.Image.new("RGB", (300, 1))).height) == (8, 8)


def test_drawings_stay_exact_and_photographs_short() -> None:
    noise = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8))
    drawing = PIL.Image.new("RGB", (1200, 800), RED)
    assert open_image(noise).media_type == "image/jpeg"
    assert open_image(drawing).media_type == "image/png"
    assert pixels(open_image(drawing)).getcolors() == [(1200 * 800, RED)]


def test_the_same_picture_gives_the_same_bytes() -> None:
    """The engine's cache knows a picture by them."""
    data = (MEDIA / "yellow-star.webp").read_bytes()
    assert bytes(open_image(data)) == bytes(open_image(data))


def test_tiles_are_the_parts_in_reading_order() -> None:
    colours = [(i, 40 * i, 255 - i) for i in range(6)]
    picture = PIL.Image.new("RGB", (301, 200))
    for i, colour in enumerate(colours):
        picture.paste(colour, (100 * (i % 3), 100 * (i // 3), 100 * (i % 3) + 101, 100 * (i // 3) + 100))
    parts = tiles(open_image(picture), 2, 3)
    assert [pixels(part).getpixel((50, 50)) for part in parts] == colours
    assert sum(part.width * part.height for part in parts) == 301 * 200


def test_tiles_of_less_than_a_pixel_are_refused() -> None:
    with pytest.raises(ValueError, match="can't be cut into 0 rows"):
        tiles(open_image(MEDIA / "red-circle.png"), 0, 2)


def refused(data: bytes, kind: type[Gemma3nError], words: str, limits: Limits = Limits()) -> None:  # noqa: B008 - it is frozen
    """The picture is refused with a sentence for people: nothing of the decoder's own words, or of Python's."""
    with pytest.raises(kind, match=words) as caught:
        open_image(data, limits=limits)
    assert not re.search(r"0x|object at|Traceback|\.py|BytesIO|PIL|libjpeg|Errno", caught.value.message)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("side", [9_500, 10_000, 16_000])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_a_hundred_megapixels_in_ten_kilobytes_are_refused_unread(side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    bomb = blank_png(side, side)
    assert len(bomb) < 60_000
    refused(bomb, TooLarge, "at most 25 megapixels")


def test_a_side_beyond_the_limit_is_refused() -> None:
    refused(blank_png(20_000, 10), TooLarge, "16384 px a side")


def test_a_file_beyond_the_limit_is_refused() -> None:
    refused((MEDIA / "red-circle.png").read_bytes(), TooLarge, "larger than the limit of 0.0005 MB", Limits(max_bytes=500))


def test_a_tiff_whose_tiles_are_larger_than_the_picture_is_refused() -> None:
    """10 × 10 px in one tile of 16,384 × 16,384: libtiff would decode the whole tile."""
    tags = [(256, 10), (257, 10), (258, 8), (259, 8), (262, 1), (277, 1), (322, 16_384), (323, 16_384), (324, 8), (325, 16)]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    refused(b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(20), TooLarge, "at most 25 megapixels")


def test_a_jpeg_of_a_thousand_scans_is_refused() -> None:
    """Each scan costs a pass over the whole picture and takes 42 bytes of file."""
    data = encoded(PIL.Image.new("L", (800, 800), 128), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    refused(data[:-2] + last * 1000 + data[-2:], TooLarge, "more than 100 scans")


def test_a_png_that_is_cut_off_is_refused() -> None:
    refused((MEDIA / "cut-off.png").read_bytes(), MediaError, "damaged or cut off")


@pytest.mark.parametrize("name", ["red-circle.png", "blue-square.jpg", "yellow-star.webp", "green-triangle.gif"])
def test_a_picture_cut_anywhere_is_refused_or_seen_but_never_an_accident(name: str) -> None:
    whole = (MEDIA / name).read_bytes()
    for end in range(1, len(whole), max(1, len(whole) // 40)):
        try:
            assert open_image(whole[:end]).width == 300
        except MediaError as error:
            assert error.status == 400


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "0 bytes"),
        (b"This is a text that somebody calls picture.png", "no picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no picture"),
        (b"%PDF-1.7 \n", "no picture"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC pictures are not supported"),
        (b"\x89PNG\r\n\x1a\n", "no picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "no picture"),
    ],
)
def test_what_is_no_picture_is_said_to_be_none(data: bytes, words: str) -> None:
    refused(data, MediaError, words)


def test_noise_in_a_picture_is_never_an_accident() -> None:
    rng = np.random.default_rng(0)
    for name in ("red-circle.png", "blue-square.jpg", "yellow-star.webp", "green-triangle.gif", "animated.gif"):
        for _ in range(20):
            data = bytearray((MEDIA / name).read_bytes())
            for at in rng.integers(0, len(data), 5):
                data[at] = int(rng.integers(0, 256))
            try:
                assert open_image(bytes(data))
            except Gemma3nError as error:
                assert error.status in (400, 413)


@pytest.mark.parametrize(
    ("source", "words"),
    [("no-such-file.png", "no file 'no-such-file.png'"), (MEDIA, "is a folder"), ("https://example.com/a.png", "This is a URL")],
)
def test_a_path_that_holds_no_file_is_said_to_hold_none(source: str | Path, words: str) -> None:
    with pytest.raises(MediaError, match=words):
        open_image(source)
