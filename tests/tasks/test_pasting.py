import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycocotools import mask as run_lengths

from foveate.tasks.pasting import paste


def slow(grid, box, width, height):
    """Every pixel of the picture on its own."""
    cells = len(grid)
    left, top, right, bottom = box
    pasted = np.zeros((height, width), dtype=np.uint8)
    padded = np.pad(grid, 1)
    for y in range(height):
        for x in range(width):
            across = (x + 0.5 - left) / (right - left) * cells + 0.5  # places in the padded grid
            down = (y + 0.5 - top) / (bottom - top) * cells + 0.5
            if 0 <= across < cells + 1 and 0 <= down < cells + 1:
                (i, a), (j, b) = divmod(down, 1), divmod(across, 1)
                window = padded[int(i) : int(i) + 2, int(j) : int(j) + 2]
                inside = left < x + 1 and x < right and top < y + 1 and y < bottom
                pasted[y, x] = inside and np.array([1 - a, a]) @ window @ np.array([1 - b, b]) >= 0.5
    return pasted


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 30), st.integers(1, 30), st.integers(1, 9), st.tuples(*[st.floats(-10, 40)] * 4), st.integers(0, 2**32 - 1))
def test_equals_the_obvious_way_and_pycocotools_own_encoding(width, height, cells, corners, seed):
    grid = np.random.default_rng(seed).random((cells, cells))
    a, b, c, d = corners
    box = (min(a, b), min(c, d), max(a, b) + 0.01, max(c, d) + 0.01)
    expected = slow(grid, box, width, height)
    coded = paste(grid, box, width, height)
    np.testing.assert_array_equal(run_lengths.decode(coded), expected)
    assert coded["counts"] == run_lengths.encode(np.asfortranarray(expected))["counts"].decode()


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (5, 9, 9, 5), (30, 30, 40, 40), (-9, -9, -1, -1)], ids=["flat", "turned", "right", "left"])
def test_a_box_without_pixels_is_empty(box):
    assert not run_lengths.decode(paste(np.ones((28, 28)), box, 20, 20)).any()


def test_a_full_picture_is_full():
    coded = paste(np.ones((28, 28)), (-20, -20, 60, 50), 40, 30)
    assert run_lengths.area(coded) == 40 * 30 and coded["size"] == [30, 40]
