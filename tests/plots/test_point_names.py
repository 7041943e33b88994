from itertools import combinations, pairwise

from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text

from foveate.plots.point_names import LONGEST_LINE, in_lines, name_points

WORDS = st.text("abcdefgh_=1", min_size=1, max_size=25)


@given(st.lists(WORDS, min_size=1, max_size=6))
def test_names_are_broken_before_colons_alone_and_only_where_they_must_be(words: list[str]) -> None:
    name = ":".join(words)
    lines = in_lines(name).split("\n")
    assert "".join(lines) == name
    assert all(line.startswith(":") for line in lines[1:])
    assert all(len(line) <= LONGEST_LINE for line in lines)
    for line, following in pairwise(lines):
        assert len(line) + 1 + len(following[1:].split(":")[0]) > LONGEST_LINE


def test_long_names_stand_inside_the_axes_and_on_no_other() -> None:
    figure = Figure(figsize=(7, 5))
    axes = figure.subplots()
    axes.set(xlim=(0, 1), ylim=(0, 1))
    arguments = ":embed_dim=256:depth=1:num_heads=4:mlp_ratio=2"
    name_points(figure, axes, [(f"t2t_vit_14_wide{arguments}", x, y) for x, y in ((0.1, 0.5), (0.7, 0.5), (0.72, 0.52), (0.9, 0.1))])
    figure.draw_without_rendering()
    boxes = [Text.get_window_extent(text) for text in axes.texts]  # without the line to the point
    inside = axes.get_window_extent()
    assert len(boxes) == 4
    assert all(inside.x0 <= box.x0 and box.x1 <= inside.x1 and inside.y0 <= box.y0 and box.y1 <= inside.y1 for box in boxes)
    assert not any(one.overlaps(other) for one, other in combinations(boxes, 2))
