"""Colours of classes can be told apart and written on."""

import numpy as np
import pytest

from foveate.class_colours import class_colours, readable_on


def test_a_class_keeps_its_colour_however_many_follow():
    np.testing.assert_array_equal(class_colours(3), class_colours(255)[:3])
    assert class_colours(80).shape == (80, 3) and class_colours(80).dtype == np.uint8 and class_colours(0).shape == (0, 3)


@pytest.mark.parametrize(("count", "apart"), [(11, 60), (80, 25), (150, 15)])
def test_no_two_are_alike(count, apart):
    colours = class_colours(count).astype(int)
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=-1)[~np.eye(count, dtype=bool)]
    assert distances.min() > apart
    assert (np.ptp(colours, axis=1) > 20).all(), "none is grey"


def test_callers_cannot_change_them():
    class_colours(3)[:] = 0
    assert class_colours(3).any()


def test_letters_stand_out_from_every_colour():
    def luminance(colour):
        values = np.asarray(colour) / 255
        return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722)

    for colour in class_colours(255):
        dark, light = sorted((luminance(colour), luminance(readable_on(colour))))
        assert (light + 0.05) / (dark + 0.05) > 4.5
