"""Reading pictures as they come: any usual format and pixel type -> an upright 8-bit picture of 1, 3 or 4 channels."""

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from foveate.errors import UserError

# A closed list: Pillow knows formats whose reading starts other programs (EPS runs Ghostscript), and opening a picture executes nothing.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000")
SUFFIXES = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm", ".pbm", ".jp2")
MODES = {1: "L", 3: "RGB", 4: "RGBA"}

# What Pillow's decoders raise on damaged files.
_DECODER_ERRORS = (OSError, SyntaxError, ValueError, RuntimeError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


@contextmanager
def naming(name: str) -> Iterator[None]:
    """Turn whatever a decoder raises inside into one `UserError` that names the picture."""
    try:
        yield
    except UnidentifiedImageError:
        raise UserError(f"{name}: not a picture of a known format, expected one of {', '.join(FORMATS)}: replace or remove it") from None
    except _DECODER_ERRORS as error:
        if isinstance(error, OSError) and error.strerror:
            raise UserError(f"{name}: cannot be opened ({error.strerror}), expected a picture there: check the path") from None
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{name}: broken picture ({reason}), expected one that decodes to the end: replace or remove it") from None


def open_picture(source: Path | IO[bytes], name: str | None = None) -> Image.Image:
    """The picture at `source`, its header read and its pixels not yet decoded; `name` is what errors call it (default: its path).

    Raises `UserError` when it is absent or not a picture of a known format.
    """
    name = name or str(source)
    with naming(name):
        image = Image.open(source, formats=FORMATS)
    image.filename = name
    return image


def upright_size(image: Image.Image) -> tuple[int, int]:
    """(width, height) that `read_picture(image, ...)` will give at `shrink` 1; decodes nothing of a JPEG file."""
    with naming(_name_of(image)):
        if image.format not in ("JPEG", "MPO"):
            image.load()  # TIFF turns itself while loading, so its header is not the last word
        width, height = image.size
        return (height, width) if orientation_of(image) >= 5 else (width, height)


def read_picture(source: Path | Image.Image, channels: int, *, shrink: float = 1.0) -> Image.Image:
    """The decoded, upright 8-bit picture in mode L, RGB or RGBA for 1, 3 or 4 `channels`.

    The EXIF orientation is applied; 16-bit values are scaled (65535 -> 255); palettes, CMYK and the like are converted; for 1 and 3
    channels transparent pictures are laid over white, for 4 channels opaque ones get alpha 255. Of an animation the first frame is read.
    `shrink` > 1 allows a JPEG file to be decoded up to that many times smaller per side (by 2, 4 or 8, in the DCT domain), which is much
    faster; the exact size is then the picture's divided by that power of two, rounded up.

    Raises `UserError` naming the file when it is absent, broken or of a pixel type without a known range (floating point).
    """
    if channels not in MODES:
        raise UserError(f"pictures of {channels} channels were asked for, but picture files hold 1, 3 or 4: choose one of these")
    if isinstance(source, Path):
        with open_picture(source) as image:
            return read_picture(image, channels, shrink=shrink)
    image = source
    with naming(_name_of(image)):
        if shrink >= 2:
            divisor = 1 << min(3, int(shrink).bit_length() - 1)
            image.draft(None, (image.width // divisor or 1, image.height // divisor or 1))
        image.load()
        if orientation_of(image) != 1:
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith(("I", "F")):
            image = _eight_bits(image)
        return _convert(image, channels)


def _name_of(image: Image.Image) -> str:
    return str(getattr(image, "filename", "") or "picture in memory")


def orientation_of(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) to 8; 5 and more swap width and height."""
    value = image.getexif().get(ExifTags.Base.Orientation, 1)
    return value if value in range(1, 9) else 1


def _eight_bits(image: Image.Image) -> Image.Image:
    """Modes I;16 and I (16 bits per value) -> mode L, 65535 becoming 255."""
    values = np.asarray(image)
    low, high = float(values.min()), float(values.max())
    if image.mode == "F" or low < 0 or high > 65535:
        found = f"{_name_of(image)}: values from {low:g} to {high:g} in pixel type {image.mode}"
        raise UserError(f"{found}, expected whole numbers of 8 or 16 bits: scale and save it anew, or remove it")
    return Image.fromarray(((values.astype(np.uint32) + 128) // 257).astype(np.uint8))


def _convert(image: Image.Image, channels: int) -> Image.Image:
    mode = MODES[channels]
    if channels < 4 and image.has_transparency_data:
        opaque = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", opaque.size, "white"), opaque)
    # convert() copies even where there is nothing to do
    return image if image.mode == mode else image.convert(mode)


def read_thumbnail(source: Path | Image.Image, side: int = 336) -> Image.Image:
    """A picture in RGB that fits into `side` x `side` pixels, small enough to keep many; `UserError` as `read_picture`."""
    picture = read_picture(source, 3)
    picture.thumbnail((side, side))
    return picture
