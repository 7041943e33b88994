"""Pictures of speed: growth with the picture or batch, and accuracy against speed."""

import numpy as np
import pytest
from PIL import Image

from foveate.errors import UserError
from foveate.plots.speed import growth, speed_and_accuracy

FORMS = ("eager", "compiled", "optimized")


def grown(column, power, model="a"):
    return [{"model": model, column: amount, "seconds": amount**power / 1e6, "peak_mib": amount} for amount in (224, 448)]


def measured(model, speed, top1, form="eager"):
    return {"model": model, "form": form, "images_per_second": speed, "top1": top1}


def crowd(count):
    """Models of nearly the same speed and accuracy, each in three forms."""
    random = np.random.default_rng(0)
    speeds, accuracies = random.uniform(20, 60, count), random.uniform(79, 82, count)
    return [
        measured(f"some_model_of_number_{index}", speeds[index] * factor, accuracies[index], form)
        for index in range(count)
        for form, factor in zip(FORMS, (1, 1.1, 1.2), strict=True)
    ]


class TestGrowth:
    def test_draws_every_model_and_leaves_a_picture(self, tmp_path, drawn):
        out = growth([*grown("side", 2), *grown("side", 3, "b")], tmp_path / "growth.png")
        with Image.open(out) as image:
            assert image.format == "PNG"
        seconds, memory = drawn.figure.axes
        lines = {line.get_label(): line.get_xydata().tolist() for line in seconds.lines}
        assert lines["a"] == [[224**2, 224**2 / 1e6], [448**2, 448**2 / 1e6]]
        assert lines["b"] == [[224**2, 224**3 / 1e6], [448**2, 448**3 / 1e6]]
        assert [text.get_text() for text in memory.get_legend().get_texts()] == ["a", "b"]
        assert [tick.get_text() for tick in seconds.get_xticklabels()] == ["224", "448"]
        drawn.assert_readable()

    @pytest.mark.parametrize(("by", "column", "power"), [("size", "side", 2), ("batch", "batch", 1)])
    def test_grey_lines_are_in_proportion_to_pixels_or_to_the_batch(self, tmp_path, drawn, by, column, power):
        growth(grown(column, power), tmp_path / "growth.png", by=by)
        model, grey = drawn.figure.axes[0].lines
        np.testing.assert_allclose(grey.get_xydata(), model.get_xydata())
        growth(grown(column, power + 1), tmp_path / "growth.png", by=by)
        model, grey = drawn.figure.axes[0].lines
        assert grey.get_ydata()[1] == pytest.approx(model.get_ydata()[1] / 2)
        assert drawn.figure.get_suptitle().endswith({"size": "picture", "batch": "batch"}[by])


class TestSpeedAndAccuracy:
    def test_every_known_model_is_a_point_with_its_name(self, tmp_path, drawn):
        rows = [measured("fvit_tiny", 40.0, 78.4), measured("resnet50", 30.0, 76.1), measured("new", 90.0, None)]
        assert speed_and_accuracy(rows, tmp_path / "speed.png") == tmp_path / "speed.png"
        (axes,) = drawn.figure.axes
        (points,) = axes.lines
        assert points.get_xydata().tolist() == [[40.0, 78.4], [30.0, 76.1]]
        assert {text.get_text() for text in axes.texts} == {"fvit_tiny", "resnet50"}
        assert "models without published accuracy, left out: 1" in axes.get_xlabel()
        drawn.assert_readable()

    def test_forms_are_told_apart_by_name_mark_and_colour(self, tmp_path, drawn):
        speed_and_accuracy([measured("fvit_tiny", 40.0 + index, 78.4, form) for index, form in enumerate(FORMS)], tmp_path / "speed.png")
        (axes,) = drawn.figure.axes
        assert {text.get_text() for text in axes.texts} == {"fvit_tiny", "fvit_tiny compiled", "fvit_tiny optimized"}
        assert [line.get_label() for line in axes.lines] == list(FORMS)
        assert len({line.get_marker() for line in axes.lines}) == len({line.get_color() for line in axes.lines}) == 3
        assert [text.get_text() for text in drawn.figure.legends[0].get_texts()] == list(FORMS)
        drawn.assert_readable()

    @pytest.mark.parametrize(("fastest", "scale"), [(40.0, "linear"), (41.0, "log")])
    def test_the_axis_is_logarithmic_above_a_ratio_of_four(self, tmp_path, drawn, fastest, scale):
        speed_and_accuracy([measured("slow", 10.0, 80.0), measured("fast", fastest, 70.0)], tmp_path / "speed.png")
        (axes,) = drawn.figure.axes
        assert axes.get_xscale() == scale
        assert sum(text.replace(",", "").replace(".", "").isdigit() for text, box in drawn.words if box.y1 < axes.bbox.y0) >= 3
        drawn.assert_readable()

    @pytest.mark.parametrize("count", [1, 4, 12])
    def test_names_of_crowded_points_lie_neither_on_each_other_nor_on_points(self, tmp_path, drawn, count):
        speed_and_accuracy(crowd(count), tmp_path / "speed.png")
        drawn.assert_readable()
        (axes,) = drawn.figure.axes
        names = [box for text, box in drawn.words if text.startswith("some_model")]
        assert len(names) == 3 * count
        for line in axes.lines:
            for x, y in axes.transData.transform(line.get_xydata()):
                assert not any(box.x0 < x < box.x1 and box.y0 < y < box.y1 for box in names)

    def test_without_any_published_accuracy_there_is_no_picture(self, tmp_path):
        with pytest.raises(UserError, match="found no published accuracy of new, other, expected") as error:
            speed_and_accuracy([measured("new", 9.0, None), measured("other", 9.0, None)], tmp_path / "speed.png")
        assert "\n" not in str(error.value) and not list(tmp_path.iterdir())
