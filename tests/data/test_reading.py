"""Every pixel type is read right, damaged files are named, and nothing else gets out."""

import random
import warnings
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageDraw

from foveate.data.reading import open_picture, read_picture, upright_size
from foveate.errors import UserError

UPRIGHT_TO_STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,  # turned clockwise when shown, so stored counter-clockwise
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def smooth(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards, blue is 90: JPEG keeps it, and every flip shows."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 / (width - 1), y * 255 / (height - 1), np.full((height, width), 90.0)], axis=-1)
    return Image.fromarray(pixels.round().astype(np.uint8))


def difference(one: Image.Image, other: Image.Image) -> float:
    assert (one.size, one.mode) == (other.size, other.mode)
    return float(np.abs(np.asarray(one, dtype=np.int16) - np.asarray(other, dtype=np.int16)).max())


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_every_16_bit_value_is_scaled_and_rounded(tmp_path: Path, suffix: str) -> None:
    values = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(values).save(tmp_path / f"deep.{suffix}")
    expected = np.rint(values / 257).astype(np.uint8)  # 257 is odd: no ties
    assert np.array_equal(np.asarray(read_picture(tmp_path / f"deep.{suffix}", 1)), expected)
    assert np.array_equal(np.asarray(read_picture(tmp_path / f"deep.{suffix}", 3)), np.stack([expected] * 3, axis=-1))


def test_big_endian_and_32_bit_pictures_with_16_bit_values() -> None:
    values = np.array([[0, 257, 65535]], dtype=np.uint16)
    for picture in (Image.fromarray(values.astype(">u2")), Image.fromarray(values.astype(np.int32))):
        assert picture.mode in ("I;16B", "I")
        assert np.asarray(read_picture(picture, 1)).tolist() == [[0, 1, 255]]


@pytest.mark.parametrize("values", [np.array([[0.0, 0.5]], dtype=np.float32), np.array([[0, 70000]], dtype=np.int32)])
def test_values_of_unknown_range_are_refused(tmp_path: Path, values: np.ndarray) -> None:
    Image.fromarray(values).save(tmp_path / "heights.tif")
    with pytest.raises(UserError, match=r"heights\.tif: values from 0 to (0\.5|70000).*expected whole numbers of 8 or 16 bits"):
        read_picture(tmp_path / "heights.tif", 3)


def translucent(mode: str) -> Image.Image:
    """Left pixel opaque dark, right pixel transparent or half so."""
    picture = Image.new("RGBA", (2, 1), (10, 20, 30, 255))
    picture.putpixel((1, 0), (200, 100, 0, 0 if mode in ("P", "PA") else 51))
    return picture.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pictures_lie_on_white(tmp_path: Path, mode: str) -> None:
    source = translucent(mode)
    if mode == "P":
        source = translucent("RGBA").quantize(4)
    source.save(tmp_path / "cut_out.png")
    red, green, blue, alpha = np.moveaxis(np.asarray(source.convert("RGBA"), dtype=float), -1, 0)
    share = alpha / 255
    expected = np.stack([channel * share + 255 * (1 - share) for channel in (red, green, blue)], axis=-1)
    assert np.abs(np.asarray(read_picture(tmp_path / "cut_out.png", 3)) - expected).max() <= 1
    grey = np.asarray(Image.fromarray(expected.round().astype(np.uint8)).convert("L"))
    assert np.abs(np.asarray(read_picture(tmp_path / "cut_out.png", 1), dtype=int) - grey).max() <= 1
    assert np.array_equal(np.asarray(read_picture(tmp_path / "cut_out.png", 4))[..., 3], alpha)


@pytest.mark.parametrize(("mode", "key", "colour"), [("RGB", (10, 20, 30), (10, 20, 30)), ("L", 7, 7)])
def test_a_colour_declared_transparent_becomes_white(
    tmp_path: Path, mode: str, key: tuple[int, ...] | int, colour: tuple[int, ...]
) -> None:
    picture = Image.new(mode, (3, 2), colour)
    picture.putpixel((0, 0), (50, 60, 70) if mode == "RGB" else 50)
    picture.save(tmp_path / "keyed.png", transparency=key)
    pixels = np.asarray(read_picture(tmp_path / "keyed.png", 3))
    assert pixels[0, 0].tolist() == ([50, 60, 70] if mode == "RGB" else [50, 50, 50])
    assert (pixels.reshape(-1, 3)[1:] == 255).all()


@pytest.mark.parametrize("suffix", ["tif", "jpg"])
def test_cmyk(tmp_path: Path, suffix: str) -> None:
    inks = [(255, 0, 0, 0), (0, 255, 0, 0), (0, 0, 255, 0), (0, 0, 0, 255), (0, 0, 0, 0)]
    expected = [(0, 255, 255), (255, 0, 255), (255, 255, 0), (0, 0, 0), (255, 255, 255)]
    picture = Image.new("CMYK", (80, 16))
    for place, ink in enumerate(inks):
        picture.paste(ink, (16 * place, 0, 16 * place + 16, 16))
    picture.save(tmp_path / f"print.{suffix}", **({"quality": 100} if suffix == "jpg" else {}))
    read = read_picture(tmp_path / f"print.{suffix}", 3)
    for place, colour in enumerate(expected):
        assert np.abs(np.subtract(read.getpixel((16 * place + 8, 8)), colour)).max() <= 3


def test_grey_bilevel_and_palette_pictures(tmp_path: Path) -> None:
    smooth(9, 7).convert("L").save(tmp_path / "grey.png")
    grey = np.asarray(smooth(9, 7).convert("L"))
    assert np.array_equal(np.asarray(read_picture(tmp_path / "grey.png", 3)), np.stack([grey] * 3, axis=-1))
    assert np.asarray(read_picture(tmp_path / "grey.png", 4))[..., 3].min() == 255
    Image.new("1", (3, 3), 1).save(tmp_path / "fax.png")
    assert np.asarray(read_picture(tmp_path / "fax.png", 1)).tolist() == [[255] * 3] * 3
    palette = smooth(9, 7).quantize(16)
    palette.save(tmp_path / "few.gif")
    assert difference(read_picture(tmp_path / "few.gif", 3), palette.convert("RGB")) == 0


def test_of_an_animation_the_first_frame_is_read(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (5, 4), colour) for colour in ("red", "blue")]
    frames[0].save(tmp_path / "film.gif", save_all=True, append_images=frames[1:])
    assert read_picture(tmp_path / "film.gif", 3).getpixel((2, 2)) == (255, 0, 0)


