"""The pictures say what the numbers say, and every word on them can be read."""

import itertools

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from foveate import plots
from foveate.errors import UserError

RED = np.array(plots.WRONG)


class Drawn:
    """The last figure that was saved while the test runs, and the words drawn on it with their boxes in pixels."""

    def __init__(self):
        self.figure = None
        self.words = []


@pytest.fixture
def drawn(monkeypatch):
    seen = Drawn()
    draw_figure, draw = Figure.draw, Text.draw

    def remember_figure(figure, renderer):
        seen.figure = figure
        seen.words.clear()  # drawn twice: the first time to find the layout
        return draw_figure(figure, renderer)

    def remember_words(text, renderer):
        if text.get_visible() and text.get_text().strip():
            seen.words.append((text.get_text(), text.get_window_extent(renderer)))
        return draw(text, renderer)

    monkeypatch.setattr(Figure, "draw", remember_figure)
    monkeypatch.setattr(Text, "draw", remember_words)
    return seen


def assert_readable(drawn):
    """No word leaves the picture or touches another one."""
    width, height = drawn.figure.canvas.get_width_height()
    for text, box in drawn.words:
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, f"{text!r} leaves the picture"
    for (first, a), (second, b) in itertools.combinations(drawn.words, 2):
        apart = a.x1 <= b.x0 + 1 or b.x1 <= a.x0 + 1 or a.y1 <= b.y0 + 1 or b.y1 <= a.y0 + 1
        assert apart, f"{first!r} lies on {second!r}"


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def is_red(area):
    return (np.abs(area - RED).max(axis=-1) < 8).any()


def test_pyplots_global_state_is_left_alone(tmp_path):
    figures, settings = pyplot.get_fignums(), dict(matplotlib.rcParams)
    plots.learning_curves([{"epoch": 1, "train_loss": 1.0}], tmp_path / "curves.png")
    assert pyplot.get_fignums() == figures and dict(matplotlib.rcParams) == settings


class TestLearningCurves:
    ROWS = tuple(
        {
            "epoch": epoch,
            "train_loss": 2 / epoch,
            "val_loss": 2.2 / epoch if epoch % 2 else float("nan"),
            "learning_rate": 1e-3 / epoch,
            **({"val_top1": 1 - 1 / epoch} if epoch % 2 else {}),
        }
        for epoch in range(1, 10)
    )

    def test_draws_every_measured_point_and_no_other(self, tmp_path, drawn):
        out = plots.learning_curves(self.ROWS, tmp_path / "curves.png", title="fvit_tiny")
        loss, top1, rate = drawn.figure.axes
        lines = {line.get_label(): line.get_xydata().tolist() for line in (*loss.lines, *top1.lines)}
        assert lines["train loss"] == [[row["epoch"], row["train_loss"]] for row in self.ROWS]
        assert lines["val loss"] == [[e, 2.2 / e] for e in (1, 3, 5, 7, 9)]
        assert lines["val top-1"] == [[e, 1 - 1 / e] for e in (1, 3, 5, 7, 9)]
        assert rate.lines[0].get_ydata().tolist() == [row["learning_rate"] for row in self.ROWS]
        assert "best val top-1: 88.89% (epoch 9)" in top1.get_title()
        assert "fvit_tiny" in [text for text, _ in drawn.words]
        assert out == tmp_path / "curves.png" and [file.name for file in tmp_path.iterdir()] == ["curves.png"]

    def test_train_and_measured_lines_differ_without_colour(self, tmp_path, drawn):
        plots.learning_curves(self.ROWS, tmp_path / "curves.png")
        styles = [line.get_linestyle() for line in drawn.figure.axes[0].lines]
        assert len(set(styles)) == len(styles) == 2

    def test_other_tasks_show_their_own_figures_and_mark_the_best(self, tmp_path, drawn):
        names = ("box_ap", "box_ap50", "mask_ap")
        kinds = [(f"{kind}_{name}", rise) for kind, rise in (("val", 0.08), ("averaged", 0.09)) for name in names]
        rows = [{"epoch": e, "train_loss": 1 / e, **{name: rise * e - (e == 9) * 0.5 for name, rise in kinds}} for e in range(1, 10)]
        plots.learning_curves(rows, tmp_path / "curves.png", title="retinanet on fvit_tiny")
        _, axes = drawn.figure.axes
        lines = [line for line in axes.lines if not line.get_label().startswith("_")]
        assert {line.get_label() for line in lines} == {f"{k} {n}" for k in ("val", "averaged") for n in ("box AP", "box AP50", "mask AP")}
        assert len({(line.get_linestyle(), line.get_marker()) for line in lines}) == 6, "told apart without colour"
        assert axes.get_ylabel() == "box AP, mask AP, box AP50"
        assert "best val box AP: 64.00% (epoch 8)" in axes.get_title() and "best averaged mask AP: 72.00% (epoch 8)" in axes.get_title()
        stars = [tuple(line.get_xydata()[0]) for line in axes.lines if line.get_marker() == "*"]
        np.testing.assert_allclose(sorted(stars), [(8, 0.64)] * 3 + [(8, 0.72)] * 3)
        assert_readable(drawn)

    def test_segmentation_shows_miou_and_pixel_accuracy(self, tmp_path, drawn):
        rows = [{"epoch": e, "val_loss": 1 / e, "val_miou": 0.01 * e, "val_pixel_accuracy": 0.02 * e} for e in range(1, 41)]
        plots.learning_curves(rows, tmp_path / "curves.png")
        _, axes = drawn.figure.axes
        assert axes.get_title() == "best val mIoU: 40.00% (epoch 40)\nbest val pixel accuracy: 80.00% (epoch 40)"
        assert_readable(drawn)

    @pytest.mark.parametrize("rows", [ROWS[:1], ROWS, [{"epoch": 1, "train_loss": float("nan")}]], ids=["one epoch", "nine", "nothing"])
    def test_is_readable_however_little_there_is(self, tmp_path, drawn, rows):
        plots.learning_curves(rows, tmp_path / "curves.png", title="t2t_vit_7 on clothing10")
        assert_readable(drawn)


