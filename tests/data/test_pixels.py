"""8-bit tensors hold what pictures hold; resizing is Pillow's up to rounding; normalising a batch is normalising each picture."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from foveate.data.pixels import normalised, normalised_batch, picture_of, pixels_of, resized_pixels

SIDES = st.integers(1, 60)


def noise(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Values that cubic filters do not carry over the edge of the range, where the order of columns and rows makes a difference."""
    bands = [np.random.default_rng((seed, band)).integers(60, 196, (height, width), dtype=np.uint8) for band in range(len(mode))]
    return Image.merge(mode, [Image.fromarray(band) for band in bands])


@given(SIDES, SIDES, st.sampled_from(["L", "RGB", "RGBA"]))
def test_a_picture_becomes_values_and_a_picture_again(width: int, height: int, mode: str) -> None:
    picture = noise(width, height, mode)
    pixels = pixels_of(picture)
    assert (pixels.shape, pixels.dtype) == ((len(mode), height, width), torch.uint8)
    assert pixels.permute(1, 2, 0).is_contiguous()
    assert pixels[:, height - 1, 0].tolist() == list(np.atleast_1d(picture.getpixel((0, height - 1))))
    back = picture_of(pixels)
    assert (back.mode, back.size, back.tobytes()) == (mode, picture.size, picture.tobytes())


@settings(deadline=None)
@given(SIDES, SIDES, SIDES, SIDES, st.sampled_from(["L", "RGB", "RGBA"]), st.sampled_from(["bilinear", "bicubic"]))
def test_resizing_is_pillows_up_to_rounding(width: int, height: int, columns: int, rows: int, mode: str, interpolation: str) -> None:
    picture = noise(width, height, mode)
    result = resized_pixels(pixels_of(picture), (rows, columns), interpolation)
    bands = [band.resize((columns, rows), Image.Resampling[interpolation.upper()]) for band in picture.split()]  # RGBA as four greys
    assert (result.shape, result.dtype) == ((len(mode), rows, columns), torch.uint8)
    assert result.permute(1, 2, 0).is_contiguous()
    for band, values in zip(bands, result, strict=True):
        assert np.abs(np.asarray(band, dtype=int) - values.numpy()).max() <= 2


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_normalising_a_batch_is_normalising_each_picture(mode: str) -> None:
    mean, std = (0.485, 0.456, 0.406, 0.3)[: len(mode)], (0.229, 0.224, 0.225, 0.5)[: len(mode)]
    pictures = [noise(9, 7, mode, seed) for seed in range(5)]
    stored = torch.stack([pixels_of(picture).permute(1, 2, 0) for picture in pictures]).permute(0, 3, 1, 2)
    for pixels in (stored, stored.contiguous()):
        batch = normalised_batch(pixels, mean, std)
        assert batch.dtype == torch.float32 and batch.is_contiguous(memory_format=torch.channels_last)
        for picture, own in zip(pictures, batch, strict=True):
            assert torch.equal(own, normalised(picture, mean, std))
    shape = (1, len(mode), 1, 1)
    assert torch.equal(batch, (stored.float() / 255 - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape))
