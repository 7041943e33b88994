"""The picture of a comparison, and the line of models that no other beats."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from foveate.plots.comparison import comparison, frontier

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