class TestConfusionMatrix:
    @pytest.mark.parametrize("classes", [2, 20, 100])
    def test_is_readable(self, tmp_path, drawn, classes):
        counts = np.random.default_rng(classes).integers(0, 2000, (classes, classes)) * np.eye(classes, dtype=int)
        names = [f"{'long ' * (index % 7)}class {index}" for index in range(classes)]
        plots.confusion_matrix(counts, names, tmp_path / "confusion.png", title="fvit_tiny")
        assert_readable(drawn)
        height, width, _ = pixels(tmp_path / "confusion.png").shape
        assert 500 < width < 2600 and 500 < height < 2800

    def test_shows_counts_shares_and_totals(self, tmp_path, drawn):
        counts = np.array([[3, 1, 0], [0, 5, 5], [0, 0, 0]])
        plots.confusion_matrix(counts, ["cat", "dog", "never seen"], tmp_path / "confusion.png", title="t2t_vit_7")
        axes = drawn.figure.axes[0]
        np.testing.assert_allclose(axes.images[0].get_array(), [[0.75, 0.25, 0], [0, 0.5, 0.5], [0, 0, 0]])
        written = {(int(text.get_position()[1]), int(text.get_position()[0])): text.get_text() for text in axes.texts}
        assert written == {(0, 0): "3", (0, 1): "1", (1, 1): "5", (1, 2): "5"}
        assert [tick.get_text() for tick in axes.get_yticklabels()] == ["cat (4)", "dog (10)", "never seen (0)"]
        assert axes.get_title() == "t2t_vit_7\n14 pictures, top-1 57.14%"

    def test_many_classes_are_named_in_steps_and_say_so(self, tmp_path, drawn):
        plots.confusion_matrix(np.eye(120, dtype=int), [f"c{i}" for i in range(120)], tmp_path / "confusion.png")
        axes = drawn.figure.axes[0]
        assert len(axes.get_xticklabels()) == 60 and not axes.texts
        assert "one class in 2 is named" in axes.get_ylabel()

    def test_refuses_names_that_do_not_fit(self, tmp_path):
        with pytest.raises(ValueError, match=r"found shape \(3, 3\), expected \(2, 2\)"):
            plots.confusion_matrix(np.eye(3, dtype=int), ["a", "b"], tmp_path / "confusion.png")
        assert not list(tmp_path.iterdir())


