"""What is drawn onto pictures is where it should be, and can be read."""

import itertools

import numpy as np
import pytest
from PIL import Image, ImageDraw

from foveate import overlays
from foveate.class_colours import class_colours, readable_on
from foveate.overlays import colour_mask, draw_classes, draw_objects

GREY = (128, 128, 128)
NAMES = ("red cell", "white cell", "platelet")


def pixels(image):
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def changed(image, background=GREY):
    return (pixels(image) != background).any(axis=-1)


@pytest.fixture
def tags(monkeypatch):
    """The rectangles of the tags that are drawn, with their words, in the order of drawing."""
    seen, write = [], overlays._write

    def remember(draw, tag, text, colour, pen):
        seen.append((tag, text))
        write(draw, tag, text, colour, pen)

    monkeypatch.setattr(overlays, "_write", remember)
    return seen


class TestObjects:
    def test_a_box_is_drawn_around_its_pixels_and_nowhere_else(self, tags):
        image = draw_objects(Image.new("RGB", (320, 240), GREY), np.array([[100.0, 80.0, 200.0, 160.0]]), [1], NAMES)
        where = changed(image)
        ((tag, text),) = tags
        assert text == "white cell" and tag[3] < 80
        where[tag[1] : tag[3] + 1, tag[0] : tag[2] + 1] = False
        assert not where[82:158, 102:198].any(), "the inside is left alone"
        assert not where[:79].any() and not where[161:].any() and not where[:, :99].any() and not where[:, 201:].any()
        colour = class_colours(3)[1]
        for line in (pixels(image)[80, 100:200], pixels(image)[159, 100:200], pixels(image)[80:160, 100], pixels(image)[80:160, 199]):
            assert (line == colour).all()

    def test_the_picture_that_is_handed_in_stays_as_it_is(self):
        for size in ((320, 240), (20, 20)):
            picture = Image.new("RGB", size, GREY)
            draw_objects(picture, np.array([[1, 1, 9, 9]]), [0], NAMES, masks=[np.ones(size[::-1])])
            assert not changed(picture).any()

    @pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
    @pytest.mark.parametrize("scores", [None, ()])
    def test_no_objects_leave_any_picture_as_it_is(self, mode, scores):
        picture = Image.new(mode, (300, 200))
        np.testing.assert_array_equal(
            pixels(draw_objects(picture, np.empty((0, 4)), [], NAMES, scores=scores)), pixels(picture.convert("RGB"))
        )

    @pytest.mark.parametrize("size", [(1, 1), (8, 8), (3, 300), (300, 3), (640, 480), (100, 2000), (4000, 3000)])
    def test_tags_stay_inside_and_names_can_be_read_at_any_size(self, tags, size):
        random = np.random.default_rng(sum(size))
        corners = np.sort(random.uniform(-0.3, 1.3, (20, 2, 2)) * size, axis=1).reshape(20, 4)
        names = ["a" * 300, "b", "Ångström"]
        image = draw_objects(Image.new("L", size), corners, random.integers(0, 3, 20).tolist(), names, scores=random.random(20).tolist())
        factor = image.width // size[0]
        assert image.size == (size[0] * factor, size[1] * factor) and max(image.size) >= 240
        assert factor == 1 or max(size) < 240
        assert len(tags) == 20
        for (left, top, right, bottom), _ in tags:
            assert 0 <= left <= right < image.width and 0 <= top <= bottom < image.height
            assert min(size) < 5 or bottom - top >= max(image.size) / 48

    def test_words_are_written_in_letters_that_stand_out(self, tags):
        image = draw_objects(Image.new("RGB", (640, 480), GREY), np.array([[300, 200, 400, 300]]), [0], NAMES, scores=[0.874])
        ((left, top, right, bottom), text), *_ = tags
        assert text == "red cell 87%"
        tag = pixels(image)[top : bottom + 1, left : right + 1].reshape(-1, 3)
        colour = class_colours(3)[0]
        assert (tag[[0, -1]] == colour).all()
        assert 0.015 < (tag == readable_on(colour)).all(axis=-1).mean() < 0.4

    def test_the_surest_lies_on_top(self):
        boxes = np.array([[50, 50, 150, 150]] * 2)
        for scores, top in (([0.9, 0.2], 0), ([0.2, 0.9], 1)):
            image = draw_objects(Image.new("RGB", (320, 240), GREY), boxes, [0, 1], NAMES, scores=scores)
            assert (pixels(image)[149, 60:140] == class_colours(3)[top]).all()

    def test_tags_avoid_one_another_while_there_is_room(self, tags):
        boxes = np.array([[100, 100, 300, 300], [104, 100, 320, 310], [108, 100, 310, 290]])
        draw_objects(Image.new("RGB", (640, 480), GREY), boxes, [0, 0, 0], NAMES, scores=[0.9, 0.8, 0.7])
        for (a, _), (b, _) in itertools.combinations(tags, 2):
            assert a[2] < b[0] or b[2] < a[0] or a[3] < b[1] or b[3] < a[1]

    def test_a_mask_is_half_transparent_with_an_outline(self):
        yy, xx = np.mgrid[:240, :320]
        mask = ((yy - 120) ** 2 + (xx - 160) ** 2 < 50**2).astype(np.uint8)
        boxes, colour = np.array([[100, 60, 220, 180]]), class_colours(3)[2].astype(int)
        drawn = pixels(draw_objects(Image.new("RGB", (320, 240), GREY), boxes, [2], NAMES, masks=[mask]))
        plain = pixels(draw_objects(Image.new("RGB", (320, 240), GREY), boxes, [2], NAMES))
        assert np.abs(drawn[100:140, 120:200] - (colour + 128) / 2).max() <= 0.5
        assert ((drawn != plain).any(axis=-1) <= (mask > 0)).all(), "nothing outside the mask"
        assert (drawn[120, 111] == colour).all() and (drawn[71, 160] == colour).all()

    @pytest.mark.parametrize("mask", [np.zeros((30, 40)), np.ones((30, 40)), np.eye(30, 40)], ids=["empty", "full", "thin"])
    def test_masks_of_small_pictures_grow_with_them(self, mask):
        image = draw_objects(Image.new("RGB", (40, 30), GREY), np.array([[60, 60, 70, 70]]), [0], NAMES, masks=[mask])
        where = changed(image)[: 30 * 6 - 30]
        np.testing.assert_array_equal(where, mask.repeat(6, 0).repeat(6, 1)[: 30 * 6 - 30] > 0)

    def test_refuses_lists_that_do_not_fit(self):
        for options in ({"scores": [0.1, 0.2]}, {"masks": []}):
            with pytest.raises(ValueError, match="found 1 boxes"):
                draw_objects(Image.new("L", (9, 9)), np.array([[1, 1, 2, 2]]), [0], NAMES, **options)


