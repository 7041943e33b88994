"""Contact sheets show pictures as they are, with words that stay in their cells."""

import numpy as np
import pytest
from PIL import Image

from foveate.errors import UserError
from foveate.plots.contact_sheet import TEXT_HEIGHT, WRONG, contact_sheet

RED = np.array(WRONG)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def is_red(area):
    return (np.abs(area - RED).max(axis=-1) < 8).any()


class TestContactSheet:
    def test_small_pictures_are_enlarged_by_a_whole_factor_unsmoothed(self, tmp_path):
        digit = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
        sheet = pixels(contact_sheet([Image.fromarray(digit)], ["a digit"], None, tmp_path / "sheet.png", side=160))
        expected = digit.repeat(20, axis=0).repeat(20, axis=1)
        np.testing.assert_array_equal(sheet[14 : 14 + 160, 14 : 14 + 160, 0], expected)

    @pytest.mark.parametrize("size", [(224, 224), (300, 100), (1, 500), (200, 13), (90, 60)])
    def test_every_picture_fills_its_square_in_its_own_proportions(self, tmp_path, size):
        sheet = pixels(contact_sheet([Image.new("L", size, 0)], [""], None, tmp_path / "sheet.png", side=100))
        black = (sheet[14:114, 14:114] == 0).all(axis=-1)
        height, width = np.ptp(np.argwhere(black), axis=0) + 1
        assert max(width, height) >= 90
        assert abs(width - max(1, size[0] * max(width, height) / max(size))) <= 1
        assert not (sheet == 0).all(axis=-1)[:, :13].any()

    def test_wrong_ones_are_framed_red_and_named_in_words(self, tmp_path):
        pictures = [Image.new("L", (8, 8), 128)] * 3
        out = contact_sheet(pictures, ["x"] * 3, [False, True, False], tmp_path / "sheet.png", side=160, title="fvit_tiny")
        sheet = pixels(out)
        cells = [sheet[:, 5 + 174 * place : 5 + 174 * (place + 1)] for place in range(3)]
        assert [is_red(cell) for cell in cells] == [False, True, False]
        frame = sheet[46 + 80, 174 + 14 - 5 : 174 + 14]
        assert (np.abs(frame - RED) < 8).all()
        words_under = [cell[46 + 160 + 8 : 46 + 160 + 8 + TEXT_HEIGHT].min(axis=-1) < 128 for cell in cells]
        assert (words_under[0] == words_under[2]).all()
        assert (words_under[0] != words_under[1]).any(), "without colour the words differ"

    def test_long_captions_stay_in_their_cells(self, tmp_path):
        pictures = [Image.new("RGB", (16, 16), "blue")] * 4
        captions = [f"{'wide word ' * 9}\nsecond {'line ' * 20}"] * 4
        sheet = pixels(contact_sheet(pictures, captions, None, tmp_path / "sheet.png", columns=2, side=96))
        assert sheet.shape[1] == 14 + 2 * (96 + 14)
        for gap in (slice(0, 13), slice(14 + 96 + 2, 14 + 96 + 13), slice(-13, None)):
            assert (sheet[:, gap] == 255).all()

    def test_takes_any_mode_and_wraps_into_rows(self, tmp_path):
        pictures = [Image.new(mode, (40, 30)) for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "LA")]
        sheet = pixels(contact_sheet(pictures, ["x"] * 7, [True] * 7, tmp_path / "sheet.png", columns=3))
        assert sheet.shape[0] > 3 * 168

    @pytest.mark.parametrize(("pictures", "captions", "wrong"), [(0, 0, None), (2, 1, None), (2, 2, [True])])
    def test_refuses_lists_that_do_not_fit(self, tmp_path, pictures, captions, wrong):
        with pytest.raises(ValueError, match="contact sheet"):
            contact_sheet([Image.new("L", (8, 8))] * pictures, ["x"] * captions, wrong, tmp_path / "sheet.png")


def test_a_picture_that_cannot_be_finished_leaves_the_old_one(tmp_path, monkeypatch):
    out = contact_sheet([Image.new("L", (8, 8))], ["old"], None, tmp_path / "sheet.png")
    old = out.read_bytes()

    def killed(self, file, **options):
        file.write_bytes(b"half a picture")
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", killed)
    with pytest.raises(UserError, match="no space left"):
        contact_sheet([Image.new("L", (8, 8))], ["new"], None, out)
    assert out.read_bytes() == old and list(tmp_path.iterdir()) == [out]
