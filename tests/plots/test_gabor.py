"""Gabor sheets show pairs of kernels on one scale, with their figures over them."""

import numpy as np
import pytest

from foveate.plots.gabor import gabor_sheet, gabor_titles


class TestGaborSheet:
    @pytest.mark.parametrize(("count", "columns"), [(1, 8), (3, 8), (24, 8), (10, 4)])
    def test_is_readable(self, tmp_path, drawn, count, columns):
        kernels = np.random.default_rng(0).normal(size=(2, count, 3, 3))
        titles = gabor_titles(([12.3] * count, [150.0] * count), ([3.0] * count, [2.9] * count))
        gabor_sheet(*kernels, titles, tmp_path / "filters.png", columns=columns, title="fvit_tiny: Gabor filters")
        drawn.assert_readable()

    def test_a_pair_shares_one_symmetric_scale(self, tmp_path, drawn):
        before, after = np.zeros((2, 2, 3, 3))
        before[0, 0, 0], after[0, 1, 1] = 4.0, -2.0
        gabor_sheet(before, after, ["first", "silent"], tmp_path / "filters.png")
        images = drawn.figure.axes[0].images
        assert {image.get_clim() for image in images} == {(-1.0, 1.0)}
        shown = [np.asarray(image.get_array()) for image in images]
        assert shown[0][0, 0] == 1.0 and shown[1][1, 1] == -0.5
        assert not shown[2].any() and not shown[3].any()
        above, below = (image.get_extent() for image in images[:2])
        assert above[2] > below[3], "before stands above after"

    def test_titles_are_in_pixels_and_degrees_of_half_a_turn(self):
        wavelengths = ([2.0, float("inf")], [2.44, 3.0])
        orientations = ([0.0, np.pi / 4], [-np.pi / 2, np.pi + 0.001])
        assert gabor_titles(wavelengths, orientations) == ["2.0 → 2.4 px\n0° → 90°", ">99 → 3.0 px\n45° → 0°"]

    def test_refuses_pairs_that_do_not_fit(self, tmp_path):
        with pytest.raises(ValueError, match="gabor sheet"):
            gabor_sheet(np.zeros((2, 3, 3)), np.zeros((1, 3, 3)), ["a", "b"], tmp_path / "filters.png")