class TestContactSheet:
    def test_small_pictures_are_enlarged_by_a_whole_factor_unsmoothed(self, tmp_path):
        digit = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
        sheet = pixels(plots.contact_sheet([Image.fromarray(digit)], ["a digit"], None, tmp_path / "sheet.png", side=160))
        expected = digit.repeat(20, axis=0).repeat(20, axis=1)
        np.testing.assert_array_equal(sheet[14 : 14 + 160, 14 : 14 + 160, 0], expected)

    @pytest.mark.parametrize("size", [(224, 224), (300, 100), (1, 500), (200, 13), (90, 60)])
    def test_every_picture_fills_its_square_in_its_own_proportions(self, tmp_path, size):
        sheet = pixels(plots.contact_sheet([Image.new("L", size, 0)], [""], None, tmp_path / "sheet.png", side=100))
        black = (sheet[14:114, 14:114] == 0).all(axis=-1)
        height, width = np.ptp(np.argwhere(black), axis=0) + 1
        assert max(width, height) >= 90
        assert abs(width - max(1, size[0] * max(width, height) / max(size))) <= 1
        assert not (sheet == 0).all(axis=-1)[:, :13].any()

    def test_wrong_ones_are_framed_red_and_named_in_words(self, tmp_path):
        pictures = [Image.new("L", (8, 8), 128)] * 3
        out = plots.contact_sheet(pictures, ["x"] * 3, [False, True, False], tmp_path / "sheet.png", side=160, title="fvit_tiny")
        sheet = pixels(out)
        cells = [sheet[:, 5 + 174 * place : 5 + 174 * (place + 1)] for place in range(3)]
        assert [is_red(cell) for cell in cells] == [False, True, False]
        frame = sheet[46 + 80, 174 + 14 - 5 : 174 + 14]
        assert (np.abs(frame - RED) < 8).all()
        words_under = [cell[46 + 160 + 8 : 46 + 160 + 8 + plots.TEXT_HEIGHT].min(axis=-1) < 128 for cell in cells]
        assert (words_under[0] == words_under[2]).all()
        assert (words_under[0] != words_under[1]).any(), "without colour the words differ"

    def test_long_captions_stay_in_their_cells(self, tmp_path):
        pictures = [Image.new("RGB", (16, 16), "blue")] * 4
        captions = [f"{'wide word ' * 9}\nsecond {'line ' * 20}"] * 4
        sheet = pixels(plots.contact_sheet(pictures, captions, None, tmp_path / "sheet.png", columns=2, side=96))
        assert sheet.shape[1] == 14 + 2 * (96 + 14)
        for gap in (slice(0, 13), slice(14 + 96 + 2, 14 + 96 + 13), slice(-13, None)):
            assert (sheet[:, gap] == 255).all()

    def test_takes_any_mode_and_wraps_into_rows(self, tmp_path):
        pictures = [Image.new(mode, (40, 30)) for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "LA")]
        sheet = pixels(plots.contact_sheet(pictures, ["x"] * 7, [True] * 7, tmp_path / "sheet.png", columns=3))
        assert sheet.shape[0] > 3 * 168

    @pytest.mark.parametrize(("pictures", "captions", "wrong"), [(0, 0, None), (2, 1, None), (2, 2, [True])])
    def test_refuses_lists_that_do_not_fit(self, tmp_path, pictures, captions, wrong):
        with pytest.raises(ValueError, match="contact sheet"):
            plots.contact_sheet([Image.new("L", (8, 8))] * pictures, ["x"] * captions, wrong, tmp_path / "sheet.png")


class TestGaborSheet:
    @pytest.mark.parametrize(("count", "columns"), [(1, 8), (3, 8), (24, 8), (10, 4)])
    def test_is_readable(self, tmp_path, drawn, count, columns):
        kernels = np.random.default_rng(0).normal(size=(2, count, 3, 3))
        titles = plots.gabor_titles(([12.3] * count, [150.0] * count), ([3.0] * count, [2.9] * count))
        plots.gabor_sheet(*kernels, titles, tmp_path / "filters.png", columns=columns, title="fvit_tiny: Gabor filters")
        assert_readable(drawn)

    def test_a_pair_shares_one_symmetric_scale(self, tmp_path, drawn):
        before, after = np.zeros((2, 2, 3, 3))
        before[0, 0, 0], after[0, 1, 1] = 4.0, -2.0
        plots.gabor_sheet(before, after, ["first", "silent"], tmp_path / "filters.png")
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
        assert plots.gabor_titles(wavelengths, orientations) == ["2.0 → 2.4 px\n0° → 90°", ">99 → 3.0 px\n45° → 0°"]

    def test_refuses_pairs_that_do_not_fit(self, tmp_path):
        with pytest.raises(ValueError, match="gabor sheet"):
            plots.gabor_sheet(np.zeros((2, 3, 3)), np.zeros((1, 3, 3)), ["a", "b"], tmp_path / "filters.png")


def test_a_picture_that_cannot_be_finished_leaves_the_old_one(tmp_path, monkeypatch):
    out = plots.contact_sheet([Image.new("L", (8, 8))], ["old"], None, tmp_path / "sheet.png")
    old = out.read_bytes()

    def killed(self, file, **options):
        file.write_bytes(b"half a picture")
        raise OSError("no space left")

    monkeypatch.setattr(Image.Image, "save", killed)
    with pytest.raises(UserError, match="no space left"):
        plots.contact_sheet([Image.new("L", (8, 8))], ["new"], None, out)
    assert out.read_bytes() == old and list(tmp_path.iterdir()) == [out]


def test_growth_draws_every_model_and_leaves_a_picture(tmp_path):
    rows = [{"model": m, "side": s, "seconds": s**p / 1e6, "peak_mib": s} for m, p in (("a", 2), ("b", 3)) for s in (224, 448)]
    out = plots.growth(rows, tmp_path / "growth.png")
    with Image.open(out) as one, Image.open(plots.growth(rows[:2], tmp_path / "one.png")) as other:
        assert one.size == other.size
        assert np.asarray(one).tobytes() != np.asarray(other).tobytes(), "the second model is drawn"