def test_the_first_of_several_pictures_in_a_telephones_jpeg_is_read(tmp_path: Path) -> None:
    smooth(48, 32).save(tmp_path / "photo.jpg", "MPO", save_all=True, append_images=[Image.new("RGB", (9, 9))], quality=98)
    with open_picture(tmp_path / "photo.jpg") as image:
        assert image.format == "MPO"
        assert upright_size(image) == (48, 32)
        assert read_picture(image, 3, shrink=2).size == (24, 16)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "mode"), [("jpg", "RGB"), ("png", "RGB"), ("tif", "RGB"), ("webp", "RGB"), ("png", "LA"), ("tif", "LA")]
)
def test_every_exif_orientation_is_set_upright(tmp_path: Path, orientation: int, suffix: str, mode: str) -> None:
    upright = smooth(48, 32).convert(mode)
    turn = UPRIGHT_TO_STORED[orientation]
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"jpg": {"quality": 98, "subsampling": 0}, "webp": {"lossless": True}}.get(suffix, {})
    path = tmp_path / f"turned.{suffix}"
    (upright if turn is None else upright.transpose(turn)).save(path, exif=exif, **options)
    with open_picture(path) as image:
        assert upright_size(image) == (48, 32)
    assert difference(read_picture(path, 3), upright.convert("RGB")) <= (4 if suffix == "jpg" else 0)
    if suffix == "jpg":
        small = read_picture(path, 3, shrink=2)
        assert difference(small, upright.resize((24, 16), Image.Resampling.BOX)) <= 6