class TestClasses:
    def test_every_class_has_its_colour_and_none_is_left_alone(self):
        classes = np.full((240, 320), 255, dtype=np.uint8)
        classes[:100, :50], classes[100:, 200:] = 0, 2
        image = pixels(draw_classes(Image.new("RGB", (320, 240), GREY), classes, NAMES, opacity=0.25))
        colours = class_colours(3).astype(int)
        assert np.abs(image[:100, :50] - (0.75 * 128 + 0.25 * colours[0])).max() <= 0.5
        assert np.abs(image[100:240, 200:] - (0.75 * 128 + 0.25 * colours[2])).max() <= 0.5
        assert (image[:240][classes == 255] == 128).all()
        legend = {tuple(colour) for colour in image[240:].reshape(-1, 3)}
        assert tuple(colours[0]) in legend and tuple(colours[2]) in legend and tuple(colours[1]) not in legend

    @pytest.mark.parametrize("size", [(1, 1), (24, 18), (480, 360), (100, 900), (2600, 1900)])
    @pytest.mark.parametrize("count", [1, 150])
    def test_every_name_of_the_legend_is_complete_and_inside(self, monkeypatch, size, count):
        written, write = [], ImageDraw.ImageDraw.text

        def remember(draw, xy, text, font=None, **options):
            written.append((text, draw.textbbox(xy, text, font=font)))
            return write(draw, xy, text, font=font, **options)

        monkeypatch.setattr(ImageDraw.ImageDraw, "text", remember)
        names = [f"class {index}" for index in range(count)]
        classes = (np.arange(size[0] * size[1]) % count).astype(np.uint8).reshape(size[::-1])
        image = draw_classes(Image.new("L", size), classes, names)
        assert [text for text, _ in written] == names[: size[0] * size[1]]
        for _, (left, top, right, bottom) in written:
            assert left >= 0 and top >= size[1] and right <= image.width and bottom <= image.height
        for (_, a), (_, b) in itertools.combinations(written, 2):
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]

    def test_nothing_recognised_has_no_legend(self):
        image = draw_classes(Image.new("RGB", (300, 200), GREY), np.full((200, 300), 255, np.uint8), NAMES)
        assert image.size == (300, 200) and not changed(image).any()

    def test_refuses_classes_of_another_size(self):
        with pytest.raises(ValueError, match=r"found classes of \(20, 10\), expected \(10, 20\)"):
            draw_classes(Image.new("L", (20, 10)), np.zeros((20, 10), np.uint8), NAMES)


class TestColourMask:
    def test_numbers_survive_the_file_and_look_coloured(self, tmp_path):
        classes = np.random.default_rng(0).integers(0, 12, (17, 31)).astype(np.uint8)
        classes[3:5] = 255
        colour_mask(classes, 12).save(tmp_path / "mask.png")
        with Image.open(tmp_path / "mask.png") as image:
            assert image.mode == "P"
            np.testing.assert_array_equal(np.asarray(image), classes)
            seen = np.asarray(image.convert("RGB"))
        np.testing.assert_array_equal(seen[classes != 255], class_colours(12)[classes[classes != 255]])
        assert not seen[3:5].any()

    def test_refuses_more_classes_than_eight_bits_hold(self):
        with pytest.raises(ValueError, match="found 256 classes"):
            colour_mask(np.zeros((2, 2), np.uint8), 256)
