"""The picture of a comparison, and the line of models that no other beats."""

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from foveate.plots.comparison import _courses, comparison, frontier
from foveate.plots.figure import model_looks, new_figure

NUMBERS = st.floats(0.1, 100, allow_nan=False)


@given(points=st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=12))
def test_the_frontier_holds_what_no_other_beats(points: list[tuple[float, float]]) -> None:
    kept = frontier(points)
    beaten = {one for one in points for other in points if other != one and other[0] >= one[0] and other[1] >= one[1]}
    assert set(kept) == set(points) - beaten
    assert kept == sorted(kept)


def test_models_without_speed_have_a_curve_and_no_point(tmp_path: Path) -> None:
    rows = [
        {"model": "a", "mean": 0.6, "deviation": 0.02, "images_per_second": 30.0},
        {"model": "b", "mean": 0.5, "deviation": None, "images_per_second": 300.0},
        {"model": "c", "mean": 0.4, "deviation": None, "images_per_second": None},
    ]
    curves = {"a": [[(1, 0.2), (2, 0.6)], [(1, 0.3), (2, 0.58)]], "b": [[(0.5, 0.5)]], "c": [[]]}
    out = comparison(rows, curves, tmp_path / "comparison.png", figure="top1", budget="minutes", title="pictures")
    with Image.open(out) as picture:
        assert picture.size[0] > 1000 and len(picture.convert("RGB").getcolors(1 << 20)) > 20


def test_trainings_measured_at_the_same_points_are_one_curve_and_others_are_not() -> None:
    axes = new_figure(4, 3).subplots()
    curves = {"a": [[(1, 0.2), (2, 0.6)], [(1, 0.4), (2, 0.8)]], "b": [[(1, 0.1), (2, 0.2)], [(1, 0.1), (3, 0.2)]], "c": [[]]}
    _courses(axes, curves, dict(zip("abc", model_looks(), strict=False)))
    drawn = [line.get_ydata().tolist() for line in axes.lines]
    np.testing.assert_allclose(drawn[0], [0.3, 0.7])
    assert drawn[1:] == [[0.1, 0.2], [0.1, 0.2], []]
    band = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert (band.min(), band.max()) == (0.2, 0.8)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["a", "b", "c"]