@pytest.mark.parametrize(("shrink", "divisor"), [(0.3, 1), (1.99, 1), (2.0, 2), (3.9, 2), (4.0, 4), (8.0, 8), (1000.0, 8)])
def test_shrink_decodes_a_jpeg_smaller_but_never_below_what_was_asked(tmp_path: Path, shrink: float, divisor: int) -> None:
    smooth(321, 203).save(tmp_path / "large.jpg", quality=95)
    smooth(321, 203).save(tmp_path / "large.png")
    small = read_picture(tmp_path / "large.jpg", 3, shrink=shrink)
    assert small.size == (-(-321 // divisor), -(-203 // divisor))
    assert read_picture(tmp_path / "large.png", 3, shrink=shrink).size == (321, 203)


def test_other_numbers_of_channels_are_refused() -> None:
    with pytest.raises(UserError, match=r"pictures of 13 channels.*hold 1, 3 or 4"):
        read_picture(smooth(4, 4), 13)


SAVED = [
    ("jpg", {}),
    ("jpg", {"progressive": True}),
    ("png", {}),
    ("gif", {}),
    ("tif", {}),
    ("tif", {"compression": "tiff_deflate"}),
    ("bmp", {}),
    ("webp", {}),
    ("ppm", {}),
    ("jp2", {}),
]


def encoded(suffix: str, options: dict[str, object]) -> bytes:
    picture = smooth(40, 30)
    ImageDraw.Draw(picture).text((3, 3), "foveate", fill="white")
    buffer = BytesIO()
    picture.save(buffer, {"jpg": "JPEG", "tif": "TIFF", "jp2": "JPEG2000"}.get(suffix, suffix.upper()), **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("suffix", "options"), SAVED)
def test_a_file_cut_short_is_named(tmp_path: Path, suffix: str, options: dict[str, object]) -> None:
    whole = encoded(suffix, options)
    path = tmp_path / f"holiday.{suffix}"
    path.write_bytes(whole)
    assert read_picture(path, 3).size == (40, 30)
    path.write_bytes(whole[: len(whole) * 6 // 10])
    warnings.simplefilter("ignore")  # Pillow also warns of the metadata it misses
    with pytest.raises(UserError, match=rf"holiday\.{suffix}: (broken picture|not a picture).*: replace or remove it$") as error:
        read_picture(path, 3, shrink=8)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("suffix", "options"), SAVED)
def test_damaged_bytes_give_a_picture_or_a_user_error_and_nothing_else(suffix: str, options: dict[str, object]) -> None:
    whole = encoded(suffix, options)
    chance = random.Random(suffix)
    refused = 0
    for _ in range(150):
        damaged = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            damaged[chance.randrange(len(damaged) if chance.random() < 0.5 else min(len(damaged), 200))] = chance.randrange(256)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = open_picture(BytesIO(bytes(damaged)), "damaged")
                if image.width * image.height < 1_000_000:
                    read_picture(image, 3)
        except UserError as error:
            refused += 1
            assert str(error).startswith("damaged: ")
    assert refused > 10


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"", "not a picture"), (b"hello", "not a picture"), (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture")],
)
def test_what_is_no_picture_is_named_and_postscript_is_never_run(tmp_path: Path, content: bytes, expected: str) -> None:
    (tmp_path / "odd.jpg").write_bytes(content)
    with pytest.raises(UserError, match=rf"odd\.jpg: {expected} of a known format, expected one of JPEG, PNG"):
        read_picture(tmp_path / "odd.jpg", 3)


def test_an_absent_file_and_a_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"gone\.jpg: cannot be opened \(No such file or directory\)"):
        read_picture(tmp_path / "gone.jpg", 3)
    with pytest.raises(UserError, match="cannot be opened"):
        read_picture(tmp_path, 3)
